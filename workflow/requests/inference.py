"""CreateModel, CreateEndpointConfig, CreateEndpoint, InvokeEndpoint and CreateTransformJob."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from kmeans.formats.media_type import CSV, JSON_LINES, RECORDIO
from workflow.requests.training import Instances

VARIANT = "AllTraffic"
STRATEGIES = ("MultiRecord", "SingleRecord")


def create_model(
    name: str,
    *,
    image: str,
    role: str,
    model_uri: str,
    multi_model: bool = False,
    network_isolation: bool = False,
    environment: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """Return the request of a model.

    Parameters
    ----------
    model_uri
        The ``model.tar.gz`` of a training job; for a multi-model endpoint, the prefix of the archives.
    multi_model
        Whether one endpoint serves all archives with the prefix ``model_uri``, each loaded at its first request.
    """
    mode = {"Mode": "MultiModel" if multi_model else "SingleModel"}
    container = {"Image": image, **mode, "ModelDataUrl": model_uri, "Environment": dict(environment or {})}
    isolation = {"EnableNetworkIsolation": network_isolation}
    return {"ModelName": name, "PrimaryContainer": container, "ExecutionRoleArn": role, **isolation}


def instance_variant(model: str, instance_type: str, count: int = 1) -> dict[str, Any]:
    """Return a variant on ``count`` instances, which cost by the hour as long as the endpoint exists."""
    capacity = {"InstanceType": instance_type, "InitialInstanceCount": count, "InitialVariantWeight": 1.0}
    return {"VariantName": VARIANT, "ModelName": model, **capacity}


def serverless_variant(model: str, memory_mb: int, max_concurrency: int) -> dict[str, Any]:
    """Return a variant that costs per request; ``memory_mb`` is a multiple of 1024 up to 6144."""
    serverless = {"MemorySizeInMB": memory_mb, "MaxConcurrency": max_concurrency}
    return {"VariantName": VARIANT, "ModelName": model, "ServerlessConfig": serverless}


def create_endpoint_config(
    name: str, *, variant: Mapping[str, Any], capture_uri: str | None = None, capture_percent: int = 100
) -> dict[str, Any]:
    """Return the request of an endpoint configuration, which captures requests and responses at ``capture_uri``."""
    request: dict[str, Any] = {"EndpointConfigName": name, "ProductionVariants": [dict(variant)]}
    if capture_uri is not None:
        request["DataCaptureConfig"] = {
            "EnableCapture": True,
            "InitialSamplingPercentage": capture_percent,
            "DestinationS3Uri": capture_uri,
            "CaptureOptions": [{"CaptureMode": "Input"}, {"CaptureMode": "Output"}],
            "CaptureContentTypeHeader": {"CsvContentTypes": ["text/csv"], "JsonContentTypes": ["application/json"]},
        }
    return request


def create_endpoint(name: str, config: str) -> dict[str, Any]:
    """Return the request of an endpoint with the configuration ``config``."""
    return {"EndpointName": name, "EndpointConfigName": config}


def invoke_endpoint(
    endpoint: str, body: bytes | str, *, content_type: str, accept: str, target_model: str | None = None
) -> dict[str, Any]:
    """Return the request of a prediction; ``target_model`` names an archive of a multi-model endpoint."""
    target = {} if target_model is None else {"TargetModel": target_model}
    return {"EndpointName": endpoint, "ContentType": content_type, "Accept": accept, **target, "Body": body}


@dataclass(frozen=True, slots=True)
class Join:
    """How an input record and its answer are joined; filters are JSONPath, and a CSV row counts as an array.

    Attributes
    ----------
    input_filter
        The part of an input record that the model gets.
    output_filter
        The part of a joined record that is written.
    """

    input_filter: str = "$"
    output_filter: str = "$"

    def request(self) -> dict[str, str]:
        """Return DataProcessing."""
        return {"InputFilter": self.input_filter, "OutputFilter": self.output_filter, "JoinSource": "Input"}


# Removes the true digit, the first column, from the input; writes it with the two columns of the answer.
DIGIT_AND_ANSWER = Join("$[1:]", "$[0,-2,-1]")


@dataclass(frozen=True, slots=True)
class TransformData:
    """Input and output of a batch transform.

    Attributes
    ----------
    input_uri, output_uri
        Prefixes; the answer to the object ``NAME`` is ``<output_uri>/NAME.out``.
    content_type, accept
        Media types of the input and of the answers.
    join
        How both are joined; None for answers alone.
    """

    input_uri: str
    output_uri: str
    content_type: str = CSV
    accept: str = CSV
    join: Join | None = None


def create_transform_job(
    name: str,
    data: TransformData,
    *,
    model: str,
    strategy: str = "MultiRecord",
    instances: Instances = Instances("ml.m5.large"),  # noqa: B008 - immutable
    max_payload_mb: int = 6,
) -> dict[str, Any]:
    """Return the request of a batch transform.

    Parameters
    ----------
    strategy
        ``MultiRecord`` sends as many records as fit into ``max_payload_mb``, ``SingleRecord`` one at a time.
    instances
        Type and number; a transform has no disk to choose.
    """
    return {
        "TransformJobName": name,
        "ModelName": model,
        "BatchStrategy": strategy,
        "MaxPayloadInMB": max_payload_mb,
        "TransformInput": {
            "DataSource": {"S3DataSource": {"S3DataType": "S3Prefix", "S3Uri": data.input_uri}},
            "ContentType": data.content_type,
            "CompressionType": "None",
            "SplitType": "Line" if data.content_type in (CSV, JSON_LINES) else "RecordIO",
        },
        "TransformOutput": {
            "S3OutputPath": data.output_uri,
            "Accept": data.accept,
            "AssembleWith": "None" if data.accept == RECORDIO else "Line",
        },
        "TransformResources": {"InstanceType": instances.kind, "InstanceCount": instances.count},
        **({} if data.join is None else {"DataProcessing": data.join.request()}),
    }
