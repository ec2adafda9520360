"""``sagemaker.KMeans`` of the SageMaker Python SDK 2 with a custom image: the SDK's class takes Amazon's image only.

The SDK isn't installed with the workflow: ``pip install "sagemaker<3"`` into a separate environment (docs/sdk-2.md).
"""

from __future__ import annotations

import json
from typing import Any

import sagemaker
from sagemaker.amazon.amazon_estimator import RecordSet
from sagemaker.amazon.hyperparameter import Hyperparameter
from sagemaker.amazon.kmeans import KMeansPredictor
from sagemaker.amazon.validation import ge
from sagemaker.model import Model
from sagemaker.vpc_utils import VPC_CONFIG_DEFAULT

from workflow.requests import metric_definitions

# The list of a record set's objects, in their folder. The image ignores names that begin with a dot.
MANIFEST = ".amazon.manifest"
SHARDED, REPLICATED = "ShardedByS3Key", "FullyReplicated"


class KMeans(sagemaker.KMeans):  # type: ignore[misc]
    """The SDK's estimator, which trains and serves with the given image.

    Parameters
    ----------
    image_uri
        URI of the image.
    *args, **kwargs
        As of ``sagemaker.KMeans``: ``role``, ``instance_count``, ``instance_type``, ``k`` and so on.
        ``metric_definitions`` defaults to the metrics that the image logs.
    seed
        Seed of all random numbers; the image's default is 0.
    refine_max_iter
        Maximum number of Lloyd iterations at the end; 0 for none, as in the built-in image; None for convergence.
    """

    seed = Hyperparameter("seed", ge(0), "An integer greater-than-or-equal-to 0", int)
    refine_max_iter = Hyperparameter("refine_max_iter", ge(0), "An integer greater-than-or-equal-to 0", int)

    def __init__(
        self, image_uri: str, *args: Any, seed: int | None = None, refine_max_iter: int | None = None, **kwargs: Any
    ) -> None:
        kwargs.setdefault("metric_definitions", metric_definitions())
        super().__init__(*args, **kwargs)
        self.image_uri = image_uri
        self.seed = seed
        self.refine_max_iter = refine_max_iter

    def training_image_uri(self) -> str:
        """Return the URI of the image."""
        return self.image_uri

    def record_set(
        self,
        train: Any,
        labels: Any = None,
        channel: str = "train",
        encrypt: bool = False,
        distribution: str | None = None,
    ) -> RecordSet:
        """Upload an array as RecordIO-protobuf, one object per instance.

        Parameters
        ----------
        train
            Points (n, d).
        labels
            A number per point, (n,), which the algorithm ignores.
        channel
            ``train`` or ``test``.
        encrypt
            Whether S3 encrypts the objects with its keys.
        distribution
            ``ShardedByS3Key``: each instance gets an object; ``FullyReplicated``: each gets all. None for the former;
            in local mode, which supports neither shards nor lists of objects, all objects in the folder.
        """
        is_local = self.sagemaker_session.local_mode
        wanted = distribution or (REPLICATED if is_local else SHARDED)
        records = super().record_set(train, labels, channel, encrypt, wanted)
        if is_local:
            records.s3_data, records.s3_data_type = records.s3_data.removesuffix(MANIFEST), "S3Prefix"
        return records

    def create_model(self, vpc_config_override: Any = VPC_CONFIG_DEFAULT, **kwargs: Any) -> KMeansModel:
        """Return the trained model; ``deploy`` and ``transformer`` call this method."""
        return KMeansModel(
            self.image_uri,
            self.model_data,
            self.role,
            self.sagemaker_session,
            vpc_config=self.get_vpc_config(vpc_config_override),
            **kwargs,
        )

    @classmethod
    def _prepare_init_params_from_job_description(
        cls, job_details: dict[str, Any], model_channel_name: str | None = None
    ) -> dict[str, Any]:
        """Return the arguments of an estimator with a job's settings, for ``attach`` and for a tuner's best job.

        The SDK's method ignores inherited hyperparameters and the image, and reads the text of a list as characters.
        """
        arguments: dict[str, Any] = super()._prepare_init_params_from_job_description(job_details, model_channel_name)
        hyperparameters = job_details["HyperParameters"]
        for attribute, row in vars(sagemaker.KMeans).items():
            if isinstance(row, Hyperparameter) and row.name in hyperparameters:
                text = hyperparameters[row.name]
                arguments[attribute] = json.loads(text) if row.data_type is list else text
        arguments["image_uri"] = job_details["AlgorithmSpecification"]["TrainingImage"]
        return arguments


class KMeansModel(Model):  # type: ignore[misc]
    """A ``model.tar.gz`` of this image or of the built-in one, for ``deploy`` and ``transformer``.

    Parameters
    ----------
    image_uri
        URI of the image.
    model_data
        Address of the archive in S3.
    role
        ARN of the role under which the endpoint runs.
    sagemaker_session
        Session of the SDK; None for the default one.
    **kwargs
        As of ``sagemaker.model.Model``.
    """

    def __init__(
        self, image_uri: str, model_data: str, role: str | None = None, sagemaker_session: Any = None, **kwargs: Any
    ) -> None:
        kwargs.setdefault("predictor_cls", KMeansPredictor)
        super().__init__(image_uri, model_data, role, sagemaker_session=sagemaker_session, **kwargs)
