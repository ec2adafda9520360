"""The parent of a training process: real processes, with a test at the other end of the connection."""

import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.processes import is_running
from train.distributed.messages import Message, MessageError, MessageSocket

PROJECT = Path(__file__).resolve().parents[4]
PATIENCE = 20.0

# What the child says first, and then does.
PROGRAM = """
import os, signal, socket, sys
from train.distributed.messages import Message, encode
from train.distributed.exit_reporter import report_exit
exit_code = report_exit(int(sys.argv[1]))
if exit_code is not None:
    sys.exit(exit_code)
connection = socket.socket(fileno=int(sys.argv[1]))
blocked = signal.pthread_sigmask(signal.SIG_BLOCK, ())
connection.sendall(encode(Message("started", number=os.getpid(), text=str(sorted(blocked)))))
"""


class Watched:
    """An exit reporter and its child, which does ``deed``."""

    def __init__(self, deed: str) -> None:
        ours, theirs = socket.socketpair()
        with theirs:
            self.process = subprocess.Popen(
                [sys.executable, "-c", f"{PROGRAM}\n{deed}", str(theirs.fileno())],
                cwd=PROJECT,
                stderr=subprocess.PIPE,
                pass_fds=[theirs.fileno()],
                start_new_session=True,
            )
        self.connection = MessageSocket(ours)
        self._messages: list[Message] = []

    def receive(self) -> Message | None:
        """Return the next message, or None if there will be none."""
        while not self._messages:
            assert select.select([self.connection], [], [], PATIENCE)[0], "waited for a message"
            try:
                self._messages += self.connection.receive()
            except MessageError:
                return None
        return self._messages.pop(0)

    def start(self) -> int:
        """Return the child's number, when it has said it."""
        started = self.receive()
        assert started is not None
        assert started.kind == "started"
        assert started.text == "[]", "the child blocks no signals"
        assert started.number != self.process.pid
        return started.number

    def end(self) -> int:
        """Return the reporter's exit code; all that it says is on the connection."""
        _, errors = self.process.communicate(timeout=PATIENCE)
        assert errors == b""
        return self.process.returncode

    def close(self) -> None:
        self.connection.close()
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.communicate()


@pytest.fixture
def watched(request: pytest.FixtureRequest) -> Iterator[Watched]:
    watched = Watched(request.param)
    yield watched
    watched.close()


WAIT = "signal.pause()"


@pytest.mark.parametrize(
    ("watched", "said", "exit_code"),
    [
        ("os.kill(os.getpid(), signal.SIGKILL)", Message("killed", number=9), 137),
        ("os.kill(os.getpid(), signal.SIGABRT)", Message("killed", number=6), 134),
        ("sys.exit(3)", Message("ended", number=3), 3),
        ("", Message("ended", number=0), 0),
    ],
    indirect=["watched"],
)
def test_exit_report_is_the_last_message(watched: Watched, said: Message, exit_code: int) -> None:
    child = watched.start()
    assert watched.receive() == said
    assert watched.receive() is None, "that was all"
    assert watched.end() == exit_code
    assert not is_running(child), "the child is reaped"


@pytest.mark.parametrize("watched", [WAIT], indirect=True)
def test_exit_reporter_outlives_its_child_despite_signals(watched: Watched) -> None:
    child = watched.start()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGPIPE):
        watched.process.send_signal(number)
    os.kill(child, signal.SIGTERM)
    assert watched.receive() == Message("killed", number=signal.SIGTERM)
    assert watched.end() == 128 + signal.SIGTERM


@pytest.mark.parametrize("watched", [WAIT], indirect=True)
def test_child_killed_by_the_launcher_is_not_reported(watched: Watched) -> None:
    """The launcher sends SIGKILL to the process group, so no process is left to report the exit."""
    child = watched.start()
    os.killpg(watched.process.pid, signal.SIGKILL)
    assert watched.receive() is None
    assert watched.end() == -signal.SIGKILL
    deadline = time.monotonic() + PATIENCE
    while is_running(child):  # an orphan, which the system's first process sees off
        assert time.monotonic() < deadline
        time.sleep(0.005)


@pytest.mark.parametrize("watched", [WAIT], indirect=True)
def test_exit_reporter_ends_without_a_supervisor(watched: Watched) -> None:
    child = watched.start()
    watched.connection.close()
    os.kill(child, signal.SIGKILL)
    assert watched.end() == 128 + signal.SIGKILL


def test_exit_reporter_imports_no_large_modules() -> None:
    """What the process has imported before it divides, the reporter keeps."""
    code = "import sys, train.__main__, train.distributed.exit_reporter; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=PROJECT, capture_output=True, text=True, check=True)
    assert "train.distributed.exit_reporter" in done.stdout.split()
    assert not {"numpy", "mpi4py", "train.distributed.rank", "train.job"} & {*done.stdout.split()}
