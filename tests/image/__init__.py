"""The contracts of SageMaker, asked of the built image with a Docker engine."""
