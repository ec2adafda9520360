"""The gunicorn application: configuration, and what all workers share."""

from __future__ import annotations

import itertools
import resource
import socket
from pathlib import Path

from flask import Flask
from gunicorn.app.base import Application

from serve.health import Readiness
from serve.metrics import Metrics, is_alive
from serve.server.master import Master
from serve.server.worker import Worker
from serve.settings import Settings

CONFIGURATION = Path(__file__).with_name("gunicorn_conf.py")

# File descriptors of a worker that are not available for connections.
SPARE_FILES = 64


class Server(Application):  # type: ignore[misc]  # gunicorn has no type hints
    """The application that gunicorn's arbiter runs.

    Parameters
    ----------
    settings
        The server's settings.
    app
        The WSGI application.
    telemetry, readiness
        Shared by all workers.
    listener
        From :func:`serve.server.listener.open_port`.
    """

    def __init__(
        self, settings: Settings, app: Flask, telemetry: Metrics, readiness: Readiness, listener: socket.socket
    ) -> None:
        self.telemetry = telemetry
        self.readiness = readiness
        self.max_payload_bytes = settings.max_payload_bytes
        self._settings = settings
        self._app = app
        self._listener = listener
        self._rows: dict[int, Worker] = {}
        super().__init__()

    def load_config(self) -> None:
        """Read the fixed settings from gunicorn_conf.py and add those of this machine."""
        self.load_config_from_file(str(CONFIGURATION))
        self.cfg.set("bind", f"fd://{self._listener.fileno()}")
        self.cfg.set("workers", self._settings.workers)
        self.cfg.set("threads", self._settings.threads)
        self.cfg.set("worker_class", Worker)
        files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        most = max(files - SPARE_FILES, 2 * self._settings.threads)
        self.cfg.set("worker_connections", min(self.cfg.worker_connections, most))

    def load(self) -> Flask:
        """Return the WSGI application."""
        return self._app

    def run(self) -> None:
        """Serve until SIGTERM; ends with SystemExit."""
        Master(self).run()

    def row_for(self, worker: Worker) -> int:
        """Return the row of the telemetry for a new worker: one that no living worker uses."""
        taken = {row for row, other in self._rows.items() if is_alive(other.pid)}
        row = next(row for row in itertools.count() if row not in taken)
        self._rows[row] = worker
        return min(row, self.telemetry.rows - 1)
