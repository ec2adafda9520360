"""The SDK 3, which can't be installed beside the SDK 2: a program that uses it, and what its environment holds."""
