"""Supervisors of several hosts, over real sockets of the loopback interface, with ranks that a test controls."""

import contextlib
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence

import pytest

import kmeans
from train.config import HostNames
from train.distributed.follower import Follower
from train.distributed.leader import Leader
from train.distributed.messages import Message, MessageError, MessageSocket, decode, encode
from train.distributed.supervisor import Deadlines, Supervisor
from train.failure import Failure

# Sorts before the others, and resolves everywhere.
LEADER = "127.0.0.1"
# Ends a test that hangs.
PATIENCE = 20.0
# What a test waits for is short here, the rest as it is.
QUICK = Deadlines(heartbeat=0.05, drain=1.0)


def wait_until(condition: Callable[[], object], what: str) -> None:
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end, f"waited for {what}"
        time.sleep(0.005)


class Rank:
    """Replaces the launcher and the rank that it starts; the test sends the rank's messages."""

    def __init__(self) -> None:
        self.names: Sequence[str] = ()
        self.joined: tuple[str, int, int] | None = None
        self.process = 0
        self.signals: list[int] = []
        self.ended: float | None = None  # how long it was given to end by itself
        self._end: socket.socket | None = None

    def start_mpiexec(self, names: Sequence[str]) -> int:
        self.names = names
        return 10003

    def start_rank(self, leader: str, port: int, rank: int) -> MessageSocket:
        ours, self._end = socket.socketpair()
        self.joined = leader, port, rank
        return MessageSocket(ours)

    def set_rank_process(self, process: int) -> None:
        self.process = process

    def signal_rank(self, number: int) -> bool:
        self.signals.append(number)
        return self.process > 0

    def wait(self, seconds: float) -> None:
        self.ended = seconds
        if self._end is not None and not seconds:
            # The launcher ends a rank that has not ended; that is no cause of anything.
            with contextlib.suppress(OSError):
                self._end.sendall(encode(Message("killed", number=signal.SIGKILL)))
        self.die()

    def say(self, *messages: Message) -> None:
        wait_until(lambda: self.joined, "the start of the rank")
        assert self._end is not None
        self._end.sendall(b"".join(encode(message) for message in messages))

    def train(self) -> None:
        self.say(Message("started", number=4711), Message("ready"))
        wait_until(lambda: self.process == 4711, "the rank to be known")

    def die(self) -> None:
        if self._end is not None:
            self._end.close()


class Running:
    """A host of a job, in a thread."""

    def __init__(self, current: str, names: tuple[str, ...], port: int, deadlines: Deadlines) -> None:
        self.rank = Rank()
        self.log: list[str] = []
        self.failure: Failure | None = None
        hosts = HostNames(current, names)
        kind = Leader if current == hosts.leader else Follower
        self.host: Supervisor = kind(hosts, self.rank, self.log.append, deadlines, port)
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        self.failure = self.host.run()

    @property
    def is_running(self) -> bool:
        return self._thread.is_alive()

    def outcome(self) -> Failure | None:
        self._thread.join(PATIENCE)
        assert not self.is_running, self.log
        assert self.rank.ended is not None
        return self.failure

    def failed(self) -> str:
        failure = self.outcome()
        assert failure is not None
        assert self.rank.ended == 0, "what fails is not waited for"
        return f"{failure.exit_code} {failure.reason}"


class Job:
    """The hosts of one job."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.names: tuple[str, ...] = ()
        self.hosts: list[Running] = []

    def start(self, current: str, deadlines: Deadlines = QUICK) -> Running:
        host = Running(current, self.names, self.port, deadlines)
        self.hosts.append(host)
        return host

    def of(self, *followers: str, deadlines: Deadlines = QUICK) -> list[Running]:
        """Start the leader and all followers; all have the same list of hosts."""
        self.names = self.names or (LEADER, *followers)
        return [self.start(name, deadlines) for name in (LEADER, *followers)]

    def connect(self, hello: bytes = b"") -> socket.socket:
        """Connect to the leader; the test plays the peer."""
        connection = None
        end = time.monotonic() + PATIENCE
        while connection is None:
            assert time.monotonic() < end
            try:
                connection = socket.create_connection((LEADER, self.port), PATIENCE)
            except ConnectionRefusedError:
                time.sleep(0.005)
        connection.sendall(hello)
        return connection


def hello(name: str, version: str = kmeans.__version__) -> bytes:
    return encode(Message("hello", host=name, text=version))


@pytest.fixture
def job() -> Iterator[Job]:
    with socket.create_server(("", 0)) as server:
        port = server.getsockname()[1]
    job = Job(port)
    yield job
    for host in job.hosts:
        host.host.stop()
    for host in job.hosts:
        host.outcome()


@pytest.mark.parametrize("leader_first", [True, False])
def test_hosts_find_each_other_in_any_order_and_end_together(job: Job, leader_first: bool) -> None:
    job.names = (LEADER, "algo-10", "algo-2")
    first = job.start(LEADER if leader_first else "algo-2")
    wait_until(lambda: first.log, "the first host to look for the others")
    others = [job.start(name) for name in job.names if name not in {LEADER if leader_first else "algo-2"}]
    hosts = sorted([first, *others], key=lambda host: job.names.index(host.host._hosts.current))
    for host in hosts:
        host.rank.train()
    assert hosts[0].rank.names == job.names
    assert [host.rank.joined for host in hosts] == [(LEADER, 10003, 0), (LEADER, 10003, 1), (LEADER, 10003, 2)]
    for host in hosts:
        assert all(other.is_running for other in hosts), "no host ends before all ranks are done"
        host.rank.say(Message("done"))
    assert [host.outcome() for host in hosts] == [None] * 3
    assert all(host.rank.ended for host in hosts), "what is done may end by itself"


def test_no_host_ends_while_another_one_trains(job: Job) -> None:
    leader, follower = job.of("algo-2")
    follower.rank.train()
    follower.rank.say(Message("done"))
    wait_until(lambda: leader.host._done, "the leader to receive that the follower is done")  # type: ignore[attr-defined]
    assert follower.is_running
    leader.rank.train()
    assert follower.is_running
    leader.rank.say(Message("done"))
    assert leader.outcome() is None
    assert follower.outcome() is None


@pytest.mark.parametrize("guilty", [0, 1, 2])
def test_failure_of_one_host_is_the_failure_of_all(job: Job, guilty: int) -> None:
    hosts = job.of("algo-2", "algo-3")
    for host in hosts:
        host.rank.train()
    hosts[guilty].rank.say(Message("failed", text="ClientError: a.csv is wrong.", number=1))
    name = job.names[guilty]
    assert {host.failed() for host in hosts} == {f"1 ClientError: host {name}: a.csv is wrong."}


def test_a_host_that_does_not_come_is_named(job: Job) -> None:
    job.names = (LEADER, "algo-2", "algo-3", "algo-4")
    leader, follower = job.start(LEADER, Deadlines(arrival=0.3, heartbeat=0.05)), job.start("algo-3")
    reason = leader.failed()
    assert reason.startswith(f"2 AlgorithmError: host algo-2, algo-4: not there 0 s after {LEADER} started.")
    assert follower.failed() == reason


def test_a_leader_that_is_not_found_is_named(job: Job) -> None:
    job.names = (LEADER, "algo-2")
    reason = job.start("algo-2", Deadlines(arrival=0.3)).failed()
    assert reason.startswith(f"2 AlgorithmError: host {LEADER}: it could not be reached at port {job.port}")
    assert "Connection refused" in reason


@pytest.mark.parametrize("name", ["algo-1.invalid", "a..b", "a" * 64])
def test_a_name_that_does_not_resolve_is_named(job: Job, name: str) -> None:
    job.names = (name, "algo-2")
    follower = job.start("algo-2", Deadlines(arrival=0.3))
    reason = follower.failed()
    assert reason.startswith(f"2 AlgorithmError: host {name}: it could not be reached")
    assert "nobody answered" not in reason, "the reason names the mistake in the name"


def test_a_host_that_goes_is_named(job: Job) -> None:
    job.names = (LEADER, "algo-2", "algo-3")
    leader, follower = job.start(LEADER), job.start("algo-2")
    other = job.connect(hello("algo-3"))
    leader.rank.train()
    follower.rank.train()
    other.close()
    reason = leader.failed()
    assert reason.startswith("2 AlgorithmError: host algo-3: it ended without a word, the connection ")
    assert follower.failed() == reason


def test_a_host_that_falls_silent_is_named(job: Job) -> None:
    job.names = (LEADER, "algo-2", "algo-3")
    deadlines = Deadlines(heartbeat=0.05, silence=1.0, drain=0.2)
    leader, follower = job.start(LEADER, deadlines), job.start("algo-2", deadlines)
    with job.connect(hello("algo-3")):
        reason = leader.failed()
        assert reason.startswith("2 AlgorithmError: host algo-3: no sign of life came from it")
        assert follower.failed() == reason


def test_a_leader_that_falls_silent_or_goes_is_named(job: Job) -> None:
    job.names = (LEADER, "algo-2", "algo-3")
    with socket.create_server((LEADER, job.port)) as server:
        first = job.start("algo-2", Deadlines(silence=1.0, drain=0.2))
        silent, _ = server.accept()
        second = job.start("algo-3")
        gone, _ = server.accept()
        gone.close()
        with silent:
            assert first.failed().startswith(f"2 AlgorithmError: host {LEADER}: no sign of life came from it")
        assert second.failed().startswith(f"2 AlgorithmError: host {LEADER}: it ended without a word")


@pytest.mark.parametrize("dead", [0, 1])
def test_a_rank_that_dies_without_a_word_fails_the_job(job: Job, dead: int) -> None:
    hosts = job.of("algo-2", "algo-3")
    for host in hosts:
        host.rank.train()
    hosts[dead].rank.die()
    (reason,) = {host.failed() for host in hosts}
    assert reason.startswith(f"2 AlgorithmError: host {job.names[dead]}: the training process ended without giving")


@pytest.mark.parametrize("dead", [0, 1])
@pytest.mark.parametrize(
    ("end", "how"),
    [
        (Message("killed", number=signal.SIGSEGV), "was ended by SIGSEGV"),
        (Message("killed", number=40), "was ended by signal 40"),
        (Message("ended", number=3), "ended with exit code 3"),
        (
            Message("killed", number=signal.SIGKILL),
            "was killed by SIGKILL, perhaps because its machine had no memory left: choose an instance with more.",
        ),
    ],
)
def test_how_a_rank_ended_that_said_nothing_is_in_the_reason(job: Job, dead: int, end: Message, how: str) -> None:
    hosts = job.of("algo-2", "algo-3")
    for host in hosts:
        host.rank.train()
    hosts[dead].rank.say(end)
    (reason,) = {host.failed() for host in hosts}
    assert reason.startswith(f"2 AlgorithmError: host {job.names[dead]}: the training process {how}")


@pytest.mark.parametrize("killed", [0, 2])
@pytest.mark.parametrize(
    "suspicion",
    [
        Message("killed", number=signal.SIGUSR1),
        Message("ended", number=1),
        Message("failed", text="AlgorithmError: broken.", number=2, certain=False),
    ],
    ids=lambda message: message.kind,
)
def test_killed_rank_is_the_cause_despite_uncertain_failures(job: Job, killed: int, suspicion: Message) -> None:
    """When a rank is killed MPI may end the others at once, and their hosts may be the first to say so."""
    # A suspicion is believed after a heartbeat: never, here.
    hosts = job.of("algo-2", "algo-3", deadlines=Deadlines(heartbeat=2 * PATIENCE, silence=4 * PATIENCE, drain=1.0))
    for host in hosts:
        host.rank.train()
    for number in {0, 1, 2} - {killed}:
        hosts[number].rank.say(suspicion)
    wait_until(lambda: hosts[0].host._uncertain_failure, "the leader to suspect a host")  # type: ignore[attr-defined]
    assert all(host.is_running for host in hosts)
    hosts[killed].rank.say(Message("killed", number=signal.SIGKILL))
    (reason,) = {host.failed() for host in hosts}
    assert reason.startswith(f"2 AlgorithmError: host {job.names[killed]}: the training process was killed by SIGKILL")


def test_failure_reported_by_a_rank_overrides_its_exit(job: Job) -> None:
    leader, follower = job.of("algo-2")
    leader.rank.train()
    follower.rank.train()
    leader.rank.say(Message("done"), Message("killed", number=signal.SIGKILL))
    follower.rank.say(Message("failed", text="ClientError: a.csv is wrong.", number=1), Message("ended", number=1))
    assert {leader.failed(), follower.failed()} == {"1 ClientError: host algo-2: a.csv is wrong."}


@pytest.mark.parametrize(
    ("end", "exit_code"),
    [(Message("ended", number=143), 143), (Message("killed", number=signal.SIGKILL), 2)],
    ids=["by itself", "killed"],
)
def test_rank_that_ends_after_a_stop_signal_was_stopped(job: Job, end: Message, exit_code: int) -> None:
    leader, follower = job.of("algo-2")
    leader.rank.train()
    follower.rank.train()
    follower.host.stop()
    wait_until(lambda: follower.rank.signals, "SIGTERM to reach the rank")
    follower.rank.say(end)
    (reason,) = {leader.failed(), follower.failed()}
    assert reason.startswith(f"{exit_code} AlgorithmError: host algo-2: ")
    assert ("was stopped (SIGTERM)" in reason) == (exit_code == 143)


def test_lost_host_is_the_cause_if_another_rank_dies_of_it(job: Job) -> None:
    job.names = (LEADER, "algo-2", "algo-3")
    deadlines = Deadlines(heartbeat=0.05, silence=1.0, drain=0.2)
    leader, follower = job.start(LEADER, deadlines), job.start("algo-2", deadlines)
    with job.connect(hello("algo-3")):
        leader.rank.train()
        leader.rank.die()
        follower.rank.train()
        follower.rank.say(Message("failed", text="AlgorithmError: broken.", number=2, certain=False))
        (reason,) = {leader.failed(), follower.failed()}
    assert reason.startswith("2 AlgorithmError: host algo-3: no sign of life")


def test_ranks_that_do_not_find_each_other_fail_the_job(job: Job) -> None:
    job.names = (LEADER, "algo-2")
    leader, follower = job.start(LEADER), job.start("algo-2", Deadlines(heartbeat=0.05, start=0.3))
    leader.rank.train()
    follower.rank.say(Message("started", number=1))
    (reason,) = {leader.failed(), follower.failed()}
    assert reason.startswith("2 AlgorithmError: host algo-2: the training process was not connected")


@pytest.mark.parametrize(
    "noise", [b"GET / HTTP/1.1\r\n\r\n", b"\0" * 100_000, hello("algo-7"), hello(LEADER), encode(Message("done")), b""]
)
def test_unidentified_connections_are_refused_without_harm(job: Job, noise: bytes) -> None:
    job.names = (LEADER, "algo-2")
    leader = job.start(LEADER)
    with job.connect(noise) as stranger:
        if not noise:
            stranger.shutdown(socket.SHUT_WR)
        try:
            while stranger.recv(1024):
                pass
        except ConnectionResetError:
            pass
        assert "was refused" in leader.log[-1]
        follower = job.start("algo-2")
        for host in (leader, follower):
            host.rank.train()
            host.rank.say(Message("done"))
        assert (leader.outcome(), follower.outcome()) == (None, None)


def test_second_host_of_one_name_is_refused_with_a_reason(job: Job) -> None:
    job.names = (LEADER, "algo-2", "algo-3")
    leader, follower = job.start(LEADER), job.start("algo-2")
    wait_until(lambda: "host algo-2 is there" in leader.log, "the follower to be there")
    second = job.start("algo-2")
    assert "host algo-2 is there already" in second.failed()
    third = job.start("algo-3")
    for host in (leader, follower, third):
        host.rank.train()
        host.rank.say(Message("done"))
    assert [host.outcome() for host in (leader, follower, third)] == [None] * 3


def test_host_with_another_version_of_the_image_is_refused(job: Job) -> None:
    job.names = (LEADER, "algo-2")
    leader = job.start(LEADER)
    connection = MessageSocket(job.connect(hello("algo-2", "0.0.1")))
    reason = leader.failed()
    assert reason.startswith("2 AlgorithmError: host algo-2: it runs version '0.0.1' of the image")
    assert "'0.0.1'" in connection.receive()[0].text
    with pytest.raises(MessageError):
        connection.receive()
    connection.close()


@pytest.mark.parametrize(("number", "exit_code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_stop_before_there_is_a_rank_ends_the_job_everywhere(job: Job, number: signal.Signals, exit_code: int) -> None:
    job.names = (LEADER, "algo-2", "algo-3")
    leader, follower = job.start(LEADER), job.start("algo-2")
    wait_until(lambda: "host algo-2 is there" in leader.log, "the follower to be there")
    follower.host.stop(number)
    (reason,) = {leader.failed(), follower.failed()}
    stopped = f"the job was stopped ({number.name}) before there was a model."
    assert reason == f"{exit_code} AlgorithmError: host algo-2: {stopped}"


def test_host_that_connects_during_a_failure_gets_its_reason(job: Job) -> None:
    job.names = (LEADER, "algo-2", "algo-3")
    leader = job.start(LEADER)
    with job.connect() as late:
        leader.host.stop()
        received = late.makefile("rb").readline()
    assert "the job was stopped (SIGTERM)" in decode(received).text
    assert "the job was stopped (SIGTERM)" in leader.failed()


def test_host_that_connects_after_a_failure_gets_its_reason(job: Job) -> None:
    job.names = (LEADER, "algo-2", "algo-3", "algo-4")
    leader = job.start(LEADER, Deadlines(heartbeat=0.05, drain=PATIENCE))
    with job.connect(hello("algo-2")):
        wait_until(lambda: "host algo-2 is there" in leader.log, "the follower to be there")
    wait_until(lambda: leader.host._is_over, "the job to fail")
    late = [job.start("algo-3"), job.start("algo-4")]
    reason = leader.failed()
    assert reason.startswith("2 AlgorithmError: host algo-2: it ended without a word")
    assert [host.failed() for host in late] == [reason, reason]


@pytest.mark.parametrize("stops", [False, True])
def test_leader_skips_drain_after_timeout_or_stop(job: Job, stops: bool) -> None:
    job.names = (LEADER, "algo-2")
    leader = job.start(LEADER, Deadlines(arrival=1.0, heartbeat=0.05, drain=2 * PATIENCE))
    if stops:
        leader.host.stop()
    assert leader.failed().startswith("143" if stops else "2 AlgorithmError: host algo-2: not there")


def test_leader_that_dies_before_the_job_is_done_is_named(job: Job) -> None:
    """It may die while it writes the model."""
    job.names = (LEADER, "algo-2")
    with socket.create_server((LEADER, job.port)) as server:
        follower = job.start("algo-2")
        connection, _ = server.accept()
        with connection:
            connection.sendall(encode(Message("go", number=10003)))
            follower.rank.train()
            follower.rank.say(Message("done"))
            received = connection.makefile("rb")
            wait_until(lambda: decode(received.readline()).kind == "done", "the follower to be done")
        received.close()
    assert follower.failed().startswith(f"2 AlgorithmError: host {LEADER}: it ended without a word")


def test_host_may_leave_once_its_rank_is_done(job: Job) -> None:
    """The model was written before."""
    job.names = (LEADER, "algo-2", "algo-3")
    leader, follower = job.start(LEADER), job.start("algo-2")
    with job.connect(hello("algo-3")) as other:
        leader.rank.train()
        follower.rank.train()
        other.sendall(encode(Message("done")))
    wait_until(lambda: "algo-3" not in leader.host._followers, "the host to go")  # type: ignore[attr-defined]
    for host in (leader, follower):
        host.rank.say(Message("done"))
    assert (leader.outcome(), follower.outcome()) == (None, None)


def test_stop_signal_reaches_the_rank_once_and_its_result_counts(job: Job) -> None:
    leader, follower = job.of("algo-2")
    leader.rank.train()
    follower.rank.train()
    follower.host.stop()
    wait_until(lambda: follower.rank.signals, "SIGTERM to reach the rank")
    follower.host.stop()
    for host in (leader, follower):
        host.rank.say(Message("done"))
    assert (leader.outcome(), follower.outcome()) == (None, None)
    assert follower.rank.signals == [signal.SIGTERM]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_stop_signal_of_any_host_reaches_the_leaders_rank_too(job: Job, number: signal.Signals) -> None:
    """The leader does some work alone, and would notice the stop of another rank only after it."""
    leader, first, second = hosts = job.of("algo-2", "algo-3")
    for host in hosts:
        host.rank.train()
    second.host.stop(number)
    wait_until(lambda: leader.rank.signals and second.rank.signals, "the signal to reach both ranks")
    assert first.rank.signals == []
    assert leader.rank.signals == second.rank.signals == [number]
    for host in hosts:
        host.rank.say(Message("done"))
    assert [host.outcome() for host in hosts] == [None] * 3


def test_leader_sends_its_rank_no_other_signal_than_a_stop(job: Job) -> None:
    """The number of a stop comes over the network."""
    job.names = (LEADER, "algo-2")
    leader = job.start(LEADER)
    with job.connect(hello("algo-2")) as follower:
        leader.rank.train()
        follower.sendall(encode(Message("stop", number=signal.SIGKILL)))
        wait_until(lambda: leader.rank.signals, "the signal to reach the rank")
    assert leader.rank.signals == [signal.SIGTERM]
    assert "host algo-2: it ended without a word" in leader.failed()


@pytest.mark.parametrize("stopped", [0, 1])
def test_nothing_fails_any_more_once_the_model_is_written(job: Job, stopped: int) -> None:
    hosts = job.of("algo-2", deadlines=Deadlines(heartbeat=0.05, stop=0.3, drain=1.0))
    for host in hosts:
        host.rank.train()
        host.rank.say(Message("written"))
    hosts[stopped].host.stop()
    hosts[1 - stopped].rank.say(Message("done"))
    assert [host.outcome() for host in hosts] == [None, None]


@pytest.mark.parametrize("still", [0, 1, 2])
def test_rank_that_sends_no_heartbeats_is_named(job: Job, still: int) -> None:
    hosts = job.of("algo-2", "algo-3", deadlines=Deadlines(heartbeat=0.05, silence=1.0, drain=0.2))
    for host in hosts:
        host.rank.train()
    alive = [host.rank for number, host in enumerate(hosts) if number != still]

    def is_over() -> bool:
        for rank in alive:
            rank.say(Message("alive"))
        return not any(host.is_running for host in hosts)

    with contextlib.suppress(OSError):  # the first that ends closes its connection
        wait_until(is_over, "the end of the job")
    (reason,) = {host.failed() for host in hosts}
    assert reason.startswith(
        f"2 AlgorithmError: host {job.names[still]}: no sign of life came from the training process for 1 s."
    )


def test_rank_that_ignores_sigterm_is_ended(job: Job) -> None:
    leader, follower = job.of("algo-2", deadlines=Deadlines(heartbeat=0.05, stop=0.3))
    leader.rank.train()
    follower.rank.train()
    leader.host.stop()
    (reason,) = {leader.failed(), follower.failed()}
    assert reason == f"143 AlgorithmError: host {LEADER}: the job was stopped (SIGTERM) before there was a model."


def test_a_port_that_is_taken_is_named(job: Job) -> None:
    job.names = (LEADER, "algo-2")
    with socket.create_server(("", job.port)):
        reason = job.start(LEADER).failed()
    assert f"host {LEADER}: can't listen at port {job.port}" in reason
    assert "Address already in use" in reason
