"""CreateModel, CreateEndpointConfig and CreateEndpoint."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

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
