"""Measurements: each prints what it measured, none passes or fails. Timings never stand in tests."""
