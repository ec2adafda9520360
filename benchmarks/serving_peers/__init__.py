"""Other servers that answer with the nearest center, measured beside ours; neither in the image nor in the tests."""
