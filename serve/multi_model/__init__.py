"""Multi-model endpoints: models that are loaded, listed and unloaded by requests."""
