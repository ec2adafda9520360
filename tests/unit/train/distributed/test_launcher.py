"""The launcher's processes, with scripts in place of MPICH's programs (tests/image has the real ones)."""

import itertools
import os
import select
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from kmeans.errors import ResourceError
from tests.processes import is_running
from train.distributed.launcher import CONTROL_PORTS, HydraLauncher, mpiexec_command, proxy_command, rank_environment
from train.distributed.messages import Message, MessageError, MessageSocket

RANK = """
import os, signal, socket, time
connection = socket.socket(fileno=197)
os.write(198, b"to the output\\n")
os.write(199, b"to the errors\\n")
print("before the streams were claimed", flush=True)
for number in (signal.SIGTERM, signal.SIGINT):
    signal.signal(number, lambda number, _: connection.sendall(b'{"kind": "stop", "number": %d}\\n' % number))
connection.sendall(b'{"kind": "started", "number": %d}\\n' % os.getpid())
while connection.recv(1000):
    pass
"""


def wait_until(condition: Callable[[], object], what: str) -> None:
    end = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < end, f"waited for {what}"
        time.sleep(0.005)


def receive(connection: MessageSocket) -> Message:
    wait_until(lambda: select.select([connection], [], [], 0)[0], "a message of the rank")
    return connection.receive()[0]


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder whose programs come before all others."""
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    return tmp_path


def put(programs: Path, name: str, script: str) -> None:
    (programs / name).write_text(script)
    (programs / name).chmod(0o755)


@pytest.fixture
def hydra(programs: Path) -> Iterator[HydraLauncher]:
    """A launcher whose proxies become the rank above."""
    (programs / "rank.py").write_text(RANK)
    put(programs, "hydra_pmi_proxy", f"#!/bin/sh\nexec {sys.executable} {programs}/rank.py\n")
    hydra = HydraLauncher(["rank"])
    yield hydra
    hydra.wait(0)


def test_leader_learns_the_port_of_mpiexec(programs: Path, hydra: HydraLauncher) -> None:
    put(
        programs,
        "mpiexec",
        "#!/bin/sh\n"
        f'echo "$MPIEXEC_PORT_RANGE $*" > {programs}/asked\n'
        "echo HYDRA_LAUNCH: hydra_pmi_proxy --control-port algo-1:10007 --rmk user --proxy-id 0\n"
        "echo HYDRA_LAUNCH_END\n"
        "exec sleep 600\n",
    )
    assert hydra.start_mpiexec(["algo-1", "algo-2"]) == 10007
    asked = (programs / "asked").read_text()
    assert asked.startswith("10000:10010 -launcher manual ")
    assert asked.endswith(" -hosts algo-1,algo-2 rank\n")


def test_an_mpiexec_that_does_not_start_is_an_error(
    programs: Path, hydra: HydraLauncher, capfd: pytest.CaptureFixture[str]
) -> None:
    put(programs, "mpiexec", "#!/bin/sh\necho no port is free >&2\nexit 1\n")
    with pytest.raises(ResourceError, match="did not start"):
        hydra.start_mpiexec(["algo-1", "algo-2"])
    assert "no port is free" in capfd.readouterr().err


def test_rank_inherits_its_socket_and_the_containers_streams(
    hydra: HydraLauncher, capfd: pytest.CaptureFixture[str]
) -> None:
    connection = hydra.start_rank("127.0.0.1", 10000, 1)
    assert receive(connection).kind == "started"
    seen = {"out": "", "err": ""}

    def all_was_printed() -> bool:
        out, err = capfd.readouterr()
        seen["out"], seen["err"] = seen["out"] + out, seen["err"] + err
        return "to the errors" in seen["err"] and "before the streams" in seen["err"]

    wait_until(all_was_printed, "what the rank prints")
    assert seen["out"] == "to the output\n"
    connection.close()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_stop_signal_reaches_the_rank_once_it_is_known(hydra: HydraLauncher, number: signal.Signals) -> None:
    connection = hydra.start_rank("127.0.0.1", 10000, 0)
    assert not hydra.signal_rank(number)
    hydra.set_rank_process(receive(connection).number)
    assert hydra.signal_rank(number)
    assert receive(connection) == Message("stop", number=number)
    connection.close()


def test_nothing_is_left_running(programs: Path, hydra: HydraLauncher) -> None:
    # A rank that its launcher has started, and which knows nothing of its connection.
    put(
        programs,
        "hydra_pmi_proxy",
        f"#!/bin/sh\nsleep 600 &\necho $! > {programs}/rank\necho $$ > {programs}/proxy\nwait\n",
    )
    connection = hydra.start_rank("127.0.0.1", 10000, 0)
    wait_until((programs / "proxy").exists, "the proxy to run")
    rank, proxy = (int((programs / name).read_text()) for name in ("rank", "proxy"))
    hydra.set_rank_process(rank)
    hydra.wait(0)
    assert not is_running(proxy)
    wait_until(lambda: not is_running(rank), "the end of the rank")
    with pytest.raises(MessageError):
        connection.receive()
    connection.close()


def test_rank_and_its_exit_reporter_are_killed_together(programs: Path, hydra: HydraLauncher) -> None:
    """The launcher gives the two a process group; this reporter would stay."""
    pair = f"sleep 600 & echo $! > {programs}/rank; echo $$ > {programs}/reporter; exec sleep 600"
    put(programs, "hydra_pmi_proxy", f"#!/bin/sh\nsetsid sh -c '{pair}'\n")
    connection = hydra.start_rank("127.0.0.1", 10000, 0)
    wait_until(lambda: (programs / "reporter").exists() and (programs / "reporter").read_text(), "the reporter to run")
    rank, reporter = (int((programs / name).read_text()) for name in ("rank", "reporter"))
    hydra.set_rank_process(rank)
    hydra.wait(0)
    wait_until(lambda: not is_running(rank) and not is_running(reporter), "the end of both")
    connection.close()


def test_processes_that_are_done_may_end_by_themselves(programs: Path, hydra: HydraLauncher) -> None:
    put(programs, "hydra_pmi_proxy", f"#!/bin/sh\nread _ < {programs}/gate\ntouch {programs}/ended\n")
    os.mkfifo(programs / "gate")
    connection = hydra.start_rank("127.0.0.1", 10000, 0)
    with (programs / "gate").open("w"):
        pass
    hydra.wait(20)
    assert (programs / "ended").exists()
    connection.close()


def test_a_rank_uses_the_interface_that_is_named_if_it_is_there() -> None:
    assert rank_environment("lo") == {"UCX_TLS": "tcp,self", "UCX_NET_DEVICES": "lo"}
    assert rank_environment("ethwe") == {"UCX_TLS": "tcp,self"}


def test_proxy_commands_of_hosts_differ_in_a_number_only() -> None:
    first, second = proxy_command("10.0.0.1", 10000, 0), proxy_command("10.0.0.1", 10000, 12)
    assert (first[:-1], first[-1], second[-1]) == (second[:-1], "0", "12")
    assert first[:3] == ["hydra_pmi_proxy", "--control-port", "10.0.0.1:10000"]


def test_the_leader_starts_one_rank_on_each_host() -> None:
    command = mpiexec_command(["algo-1", "algo-2"], ["python3", "-m", "train"])
    assert command[:2] == ["env", f"MPIEXEC_PORT_RANGE={min(CONTROL_PORTS)}:{max(CONTROL_PORTS)}"]
    assert command[-5:] == ["-hosts", "algo-1,algo-2", "python3", "-m", "train"]
    assert ("-ppn", "1") in list(itertools.pairwise(command))
