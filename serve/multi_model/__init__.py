"""Multi-model endpoints: requests load, list and unload models."""
