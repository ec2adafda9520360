"""Multi-model endpoints: the five routes under /models by which SageMaker loads, lists, asks and unloads models.

Their answers are those of SageMaker's contract, and errors have the same shape as everywhere (:mod:`serve.errors`):

    400 invalid_request   the body of POST /models, or a parameter of GET /models, is wrong
    400 invalid_model     the url is no folder below /opt/ml/models, or it holds no model, or a broken one
    404 not_loaded        no model of this name is loaded
    409 already_loaded    a model of this name is loaded, or is being loaded
    413 request_too_long  the body of POST /models is longer than what it may say
    503 still_in_use      the model is unloaded, but requests under way keep its memory
    507 no_room           the model, or the request, finds no memory beside the models that are loaded
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

# A name and a url, and whatever else a later version of the contract may add.
MAX_REQUEST_BYTES = 64 << 10

# Models of one page of the list, if the request says nothing, and at most.
PAGE_MODELS, MAX_PAGE_MODELS = 100, 1000
MAX_DIGITS = 9

JSON_TYPES = {dict: "an object", list: "an array", int: "a number", float: "a number", bool: "a truth value"}


class InvalidRequestError(Exception):
    """The body of POST /models, or a parameter of GET /models, is wrong."""


class RequestTooLongError(Exception):
    """The body of POST /models is too long."""


# Status and code of the answer to each error; its text is the message.
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
    """Return the routes of a server whose models are those of ``catalog``, by ``inference``."""
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
            # By this status SageMaker unloads other models and asks again.
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
    """Return the name and the url that the body of POST /models gives; what else it says is passed over."""
    for field in ("model_name", "url"):
        if field not in content:
            raise InvalidRequestError(f"{field} is missing: expected model_name and url, both texts.")
        if not isinstance(content[field], str):
            found = JSON_TYPES.get(type(content[field]), "null")
            raise InvalidRequestError(f"{field}: expected a text, found {found}.")
    return content["model_name"], content["url"]


def _limit(text: str) -> int:
    """Return how many models a page shall have, by the parameter ``limit``."""
    if not text:
        return PAGE_MODELS
    if not (text.isascii() and text.isdigit() and len(text) <= MAX_DIGITS and int(text)):
        raise InvalidRequestError(f"limit: expected an integer of at least 1, found {shown(text)}.")
    return min(int(text), MAX_PAGE_MODELS)
