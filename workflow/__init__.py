"""The steps from data to an endpoint (data, image, train, deploy, transform, validate), locally or on SageMaker."""
