"""SageMaker on this machine: takes the requests of boto3's clients, and uses Docker and folders for them."""
