"""The whole job on one machine: train, serve, invoke, with Docker or without."""
