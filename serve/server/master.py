"""The master process: starts the workers and stops them without losing a connection."""

from __future__ import annotations

import time

from gunicorn.arbiter import Arbiter

from serve.server.listener import reject_new_connections

# How long a TCP handshake that is in progress at SIGTERM may take to complete. SageMaker's network needs a few ms.
HANDSHAKE_SECONDS = 0.1


class Master(Arbiter):  # type: ignore[misc]  # gunicorn has no type hints
    """The process that starts the workers and waits for them at the end."""

    def stop(self, graceful: bool = True) -> None:
        """Reject new connections, close the port, and let the workers finish those they have."""
        if graceful and any([reject_new_connections(listener.sock) for listener in self.LISTENERS]):
            time.sleep(HANDSHAKE_SECONDS)
        super().stop(graceful)
