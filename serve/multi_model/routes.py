"""Multi-model endpoints: the five routes under /models by which SageMaker loads, lists, invokes and unloads models.

Answers follow SageMaker's contract, and errors have the same shape as those of other routes (:mod:`serve.errors`):

    400 invalid_request   the body of POST /models, or a parameter of GET /models, is wrong
    400 invalid_model     the url is not a folder below /opt/ml/models, or has no valid model
    404 not_loaded        no model of this name is loaded
    409 already_loaded    a model of this name is loaded, or is being loaded
    413 request_too_long  the body of POST /models is too long
    503 still_in_use      the model is unloaded, but requests under way keep its memory
    507 no_room           there is not enough memory for the model, or the request, next to the loaded models
"""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

import orjson
from flask import Blueprint, Response, request

from kmeans.errors import DataError, ModelError, shown
from serve.errors import PayloadTooLargeError, error_answer
from serve.exchange import RECORD, Answer, Record
from serve.inference import Inference
from serve.multi_model.registry import AlreadyLoadedError, Entry, NoRoomError, NotLoadedError, Registry, StillInUseError
from serve.server.connection import read_body

# Enough for a name, a url, and fields that a later version of the contract may add.
MAX_REQUEST_BYTES = 64 << 10

# Models of one page of the list: by default, and at most.
PAGE_MODELS, MAX_PAGE_MODELS = 100, 1000
MAX_DIGITS = 9

JSON_TYPES = {dict: "an object", list: "an array", int: "a number", float: "a number", bool: "a truth value"}


class InvalidRequestError(Exception):
    """The body of POST /models, or a parameter of GET /models, is wrong."""


class RequestTooLongError(Exception):
    """The body of POST /models is too long."""


# Status and code of the answer to each error. The error's text is the message.
REFUSALS: dict[type[Exception], tuple[HTTPStatus, str]] = {
    InvalidRequestError: (HTTPStatus.BAD_REQUEST, "invalid_request"),
    ModelError: (HTTPStatus.BAD_REQUEST, "invalid_model"),
    NotLoadedError: (HTTPStatus.NOT_FOUND, "not_loaded"),
    AlreadyLoadedError: (HTTPStatus.CONFLICT, "already_loaded"),
    RequestTooLongError: (HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "request_too_long"),
    StillInUseError: (HTTPStatus.SERVICE_UNAVAILABLE, "still_in_use"),
    NoRoomError: (HTTPStatus.INSUFFICIENT_STORAGE, "no_room"),
}


def blueprint(catalog: Registry, inference: Inference) -> Blueprint:
    """Return the routes that manage the models of ``catalog`` and invoke them by ``inference``."""
    routes = Blueprint("models", __name__, url_prefix="/models")

    @routes.post("")
    def load() -> Response:
        name, url = _named(_json_object())
        entry = catalog.load(name, url)
        _record().model = name
        return Answer.of_json(_described(entry)).to_flask()

    @routes.get("")
    def page() -> Response:
        found = catalog.page(_limit(request.args.get("limit", "")), request.args.get("next_page_token", ""))
        listed: dict[str, Any] = {"models": [_described(entry) for entry in found.entries]}
        if found.next_token is not None:
            listed["nextPageToken"] = found.next_token
        return Answer.of_json(listed).to_flask()

    @routes.get("/<name>")
    def describe(name: str) -> Response:
        return Answer.of_json(_described(catalog.entry(name))).to_flask()

    @routes.delete("/<name>")
    def unload(name: str) -> Response:
        entry = catalog.unload(name)
        _record().model = name
        return Answer.of_json(_described(entry)).to_flask()

    @routes.post("/<name>/invoke")
    def invoke(name: str) -> Response:
        model = catalog.get(name)
        _record().model = name
        try:
            return inference.answer(request.environ, model).to_flask()
        except MemoryError:
            # At this status SageMaker unloads other models and repeats the request.
            raise NoRoomError("no memory is left for this request beside the models: unload some.") from None

    for kind, (status, code) in REFUSALS.items():
        routes.register_error_handler(kind, _refusal(status, code))
    return routes


def _refusal(status: HTTPStatus, code: str) -> Any:
    def refuse(error: Exception) -> Response:
        return error_answer(status, code, str(error), _record()).to_flask()

    return refuse


def _record() -> Record:
    record: Record = request.environ[RECORD]
    return record


def _described(entry: Entry) -> dict[str, str]:
    return {"modelName": entry.name, "modelUrl": entry.url}


def _json_object() -> dict[str, Any]:
    """Return the request's body, a JSON object. Its Content-Type is ignored: the contract names none."""
    try:
        content = orjson.loads(read_body(request.environ, MAX_REQUEST_BYTES))
    except PayloadTooLargeError:
        raise RequestTooLongError(f"the request's body is longer than {MAX_REQUEST_BYTES >> 10} KB.") from None
    except DataError as error:
        raise InvalidRequestError(f"{error.problem}: expected a JSON object.") from None
    except orjson.JSONDecodeError as error:
        raise InvalidRequestError(f"the request's body is no JSON: {error}.") from None
    if not isinstance(content, dict):
        raise InvalidRequestError("the request's body: expected a JSON object with model_name and url.")
    return content


def _named(content: dict[str, Any]) -> tuple[str, str]:
    """Return name and url from the body of POST /models; other fields are ignored."""
    for field in ("model_name", "url"):
        if field not in content:
            raise InvalidRequestError(f"{field} is missing: expected model_name and url, both texts.")
        if not isinstance(content[field], str):
            found = JSON_TYPES.get(type(content[field]), "null")
            raise InvalidRequestError(f"{field}: expected a text, found {found}.")
    return content["model_name"], content["url"]


def _limit(text: str) -> int:
    """Return the number of models of a page, from the parameter ``limit``."""
    if not text:
        return PAGE_MODELS
    if not (text.isascii() and text.isdigit() and len(text) <= MAX_DIGITS and int(text)):
        raise InvalidRequestError(f"limit: expected an integer of at least 1, found {shown(text)}.")
    return min(int(text), MAX_PAGE_MODELS)
