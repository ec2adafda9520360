"""The master process: starts the workers and stops them without losing a connection or a signal."""

from __future__ import annotations

import signal
import time

from gunicorn.arbiter import Arbiter

from serve.server.listener import reject_new_connections

# How long a TCP handshake that is in progress at SIGTERM may take to complete. SageMaker's network needs a few ms.
HANDSHAKE_SECONDS = 0.1

# Signals by which the master stops its workers.
STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT)


class Master(Arbiter):  # type: ignore[misc]  # gunicorn has no type hints
    """The process that starts the workers and waits for them at the end."""

    def spawn_worker(self) -> int:
        """Start a worker and return its process id; the worker receives stop signals once it has its own handlers.

        Until then the new process has the master's handlers, which only queue a signal: the worker would never see it,
        and the master would wait for that worker until the graceful timeout. A blocked signal stays pending instead,
        and :meth:`serve.server.worker.Worker.init_signals` unblocks it.
        """
        previous = signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
        try:
            pid: int = super().spawn_worker()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, previous)
        return pid

    def stop(self, graceful: bool = True) -> None:
        """Reject new connections, close the port, and let the workers finish those they have."""
        if graceful and any([reject_new_connections(listener.sock) for listener in self.LISTENERS]):
            time.sleep(HANDSHAKE_SECONDS)
        super().stop(graceful)
