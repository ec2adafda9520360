"""Benchmarks: each measures, and stores and prints its results; none passes or fails. Timings are not in tests."""
