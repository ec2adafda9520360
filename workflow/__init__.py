"""The classic five steps, data, training, hosting, batch transform and validation, here or on SageMaker."""
