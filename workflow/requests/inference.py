"""CreateModel, CreateEndpointConfig, CreateEndpoint, InvokeEndpoint and CreateTransformJob."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from kmeans.formats.media_type import CSV, JSON_LINES, RECORDIO

VARIANT = "AllTraffic"


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
        The ``model.tar.gz`` of a training job; of a multi-model endpoint the prefix below which the archives lie.
    multi_model
        Whether one endpoint serves all archives below ``model_uri``, each loaded when it is first asked for.
    """
    mode = {"Mode": "MultiModel" if multi_model else "SingleModel"}
    container = {"Image": image, **mode, "ModelDataUrl": model_uri, "Environment": dict(environment or {})}
    isolation = {"EnableNetworkIsolation": network_isolation}
    return {"ModelName": name, "PrimaryContainer": container, "ExecutionRoleArn": role, **isolation}


def instance_variant(model: str, instance_type: str, count: int = 1) -> dict[str, Any]:
    """Return a variant on ``count`` instances of its own, which cost as long as the endpoint is there."""
    capacity = {"InstanceType": instance_type, "InitialInstanceCount": count, "InitialVariantWeight": 1.0}
    return {"VariantName": VARIANT, "ModelName": model, **capacity}


def serverless_variant(model: str, memory_mb: int, max_concurrency: int) -> dict[str, Any]:
    """Return a variant that costs per request: ``memory_mb`` is 1024, 2048 and so on up to 6144."""
    serverless = {"MemorySizeInMB": memory_mb, "MaxConcurrency": max_concurrency}
    return {"VariantName": VARIANT, "ModelName": model, "ServerlessConfig": serverless}


def create_endpoint_config(
    name: str, *, variant: Mapping[str, Any], capture_uri: str | None = None, capture_percent: int = 100
) -> dict[str, Any]:
    """Return the request of an endpoint configuration; requests and answers are kept at ``capture_uri``, if given."""
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
    """Return the request of an endpoint of the configuration ``config``."""
    return {"EndpointName": name, "EndpointConfigName": config}


def invoke_endpoint(
    endpoint: str, body: bytes | str, *, content_type: str, accept: str, target_model: str | None = None
) -> dict[str, Any]:
    """Return the request of a prediction; ``target_model`` names an archive of a multi-model endpoint."""
    target = {} if target_model is None else {"TargetModel": target_model}
    return {"EndpointName": endpoint, "ContentType": content_type, "Accept": accept, **target, "Body": body}


STRATEGIES = ("MultiRecord", "SingleRecord")


@dataclass(frozen=True, slots=True)
class Join:
    """How input and answer come to stand in one record; paths are JSONPath, a row of CSV counts as an array.

    Attributes
    ----------
    input_filter
        What of a record the model gets.
    output_filter
        What of the joined record is written.
    """

    input_filter: str = "$"
    output_filter: str = "$"

    def request(self) -> dict[str, str]:
        """Return DataProcessing."""
        return {"InputFilter": self.input_filter, "OutputFilter": self.output_filter, "JoinSource": "Input"}


# The first column is the true digit, which the model must not see; written are that and the two columns of the answer.
DIGIT_AND_ANSWER = Join("$[1:]", "$[0,-2,-1]")


def create_transform_job(
    name: str,
    *,
    model: str,
    input_uri: str,
    output_uri: str,
    content_type: str = CSV,
    accept: str = CSV,
    strategy: str = "MultiRecord",
    join: Join | None = None,
    instance_type: str = "ml.m5.large",
    instances: int = 1,
    max_payload_mb: int = 6,
) -> dict[str, Any]:
    """Return the request of a batch transform.

    Parameters
    ----------
    input_uri
        Prefix of the objects; the answer to ``NAME`` lies at ``<output_uri>/NAME.out``.
    strategy
        ``MultiRecord`` sends as many records as ``max_payload_mb`` holds, ``SingleRecord`` one at a time.
    """
    is_lines = content_type in (CSV, JSON_LINES)
    return {
        "TransformJobName": name,
        "ModelName": model,
        "BatchStrategy": strategy,
        "MaxPayloadInMB": max_payload_mb,
        "TransformInput": {
            "DataSource": {"S3DataSource": {"S3DataType": "S3Prefix", "S3Uri": input_uri}},
            "ContentType": content_type,
            "CompressionType": "None",
            "SplitType": "Line" if is_lines else "RecordIO",
        },
        "TransformOutput": {
            "S3OutputPath": output_uri,
            "Accept": accept,
            "AssembleWith": "None" if accept == RECORDIO else "Line",
        },
        "TransformResources": {"InstanceType": instance_type, "InstanceCount": instances},
        **({} if join is None else {"DataProcessing": join.request()}),
    }
