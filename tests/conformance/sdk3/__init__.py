"""The SDK 3, which can't be installed together with the SDK 2: a program that uses it, and its packages."""
