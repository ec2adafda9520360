"""The requests to SageMaker: boto3's dictionaries, each made by a function of its own that asks nothing and nobody."""
