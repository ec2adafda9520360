"""MPICH's launcher, Hydra, on several machines without a remote shell: every container starts its own part.

``mpiexec -launcher manual`` at the leader would print, for each host, the command to start there. That command depends
only on the leader's address and the host's number, so each host builds it itself. The only command that comes over the
network is that of the rank, which the leader's mpiexec sends to its proxies.
"""

from __future__ import annotations

import contextlib
import os
import re
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from typing import IO

from kmeans.errors import ResourceError
from train.distributed.messages import RANK_ERR, RANK_OUT, RANK_SOCKET, MessageSocket

# mpiexec listens on the first free one of these ports; its proxies connect to it.
CONTROL_PORTS = range(10000, 10011)
# It prints where it listens within milliseconds.
LAUNCH_TIMEOUT = 30.0
# Killed processes end within milliseconds.
REAP_TIMEOUT = 5.0


def proxy_command(leader: str, port: int, rank: int) -> list[str]:
    """Return the command that starts rank number ``rank`` under the mpiexec at ``port`` of the address ``leader``.

    Except for the last argument it is what `mpiexec -launcher manual` prints; a test compares the two.
    """
    options = (
        "--rmk user --launcher manual --demux poll --pgid 0 --retries 10 --usize -1 --pmi-port 0 "
        "--gpus-per-proc -2 --gpu-subdevs-per-proc -2"
    )
    return ["hydra_pmi_proxy", "--control-port", f"{leader}:{port}", *options.split(), "--proxy-id", str(rank)]


def mpiexec_command(names: Sequence[str], command: Sequence[str]) -> list[str]:
    """Return the command that starts a rank with ``command`` on each of the hosts ``names``, the first of them here.

    ``-genvnone``: each rank has the environment of its own container. ``-disable-auto-cleanup``: when a rank ends,
    mpiexec does not end the others; their supervisors do, once they know the cause.
    """
    # The range of ports is read from the environment only.
    environment = ["env", f"MPIEXEC_PORT_RANGE={CONTROL_PORTS[0]}:{CONTROL_PORTS[-1]}"]
    options = f"-launcher manual -disable-auto-cleanup -genvnone -ppn 1 -localhost {names[0]}"
    return [*environment, "mpiexec", *options.split(), "-hosts", ",".join(names), *command]


def rank_environment(interface: str) -> dict[str, str]:
    """Return the environment variables that make a rank use TCP, on ``interface`` if this machine has it.

    Between hosts the image has nothing else (container/Dockerfile). If it is set, two containers on one machine don't
    try shared memory either.
    """
    variables = {"UCX_TLS": "tcp,self"}
    if interface in {name for _, name in socket.if_nameindex()}:
        variables["UCX_NET_DEVICES"] = interface
    return variables


class HydraLauncher:
    """The launcher's processes in one container.

    Parameters
    ----------
    command
        Command of a rank.
    """

    def __init__(self, command: Sequence[str]) -> None:
        self._command = command
        self._processes: list[subprocess.Popen[bytes]] = []
        self._rank = 0
        self._threads: list[threading.Thread] = []
        self._is_over = False

    def start_mpiexec(self, names: Sequence[str]) -> int:
        """Start mpiexec for a rank on each of the hosts ``names``; return the port at which it waits for them.

        Raises
        ------
        kmeans.errors.ResourceError
            If mpiexec doesn't start.
        """
        mpiexec = subprocess.Popen(  # noqa: S603 - the names are checked where they are read
            mpiexec_command(names, self._command),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        self._processes.append(mpiexec)
        printed = _read_until(_output(mpiexec), b"HYDRA_LAUNCH_END\n")
        found = re.search(rb"--control-port \S+:(\d+) ", printed)
        if found is None:
            sys.stderr.write(printed.decode(errors="replace"))
            _output(mpiexec).close()
            raise ResourceError("MPI's launcher, mpiexec, did not start. What it said of that is in the log.")
        self._print_output(_output(mpiexec))
        return int(found[1])

    def start_rank(self, leader: str, port: int, rank: int) -> MessageSocket:
        """Start rank number ``rank`` under the mpiexec of the address ``leader``; return the socket to it."""
        ours, theirs = socket.socketpair()
        # The rank knows the descriptors by their numbers: it inherits those of the proxy.
        for number, descriptor in ((RANK_SOCKET, theirs.fileno()), (RANK_OUT, 1), (RANK_ERR, 2)):
            os.dup2(descriptor, number)
        theirs.close()
        proxy = subprocess.Popen(  # noqa: S603 - an address, a number and a number
            proxy_command(leader, port, rank),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            pass_fds=(RANK_SOCKET, RANK_OUT, RANK_ERR),
            start_new_session=True,
        )
        self._processes.append(proxy)
        self._print_output(_output(proxy))
        for number in (RANK_SOCKET, RANK_OUT, RANK_ERR):
            os.close(number)
        return MessageSocket(ours)

    def set_rank_process(self, rank: int) -> None:
        """Set the process id of this container's ``rank``."""
        self._rank = rank

    def signal_rank(self, number: int) -> bool:
        """Send the signal ``number`` to the rank; return whether there is one."""
        if not self._rank:
            return False
        with contextlib.suppress(ProcessLookupError):
            os.kill(self._rank, number)
        return True

    def wait(self, seconds: float) -> None:
        """Wait at most ``seconds`` for the end of all processes, then kill them, and reap them."""
        self._is_over = True
        end = time.monotonic() + seconds
        # The output of a process ends with it, which a thread notices at once; `Popen.wait` polls.
        for thread in self._threads:
            thread.join(max(0.0, end - time.monotonic()))
        for process in self._processes:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(max(0.0, end - time.monotonic()))
        self._kill()
        for process in self._processes:
            process.wait()
        if os.getpid() == 1:
            _reap_orphans()
        for thread in self._threads:
            thread.join(REAP_TIMEOUT)

    def _print_output(self, lines: IO[bytes]) -> None:
        """Print ``lines`` in another thread: errors of the launcher, and of a rank without its own streams."""

        def copy() -> None:
            with lines:
                for line in lines:
                    # At the end of the job broken connections are normal.
                    if not self._is_over:
                        sys.stderr.write(line.decode(errors="replace"))
                        sys.stderr.flush()

        thread = threading.Thread(target=copy, daemon=True)
        thread.start()
        self._threads.append(thread)

    def _kill(self) -> None:
        running = [process for process in self._processes if process.poll() is None]
        # First the rank and its exit reporter, which the launcher has put into a process group: the proxy reaps them.
        # Only while the proxy lives, because until then the process id can't belong to another process.
        if running and self._rank:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(os.getpgid(self._rank), signal.SIGKILL)
        for process in running:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


def _output(process: subprocess.Popen[bytes]) -> IO[bytes]:
    assert process.stdout is not None  # noqa: S101 - for the type checker
    return process.stdout


def _read_until(stream: IO[bytes], end: bytes) -> bytes:
    """Return the bytes of ``stream`` up to ``end``, or all until it ends or the time is over."""
    printed = b""
    deadline = time.monotonic() + LAUNCH_TIMEOUT
    while end not in printed and select.select([stream], [], [], max(0.0, deadline - time.monotonic()))[0]:
        chunk = os.read(stream.fileno(), 65536)
        if not chunk:
            break
        printed += chunk
    return printed


def _reap_orphans() -> None:
    """Reap the processes whose parents have ended, and which PID 1 inherits."""
    deadline = time.monotonic() + REAP_TIMEOUT
    with contextlib.suppress(ChildProcessError):
        while time.monotonic() < deadline:
            if os.waitpid(-1, os.WNOHANG) == (0, 0):
                time.sleep(0.01)
