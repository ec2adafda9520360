"""GET /openapi.json: the server's routes as OpenAPI 3.1, generated from the tables that the routes use."""

from __future__ import annotations

from collections.abc import Iterable
from http import HTTPStatus
from typing import Any

from kmeans import __version__
from kmeans.arrays import MAX_MAGNITUDE
from kmeans.formats.format import Format
from kmeans.formats.media_type import JSON
from kmeans.formats.registry import FORMATS
from kmeans.model import KMeansModel
from serve.errors import REFUSALS
from serve.metrics import MEDIA_TYPE
from serve.multi_model import routes
from serve.multi_model.registry import MAX_NAME, MAX_URL

Schema = dict[str, Any]

DISTANCES = {"euclidean": "Euclidean distance", "cosine": "cosine distance (1 - cosine, from 0 to 2)"}

NUMBER, TEXT, INTEGER = {"type": "number"}, {"type": "string"}, {"type": "integer"}
MISSING_NUMBER = {"type": ["number", "null"]}

ERROR: Schema = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["code", "message", "details", "request_id"],
            "properties": {
                "code": TEXT,
                "message": TEXT,
                "details": {"type": "object", "additionalProperties": INTEGER},
                "request_id": TEXT,
            },
            "additionalProperties": False,
        }
    },
    "additionalProperties": False,
}
PREDICTION: Schema = {
    "type": "object",
    "required": ["closest_cluster", "distance_to_cluster"],
    "properties": {"closest_cluster": MISSING_NUMBER, "distance_to_cluster": MISSING_NUMBER},
}
ANSWER: Schema = {
    "type": "object",
    "required": ["predictions"],
    "properties": {"predictions": {"type": "array", "items": PREDICTION, "minItems": 1}},
}
HEALTH: Schema = {
    "type": "object",
    "required": ["status", "version", "uptime_seconds", "workers", "memory_bytes", "model"],
    "properties": {
        "status": {"enum": ["ready", "starting"]},
        "version": TEXT,
        "uptime_seconds": NUMBER,
        "workers": {"type": "object", "additionalProperties": INTEGER},
        "memory_bytes": {"type": "object", "additionalProperties": INTEGER},
        "model": {"type": ["object", "null"]},
    },
}
EXECUTION: Schema = {
    "type": "object",
    "required": ["MaxConcurrentTransforms", "MaxPayloadInMB"],
    "properties": {"MaxConcurrentTransforms": INTEGER, "MaxPayloadInMB": INTEGER},
    "additionalProperties": False,
}
LOADED: Schema = {
    "type": "object",
    "required": ["modelName", "modelUrl"],
    "properties": {"modelName": TEXT, "modelUrl": TEXT},
    "additionalProperties": False,
}
LIST: Schema = {
    "type": "object",
    "required": ["models"],
    "properties": {
        "models": {"type": "array", "items": LOADED, "maxItems": routes.MAX_PAGE_MODELS},
        "nextPageToken": TEXT,
    },
    "additionalProperties": False,
}
NAME: Schema = {"type": "string", "pattern": f"^[!-.0-~]{{1,{MAX_NAME}}}$"}
LOAD: Schema = {
    "type": "object",
    "required": ["model_name", "url"],
    "properties": {"model_name": NAME, "url": {"type": "string", "minLength": 1, "maxLength": MAX_URL}},
}


def describe(model: KMeansModel | None) -> dict[str, Any]:
    """Return the description of a server of ``model``; None describes a multi-model endpoint."""
    paths = {
        "/ping": {
            "get": _operation("Whether requests can be answered.", {200: None, 503: None}),
            "head": _operation("The same.", {200: None, 503: None}),
        },
        "/health": {"get": _operation("How the server is.", {200: (JSON, HEALTH)})},
        "/execution-parameters": {
            "get": _operation("What a batch transform should do.", {200: (JSON, EXECUTION)}),
        },
        "/metrics": {"get": _operation("Counters in Prometheus' format.", {200: (MEDIA_TYPE.split(";")[0], TEXT)})},
        "/openapi.json": {"get": _operation("This description.", {200: (JSON, {"type": "object"})})},
    }
    if model is not None:
        paths["/invocations"] = {"post": _invocation(request_schema(model.features))}
    else:
        paths |= _models()
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "kmeans",
            "version": __version__,
            "description": f"The nearest center of each row, and the {_distance(model)} to it.",
        },
        "paths": paths,
    }


def _distance(model: KMeansModel | None) -> str:
    if model is None:
        return "distance"
    return DISTANCES[model.distance_metric]


def _models() -> dict[str, Schema]:
    """Return the paths of a multi-model endpoint."""
    named = {"name": "name", "in": "path", "required": True, "schema": NAME}
    limit = {"type": "integer", "minimum": 1, "maximum": 10**routes.MAX_DIGITS - 1}
    load = _refused("Load a model.", LOADED, 400, 408, 409, 413, 507)
    load["requestBody"] = {"required": True, "content": {JSON: {"schema": LOAD}}}
    page = _refused("The models that are loaded, by name, some at a time.", LIST, 400)
    page["parameters"] = [
        {"name": "limit", "in": "query", "description": "Models of a page.", "schema": limit},
        {"name": "next_page_token", "in": "query", "description": "From the page before.", "schema": TEXT},
    ]
    # The width of a request's rows depends on the model.
    invoke = _invocation(request_schema(None))
    invoke["parameters"] = [named, *invoke["parameters"]]
    invoke["responses"] |= {str(status): _response(status, (JSON, ERROR)) for status in (404, 507)}
    return {
        "/models": {"get": page, "post": load},
        "/models/{name}": {
            "parameters": [named],
            "get": _refused("A model that is loaded.", LOADED, 404),
            "delete": _refused("Unload a model.", LOADED, 404, 503),
        },
        "/models/{name}/invoke": {"post": invoke},
    }


def request_schema(features: int | None) -> Schema:
    """Return the schema of a JSON request, whose instances have one of the built-in image's shapes.

    ``features`` is the width of each instance; None accepts any width.
    """
    number = NUMBER | {"minimum": -MAX_MAGNITUDE, "maximum": MAX_MAGNITUDE}
    width = {"minItems": 1} if features is None else {"minItems": features, "maxItems": features}
    vector: Schema = {"type": "array", "items": number, **width}
    instance = {
        "anyOf": [
            _object(features=vector),
            _object(data=_object(features=_object(values=vector))),
            vector,
        ]
    }
    instances: Schema = {"type": "array", "items": instance, "minItems": 1}
    return {"anyOf": [_object(instances=instances), instances]}


def _object(**properties: Schema) -> Schema:
    return {"type": "object", "required": list(properties), "properties": properties}


def _operation(summary: str, answers: dict[int, tuple[str, Schema] | None]) -> Schema:
    return {"summary": summary, "responses": {str(status): _response(status, it) for status, it in answers.items()}}


def _refused(summary: str, answer: Schema, *refusals: int) -> Schema:
    """Return the description of an operation with a successful ``answer`` and the statuses ``refusals``."""
    return _operation(summary, {200: (JSON, answer), **dict.fromkeys(refusals, (JSON, ERROR))})


def _response(status: int, content: tuple[str, Schema] | None) -> Schema:
    response: Schema = {"description": HTTPStatus(status).phrase}
    if content is not None:
        media_type, schema = content
        response["content"] = {media_type: {"schema": schema}}
    return response


def _contents(formats: Iterable[Format], schema: Schema) -> Schema:
    """Return what OpenAPI says of bodies in these formats; the ``schema`` describes those that are JSON."""
    return {form.media_type: {"schema": schema} if form.is_json_document else {} for form in formats}


def _invocation(request: Schema) -> Schema:
    """Return the description of an invocation with a JSON ``request``; other formats have no schema."""
    refusals = [HTTPStatus.BAD_REQUEST, *(status for status, _ in REFUSALS.values()), HTTPStatus.SERVICE_UNAVAILABLE]
    responses = {str(int(status)): _response(status, (JSON, ERROR)) for status in sorted(refusals)}
    found: Schema = {"description": "A prediction for each row, in their order."}
    found["content"] = _contents(FORMATS.of_responses(), ANSWER)
    return {
        "summary": "Predict the clusters of rows.",
        "requestBody": {
            "required": True,
            "content": _contents(FORMATS.of_requests(), request),
        },
        "parameters": [
            {
                "name": "X-Amzn-SageMaker-Custom-Attributes",
                "in": "header",
                "description": "Given back as it came, if it is visible ASCII of at most 1024 characters.",
                "schema": TEXT,
            },
        ],
        "responses": {"200": found, **responses},
    }
