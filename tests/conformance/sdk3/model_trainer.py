"""A program: what a user of the SDK 3 writes in a notebook to train on several hosts, in local mode.

    .venv-sdk3/bin/python tests/conformance/sdk3/model_trainer.py FOLDER IMAGE HOSTS

FOLDER/train has the data, and FOLDER/compressed_artifacts/model.tar.gz is the model. It runs in an environment that has
neither our packages nor those of the SDK 2.
"""

import sys
from pathlib import Path

import boto3
from sagemaker.core.helper.session_helper import Session
from sagemaker.core.training.configs import Compute, InputData
from sagemaker.train.model_trainer import Mode, ModelTrainer

REGION = "us-east-1"
ROLE = "arn:aws:iam::123456789012:role/SageMaker"

if __name__ == "__main__":
    folder, image, hosts = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
    session = Session(
        boto3.Session(region_name=REGION),
        # Otherwise the call is reported to AWS.
        sagemaker_config={
            "SchemaVersion": "1.0",
            "SageMaker": {"PythonSDK": {"Modules": {"TelemetryOptOut": True}}},
        },
    )
    trainer = ModelTrainer(
        sagemaker_session=session,
        training_image=image,
        training_mode=Mode.LOCAL_CONTAINER,
        role=ROLE,  # else it asks AWS for one
        compute=Compute(instance_type="local_cpu", instance_count=hosts),
        hyperparameters={"k": 10, "feature_dim": 64},
        base_job_name="kmeans",
        # It writes the paths into compose's file as they are given, where relative ones would name volumes.
        local_container_root=str(folder.resolve()),
    )
    data = InputData(channel_name="train", data_source=str(folder / "train"), content_type="text/csv;label_size=0")
    trainer.train(input_data_config=[data])
