"""SageMaker on this machine: takes the requests of boto3's clients, and carries them out with Docker and folders."""
