"""A program: what a user of the SDK 2 writes in a notebook, in local mode.

    python -m tests.conformance.sdk_user kmeans|estimator|hosts FOLDER PORT IMAGE

FOLDER has the data, and gets `model.tar.gz` and the predictions; the endpoint listens at PORT. A separate process:
the SDK prints the container's log, leaves threads and takes its settings from the environment.

In the `kmeans` part two things differ from the notebooks that AWS publishes, because local mode can't do what SageMaker
does with the SDK's defaults. Neither is about the image:

* `distribution="FullyReplicated"`: the default is ShardedByS3Key, which local mode refuses.
* `S3Prefix` instead of `ManifestFile`: local mode ignores the type of the S3 data and would give the container the
  manifest as its data. The prefix holds the files that the manifest names, and the manifest itself, whose name begins
  with a dot: such files are skipped.

The class always uses Amazon's image, so the image under test must have its name here; see the fixture
`builtin_name`.
"""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import boto3
import numpy as np
import sagemaker
from sagemaker.amazon.amazon_estimator import RecordSet
from sagemaker.deserializers import JSONDeserializer
from sagemaker.estimator import Estimator
from sagemaker.inputs import TrainingInput
from sagemaker.local import LocalSession
from sagemaker.serializers import CSVSerializer

REGION = "us-east-1"
ROLE = "arn:aws:iam::123456789012:role/SageMaker"
MANIFEST = ".amazon.manifest"
# Local mode has waited for GET /ping when it says that the endpoint is created; to wait here is to sleep 30 s.
WAIT = False


def local_session(folder: Path, port: int) -> Any:
    session = LocalSession(
        boto3.Session(region_name=REGION),
        default_bucket="kmeans-conformance",
        # Otherwise each call is reported to AWS.
        sagemaker_config={
            "SchemaVersion": "1.0",
            "SageMaker": {"PythonSDK": {"Modules": {"TelemetryOptOut": True}}},
        },
    )
    containers = folder / "containers"
    containers.mkdir()
    session.config = {"local": {"container_root": str(containers), "serving_port": port}}
    return session


def use_kmeans(folder: Path, session: Any, image: str) -> None:
    """Train with the SDK's own class on an array, and ask with the predictor that it gives."""
    points = np.load(folder / "points.npy")
    kmeans = sagemaker.KMeans(role=ROLE, instance_count=1, instance_type="local", k=10, sagemaker_session=session)
    uploaded = kmeans.record_set(points, distribution="FullyReplicated")
    records = RecordSet(
        uploaded.s3_data.removesuffix(MANIFEST),
        uploaded.num_records,
        uploaded.feature_dim,
        s3_data_type="S3Prefix",
        distribution="FullyReplicated",
    )
    kmeans.fit(records)
    save_model(folder, session, kmeans)
    predictor = kmeans.deploy(initial_instance_count=1, instance_type="local", wait=WAIT)
    try:
        answer = predictor.predict(points)
    finally:
        predictor.delete_endpoint()
    tensors = [(one.label["closest_cluster"], one.label["distance_to_cluster"]) for one in answer]
    np.save(
        folder / "predictions.npy",
        np.array([(label.float32_tensor.values[0], distance.float32_tensor.values[0]) for label, distance in tensors]),
    )
    (folder / "image").write_text(kmeans.training_image_uri())


def use_estimator(folder: Path, session: Any, image: str) -> None:
    """Train with the class for any image on CSV files, as docs/training.md does, and ask with CSV for JSON."""
    estimator = Estimator(
        image_uri=image,
        role=ROLE,
        instance_count=1,
        instance_type="local",
        # A number, and a list, which this class sends as Python writes it.
        hyperparameters={"k": 10, "feature_dim": 64, "eval_metrics": ["msd", "ssd"]},
        sagemaker_session=session,
    )
    estimator.fit(
        {
            channel: TrainingInput(f"file://{folder / channel}", content_type="text/csv;label_size=0")
            for channel in ("train", "test")
        }
    )
    save_model(folder, session, estimator)
    predictor = estimator.deploy(
        initial_instance_count=1,
        instance_type="local",
        serializer=CSVSerializer(),
        deserializer=JSONDeserializer(),
        wait=WAIT,
    )
    try:
        answer = predictor.predict(np.load(folder / "points.npy"))
    finally:
        predictor.delete_endpoint()
    rows = [(one["closest_cluster"], one["distance_to_cluster"]) for one in answer["predictions"]]
    np.save(folder / "predictions.npy", np.array(rows))


def use_two_hosts(folder: Path, session: Any, image: str) -> None:
    """Train on two hosts, which local mode starts as two containers."""
    estimator = Estimator(
        image_uri=image,
        role=ROLE,
        instance_count=2,
        instance_type="local",
        hyperparameters={"k": 10, "feature_dim": 64},
        sagemaker_session=session,
    )
    estimator.fit({"train": TrainingInput(f"file://{folder / 'train'}", content_type="text/csv;label_size=0")})
    save_model(folder, session, estimator)


def save_model(folder: Path, session: Any, estimator: Any) -> None:
    bucket, _, key = estimator.model_data.removeprefix("s3://").partition("/")
    session.s3_client.download_file(bucket, key, str(folder / "model.tar.gz"))


PARTS: dict[str, Callable[[Path, Any, str], None]] = {
    "kmeans": use_kmeans,
    "estimator": use_estimator,
    "hosts": use_two_hosts,
}

if __name__ == "__main__":
    part, directory, serving_port, image_name = sys.argv[1:]
    PARTS[part](Path(directory), local_session(Path(directory), int(serving_port)), image_name)
