"""The WSGI application: ``create_app`` registers all routes."""

from __future__ import annotations

from http import HTTPStatus

from flask import Flask, Response, request

from kmeans.model import KMeansModel
from kmeans.system import usable_memory
from serve import health, metrics, openapi
from serve.errors import answer_to, error_answer
from serve.exchange import RECORD, Answer
from serve.health import Readiness
from serve.inference import Inference
from serve.metrics import Metrics
from serve.middleware import Middleware
from serve.multi_model import routes
from serve.multi_model.registry import Registry, budget
from serve.settings import Settings


def create_app(
    settings: Settings,
    model: KMeansModel | None,
    counters: Metrics | None = None,
    readiness: Readiness | None = None,
) -> Flask:
    """Return the WSGI application.

    Parameters
    ----------
    settings
        The server's settings.
    model
        Model of /invocations; None for a multi-model endpoint.
    counters
        Counters that all workers share; separate ones by default.
    readiness
        State that /ping reports; by default the model is tested at once.
    """
    app = Flask("kmeans", static_folder=None)
    # By default Flask redirects a path with two slashes, and the redirect repeats the Host header.
    app.url_map.merge_slashes = False
    # Errors that the handler below does not answer are raised to the caller instead of becoming a 500.
    app.config["PROPAGATE_EXCEPTIONS"] = True
    counters = counters or Metrics(settings.workers, model)
    if readiness is None:
        readiness = Readiness(model)
        readiness.test()
    inference = Inference(settings, counters)
    app.register_blueprint(health.blueprint(settings, model, readiness, counters))

    @app.get("/metrics")
    def exposition() -> Response:
        return Answer(200, metrics.MEDIA_TYPE, [counters.render()]).to_flask()

    @app.get("/openapi.json")
    def description() -> Response:
        return Answer.of_json(openapi.describe(model)).to_flask()

    if settings.is_multi_model:
        catalog = Registry(settings.models_directory, budget(usable_memory()))
        app.register_blueprint(routes.blueprint(catalog, inference))

        @app.route("/invocations", methods=["GET", "POST"])
        def invocations() -> Response:
            message = "this server has several models: name one, as in POST /models/NAME/invoke."
            return error_answer(HTTPStatus.NOT_FOUND, "not_found", message, request.environ[RECORD]).to_flask()

    @app.errorhandler(Exception)
    def error(error: Exception) -> Response:
        if isinstance(error, ConnectionError):  # the client is gone
            raise error
        return answer_to(error, request.environ[RECORD]).to_flask()

    # Flask's documented place for middleware.
    app.wsgi_app = Middleware(app.wsgi_app, inference, model, counters)  # type: ignore[method-assign]
    return app
