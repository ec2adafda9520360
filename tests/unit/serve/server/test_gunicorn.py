"""Every function of gunicorn that the server overrides or calls exists and has the expected signature.

gunicorn promises no stable interface for subclasses. An upgrade that fails here needs a look at each changed method.
"""

import inspect
from collections.abc import Iterator
from typing import Any

import pytest
from gunicorn import util
from gunicorn.app.base import Application
from gunicorn.arbiter import Arbiter
from gunicorn.config import Config
from gunicorn.http import wsgi
from gunicorn.http.body import Body, LengthReader
from gunicorn.http.parser import RequestParser
from gunicorn.http.unreader import SocketUnreader
from gunicorn.workers.gthread import PollableMethodQueue, TConn, ThreadWorker

from serve.server.application import Server
from serve.server.connection import Connection, Response, Unreader
from serve.server.master import Master
from serve.server.worker import Worker

CLASSES: dict[type, type] = {
    Server: Application,
    Master: Arbiter,
    Worker: ThreadWorker,
    Connection: TConn,
    Unreader: SocketUnreader,
    Response: wsgi.Response,
}
OVERRIDDEN: dict[type, dict[str, str]] = {
    Application: {
        "__init__": "(self, usage=None, prog=None)",
        "load_config": "(self)",
        "load": "(self)",
        "run": "(self)",
    },
    Arbiter: {
        "spawn_worker": "(self)",
        "stop": "(self, graceful=True)",
    },
    ThreadWorker: {
        "__init__": "(self, *args, **kwargs)",
        "init_process": "(self)",
        "init_signals": "(self)",
        "run": "(self)",
        "handle_quit": "(self, sig, frame)",
        "accept": "(self, listener)",
        "enqueue_req": "(self, conn)",
        "handle": "(self, conn)",
        "handle_request": "(self, req, conn)",
        "handle_error": "(self, req, client, addr, exc)",
        "set_accept_enabled": "(self, enabled)",
        "_cap_keepalive": "(self, deadline)",
    },
    TConn: {
        "__init__": "(self, cfg, sock, client, server)",
        "close": "(self, graceful=False)",
    },
    SocketUnreader: {
        "__init__": "(self, sock, max_chunk=8192)",
        "chunk": "(self, size_hint=None)",
    },
    wsgi.Response: {
        "__init__": "(self, req, sock, cfg)",
        "send_headers": "(self)",
        "close": "(self)",
        "_emit_body": "(self, data)",
    },
}
CALLED: dict[Any, dict[str, str]] = {
    Application: {"load_config_from_file": "(self, filename)", "reload": "(self)", "wsgi": "(self)"},
    Arbiter: {"__init__": "(self, app)", "run": "(self)"},
    ThreadWorker: {
        "_keepalive_after": "(self, conn, keepalive)",
        "finish_request": "(self, conn, fs)",
        "on_pending_socket_readable": "(self, conn, client)",
    },
    PollableMethodQueue: {"defer": "(self, callback, *args)"},
    TConn: {"init": "(self)", "set_timeout": "(self)"},
    Config: {"set": "(self, name, value)"},
    RequestParser: {"__next__": "(self)", "finish_body": "(self, deadline=None, max_bytes=None)"},
    SocketUnreader: {"take_buffered": "(self)"},
    Body: {"__init__": "(self, reader)", "read": "(self, size=None)"},
    LengthReader: {"__init__": "(self, unreader, length)", "read": "(self, size)"},
    wsgi.Response: {
        "start_response": "(self, status, headers, exc_info=None)",
        "write": "(self, arg)",
        "force_close": "(self)",
        "should_close": "(self)",
        "default_headers": "(self)",
    },
    wsgi: {"create": "(req, sock, client, server, cfg, response_class=None, response_args=())"},
    util: {"close": "(sock)", "close_graceful": "(sock, timeout=2.0, max_drain=65536)"},
}


def _expectations() -> Iterator[tuple[Any, str, str]]:
    for table in (OVERRIDDEN, CALLED):
        for owner, functions in table.items():
            for name, signature in functions.items():
                yield owner, name, signature


@pytest.mark.parametrize(("owner", "name", "signature"), list(_expectations()))
def test_gunicorn_function_has_expected_signature(owner: Any, name: str, signature: str) -> None:
    assert str(inspect.signature(getattr(owner, name))) == signature


@pytest.mark.parametrize("ours", CLASSES, ids=lambda ours: ours.__name__)
def test_every_overridden_method_has_an_expectation(ours: type) -> None:
    inherited = {name for base in CLASSES[ours].__mro__[:-1] for name, value in vars(base).items() if callable(value)}
    assert {name for name in vars(ours) if name in inherited} == set(OVERRIDDEN[CLASSES[ours]])


@pytest.mark.parametrize("ours", CLASSES, ids=lambda ours: ours.__name__)
def test_overriding_method_takes_the_same_parameters(ours: type) -> None:
    for name in set(OVERRIDDEN[CLASSES[ours]]) - {"__init__"}:
        found = inspect.signature(getattr(ours, name)).parameters
        assert list(found) == list(inspect.signature(getattr(CLASSES[ours], name)).parameters), name
