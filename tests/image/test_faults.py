"""Hosts that are killed, in each phase of a job: the others end soon, and say which host it was."""

import contextlib
import time
from collections.abc import Callable, Iterator
from typing import TypeAlias

import numpy as np
import pytest

from ..pipes import Feeder
from .cluster import ENDED_BY_SIGKILL, ENDLESS, Cluster, finish
from .containers import Running, wait_until
from .samples import digits, recordio

pytestmark = [pytest.mark.image, pytest.mark.slow]

# The others notice at once that a host has died; Docker takes its time. A host that is only silent has 30 s.
DEADLINE = 15.0

HOSTS = 3

# Starts a job, and waits until all its hosts are in one phase; at its end it makes sure that none has left it.
Phase: TypeAlias = Callable[[Cluster], contextlib.AbstractContextManager[list[Running]]]


@contextlib.contextmanager
def meeting(cluster: Cluster) -> Iterator[list[Running]]:
    """All hosts but one have come, and wait for it."""
    hosts = [cluster.start(number) for number in range(HOSTS - 1)]
    wait_until(lambda: f"host {cluster.names[1]} is there" in hosts[0].log, "the worker to come to the leader")
    yield hosts
    assert "Final configuration" not in hosts[0].log, "no host trains before all are there"


@contextlib.contextmanager
def reading(cluster: Cluster) -> Iterator[list[Running]]:
    """Each host has read half of its rows, and waits for the rest."""
    half = recordio(digits()[:900])
    with contextlib.ExitStack() as stack:
        feeders = []
        for job in cluster.jobs:
            channel = {"TrainingInputMode": "Pipe", "ContentType": "application/x-recordio-protobuf"}
            job.write_config("inputdataconfig", {"train": channel})
            feeders.append(stack.enter_context(Feeder(job.root / "input" / "data" / "train", [[half, None]])))
        hosts = cluster.start_all()
        wait_until(lambda: all(feeder.opened for feeder in feeders), "all hosts to read")
        yield hosts
        assert not any("read channel train" in host.log for host in hosts)


@contextlib.contextmanager
def between(cluster: Cluster, first: str, last: str) -> Iterator[list[Running]]:
    """All hosts have said ``first``, and none says ``last``."""
    hosts = cluster.start_all()
    for host in hosts:
        wait_until(lambda host=host: first in host.log or not host.alive, first)  # type: ignore[misc]
        assert host.alive, host.log
    yield hosts
    assert not any(last in host.log for host in hosts)


@contextlib.contextmanager
def streaming(cluster: Cluster) -> Iterator[list[Running]]:
    """The first of endless epochs is over."""
    cluster.set_hyperparameters(**ENDLESS)
    with between(cluster, "#throughput_metric", "shrinking") as hosts:
        yield hosts


@contextlib.contextmanager
def shrinking(cluster: Cluster) -> Iterator[list[Running]]:
    """The leader tries starts without end, the others wait for what comes of it."""
    cluster.set_hyperparameters(k="10", feature_dim="64", local_lloyd_num_trials="1000000")
    with between(cluster, "#throughput_metric", "refining") as hosts:
        wait_until(lambda: "local kmeans attempt #0" in hosts[0].log, "the leader to shrink")
        yield hosts


@contextlib.contextmanager
def refining(cluster: Cluster) -> Iterator[list[Running]]:
    """Passes over rows without any clusters, which take seconds to settle."""
    rows = np.random.default_rng(0).uniform(size=(400_000, 8)).astype(np.float32)
    content = recordio(rows)
    for job in cluster.jobs:
        job.data_file("digits.csv").unlink()
        job.data_file("noise.pbr").write_bytes(content)
        job.train_on("application/x-recordio-protobuf")
    cluster.set_hyperparameters(k="300", refine_max_iter="1000000", local_lloyd_num_trials="1")
    with between(cluster, "refinement pass 1 ", "refined the centers") as hosts:
        yield hosts


PHASES: list[Phase] = [meeting, reading, streaming, shrinking, refining]


@pytest.mark.parametrize("cluster", [HOSTS], indirect=True, ids=[f"{HOSTS} hosts"])
@pytest.mark.parametrize("dead", [0, 1], ids=["the leader", "a worker"])
@pytest.mark.parametrize("phase", PHASES, ids=lambda phase: phase.__name__)
def test_a_host_that_is_killed_ends_the_others(cluster: Cluster, phase: Phase, dead: int) -> None:
    with phase(cluster) as hosts:
        hosts[dead].container.kill()
        killed = time.monotonic()
        finished = finish(hosts)
    assert time.monotonic() - killed < DEADLINE
    for number, host in enumerate(finished):
        if number == dead:
            assert host.exit_code == ENDED_BY_SIGKILL
            continue
        assert host.exit_code == 2, host.log
        reason = cluster.failure(number)
        assert reason.startswith(f"AlgorithmError: host {cluster.names[dead]}: it ended without a word")
        assert host.out.rstrip().endswith(reason), "the reason is the last line"
        assert "Traceback" not in host.log
    assert not any(any(job.model.iterdir()) for job in cluster.jobs)


@pytest.mark.parametrize("cluster", [HOSTS], indirect=True, ids=[f"{HOSTS} hosts"])
def test_a_host_that_comes_after_another_was_killed_hears_of_it(cluster: Cluster) -> None:
    """It need not wait for a leader that is gone."""
    with meeting(cluster) as hosts:
        hosts[1].container.kill()
        hosts.append(cluster.start(HOSTS - 1))
        started = time.monotonic()
        leader, _, late = finish(hosts)
    assert time.monotonic() - started < DEADLINE
    assert (leader.exit_code, late.exit_code) == (2, 2), leader.log + late.log
    assert cluster.failure(0) == cluster.failure(HOSTS - 1)
    assert cluster.failure(0).startswith(f"AlgorithmError: host {cluster.names[1]}: it ended without a word")
