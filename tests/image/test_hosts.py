"""Training on several hosts: containers on one network, each with a separate /opt/ml and the same command."""

import contextlib
import re
import time
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.optimize import linear_sum_assignment

from ..pipes import Feeder, in_pieces
from .cluster import ENDED_BY_SIGKILL, ENDLESS, Cluster, finish, signal_rank, succeed, wait_for_training
from .containers import Containers, Job, Running, wait_until
from .samples import csv, digits, nearest, read_centers

pytestmark = [pytest.mark.image, pytest.mark.slow]

# Of one host, in place of 30 s and 300 s.
IMPATIENT = {"KMEANS_HEARTBEAT_TIMEOUT_SECONDS": "3", "KMEANS_HOSTS_TIMEOUT_SECONDS": "5"}


def let_pass(seconds: float) -> None:
    """Where the time itself is what is tested."""
    end = time.monotonic() + seconds
    wait_until(lambda: time.monotonic() >= end, "the time to pass", seconds + 60)


def ended_at(host: Running) -> float:
    host.container.reload()
    # Docker's nanoseconds are too many digits for Python.
    return datetime.fromisoformat(host.container.attrs["State"]["FinishedAt"][:26] + "+00:00").timestamp()


def mean_squared_distance(model: Path) -> float:
    _, distances = nearest(digits(), read_centers(model / "model_algo-1"))
    return float((distances**2).mean())


@pytest.mark.parametrize("cluster", [2, 4], indirect=True, ids=lambda count: f"{count} hosts")
def test_hosts_train_one_model_together(cluster: Cluster) -> None:
    hosts = cluster.start_all()
    finished = succeed(hosts)
    # scikit-learn's best of 20 starts reaches 648; all in one cluster is 1201.
    assert mean_squared_distance(cluster.model) < 700
    assert [sorted(path.name for path in job.model.iterdir()) for job in cluster.jobs] == [
        ["kmeans.json", "model_algo-1"],
        *[[]] * (len(hosts) - 1),
    ]
    assert not any(job.failure.exists() for job in cluster.jobs)
    written = max(path.stat().st_mtime for path in cluster.model.iterdir())
    assert all(ended_at(host) >= written for host in hosts), "no host ends before the model is there"
    # Each host's lines are in its log.
    assert ["wrote the model" in host.out for host in finished] == [True] + [False] * (len(hosts) - 1)
    assert [host.out.count("read channel train") for host in finished] == [1] * len(hosts)
    # Scores are those of the job, and said once; of the epochs each host says the job's figures, under its own name.
    assert ["#quality_metric" in host.out for host in finished] == [True] + [False] * (len(hosts) - 1)
    for name, host in zip(cluster.names, finished, strict=True):
        progress = re.findall(r"#progress_metric: host=(\S+), completed (\S+) % of epochs", host.out)
        assert progress == [(name, "100.0")]


@pytest.mark.parametrize(
    "options",
    [{}, {"refine_max_iter": "0", "mini_batch_size": "300", "seed": "1"}, {"init_method": "kmeans++", "seed": "2"}],
    ids=["default", "no refinement", "kmeans++"],
)
def test_replicated_rows_have_one_model_for_any_number_of_hosts(
    options: dict[str, str], tmp_path: Path, containers: Containers, engine: Any, network: str
) -> None:
    """Within the tolerance of docs/operations.md."""
    found, distances = [], []
    for count in (1, 2, 4):
        with contextlib.closing(Cluster(tmp_path, containers, engine, network, count)) as cluster:
            cluster.set_hyperparameters(k="10", feature_dim="64", **options)
            succeed(cluster.start_all())
            found.append(read_centers(cluster.model / "model_algo-1").astype(np.float64))
            distances.append(mean_squared_distance(cluster.model))
    assert distances[1:] == pytest.approx(distances[:1] * 2, rel=1e-5)
    one = found[0]
    spread = np.square(one - one.mean(axis=0)).sum(axis=1).mean()
    for centers in found[1:]:
        apart = np.square(one[:, None] - centers).sum(axis=2)
        assert apart[linear_sum_assignment(apart)].max() < (1e-4) ** 2 * spread


@pytest.mark.parametrize("cluster", [4], indirect=True)
def test_hosts_without_a_row_of_a_replicated_channel_take_part(cluster: Cluster) -> None:
    for job in cluster.jobs:
        job.data_file("digits.csv").write_text("0\n1\n10\n")
        test_rows = job.root / "input" / "data" / "test"
        test_rows.mkdir()
        (test_rows / "rows.csv").write_text("12\n")
        channel = {"TrainingInputMode": "File", "ContentType": "text/csv;label_size=0"}
        job.write_config("inputdataconfig", {"train": channel, "test": channel})
    cluster.set_hyperparameters(k="2", feature_dim="1")
    leader = succeed(cluster.start_all())[0]
    assert sorted(read_centers(cluster.model / "model_algo-1").ravel().tolist()) == [0.5, 10]
    assert "test msd <loss>=4.0" in leader.out


@pytest.mark.parametrize(
    ("late", "seconds"), [(0, 3), (1, 3), (1, 10)], ids=["the leader by 3 s", "a follower by 3 s", "a follower by 10 s"]
)
def test_a_host_may_start_late(cluster: Cluster, late: int, seconds: float) -> None:
    early = cluster.start(1 - late)
    let_pass(seconds)
    assert early.alive, early.log
    succeed([early, cluster.start(late)])
    assert mean_squared_distance(cluster.model) < 700


@pytest.mark.parametrize("interface", ["ethwe", "lo0", "eth0"])
def test_an_interface_that_is_not_there_is_not_used(cluster: Cluster, interface: str) -> None:
    """SDK 3 names one that no container has."""
    cluster.configure(network_interface_name=interface)
    succeed(cluster.start_all())
    assert mean_squared_distance(cluster.model) < 700


def test_works_as_root_without_restrictions_too(cluster: Cluster) -> None:
    """SageMaker's own start."""
    hosts = [
        cluster.start(number, user="", read_only=False, tmpfs={}, cap_drop=[], security_opt=[]) for number in (0, 1)
    ]
    succeed(hosts)


def test_one_host_loads_nothing_of_mpi(digits_job: Job) -> None:
    digits_job.set_hyperparameters(**ENDLESS)
    with digits_job.start(["train"]) as running:
        wait_for_training([running])
        _, maps = running.container.exec_run(["cat", "/proc/1/maps"])
        _, names = running.container.exec_run(["sh", "-c", "cat /proc/[0-9]*/comm"])
    assert b"numpy" in maps, "this is the process that trains"
    assert b"libmpi" not in maps
    assert b"mpi4py" not in maps
    assert b"hydra" not in names
    assert b"mpiexec" not in names


@pytest.mark.parametrize("guilty", [0, 1])
def test_a_users_mistake_on_one_host_is_the_failure_of_all(cluster: Cluster, guilty: int) -> None:
    cluster.jobs[guilty].data_file("more.csv").write_text(",".join(["seven"] * 64) + "\n")
    finished = finish(cluster.start_all())
    assert [host.exit_code for host in finished] == [1, 1], finished
    for number, host in enumerate(finished):
        reason = cluster.failure(number)
        assert reason.startswith(f"ClientError: host {cluster.names[guilty]}: ")
        assert "more.csv" in reason
        assert "'seven'" in reason
        assert host.out.rstrip().endswith(reason), "the reason is the last line"
        assert "Traceback" not in host.log
    assert not any(any(job.model.iterdir()) for job in cluster.jobs)


@pytest.mark.parametrize("cluster", [3], indirect=True)
@pytest.mark.parametrize("dead", [0, 2], ids=["the leader", "a follower"])
def test_a_host_that_dies_fails_the_others_at_once(cluster: Cluster, dead: int) -> None:
    cluster.set_hyperparameters(**ENDLESS)
    hosts = cluster.start_all()
    wait_for_training(hosts)
    hosts[dead].container.kill()
    started = time.monotonic()
    finished = finish(hosts)
    assert time.monotonic() - started < 20, "less than the time for a host that is silent"
    assert [host.exit_code for host in finished] == [ENDED_BY_SIGKILL if n == dead else 2 for n in range(3)]
    for number in {0, 1, 2} - {dead}:
        assert cluster.failure(number).startswith(
            f"AlgorithmError: host {cluster.names[dead]}: it ended without a word"
        )


@pytest.mark.parametrize("still", [0, 1], ids=["the leader", "a follower"])
def test_a_host_that_stands_still_fails_the_others_in_time(cluster: Cluster, still: int) -> None:
    cluster.set_hyperparameters(**ENDLESS)
    hosts = cluster.start_all(environment=IMPATIENT)
    wait_for_training(hosts)
    hosts[still].container.pause()
    try:
        other = hosts[1 - still].finish()
    finally:
        hosts[still].container.unpause()
    assert other.exit_code == 2, other.log
    reason = f"AlgorithmError: host {cluster.names[still]}: no sign of life came from it for 3 s."
    assert cluster.failure(1 - still).startswith(reason)
    assert hosts[still].finish().exit_code == 2, "it doesn't go on alone when it wakes up"
    assert cluster.failure(still).startswith(reason)


def test_a_short_standstill_does_no_harm(cluster: Cluster) -> None:
    cluster.set_hyperparameters(**ENDLESS)
    hosts = cluster.start_all()
    wait_for_training(hosts)
    hosts[1].container.pause()
    let_pass(3)  # less than the 30 s after which a host is lost
    hosts[1].container.unpause()
    epochs = hosts[0].log.count("throughput_metric")
    wait_until(lambda: hosts[0].log.count("throughput_metric") > epochs + 10, "the training to go on")
    hosts[0].stop()
    succeed(hosts)


@pytest.mark.parametrize("cluster", [3], indirect=True)
def test_a_host_that_is_cut_off_fails_the_others_in_time(cluster: Cluster) -> None:
    cluster.set_hyperparameters(**ENDLESS)
    hosts = cluster.start_all(environment=IMPATIENT)
    wait_for_training(hosts)
    cluster.cut_off(hosts[2])
    finished = finish(hosts)
    assert [host.exit_code for host in finished] == [2, 2, 2], finished
    for number in (0, 1):
        assert cluster.failure(number).startswith(f"AlgorithmError: host {cluster.names[2]}: no sign of life")
    assert cluster.failure(2).startswith(f"AlgorithmError: host {cluster.names[0]}: no sign of life")


@pytest.mark.parametrize("cluster", [3], indirect=True)
@pytest.mark.parametrize("missing", [0, 2], ids=["the leader", "a follower"])
def test_a_host_that_never_starts_fails_the_others_in_time(cluster: Cluster, missing: int) -> None:
    """Its name doesn't resolve, either."""
    present = sorted({0, 1, 2} - {missing})
    finished = finish([cluster.start(number, environment=IMPATIENT) for number in present])
    assert [host.exit_code for host in finished] == [2, 2], finished
    for number in present:
        assert cluster.failure(number).startswith(f"AlgorithmError: host {cluster.names[missing]}: ")


@pytest.mark.parametrize("killed", [0, 1], ids=["the leader", "a follower"])
def test_a_training_process_that_is_killed_fails_all(cluster: Cluster, killed: int) -> None:
    """As the system does it when memory runs out; the process that watches over it lives."""
    cluster.set_hyperparameters(**ENDLESS)
    hosts = cluster.start_all()
    wait_for_training(hosts)
    signal_rank(hosts[killed], "KILL")
    finished = finish(hosts)
    assert [host.exit_code for host in finished] == [2, 2], finished
    for number, host in enumerate(finished):
        reason = cluster.failure(number)
        assert reason.startswith(
            f"AlgorithmError: host {cluster.names[killed]}: the training process was killed by SIGKILL, perhaps"
        )
        assert host.out.rstrip().endswith(reason), "the reason is the last line"


@pytest.mark.parametrize("still", [0, 1], ids=["the leader", "a follower"])
def test_a_training_process_that_stands_still_fails_all_in_time(cluster: Cluster, still: int) -> None:
    cluster.set_hyperparameters(**ENDLESS)
    hosts = cluster.start_all(environment=IMPATIENT)
    wait_for_training(hosts)
    signal_rank(hosts[still], "STOP")
    finished = finish(hosts)
    assert [host.exit_code for host in finished] == [2, 2], finished
    for number in (0, 1):
        assert cluster.failure(number).startswith(
            f"AlgorithmError: host {cluster.names[still]}: no sign of life came from the training process for 3 s."
        )


@pytest.mark.parametrize(
    "cluster",
    [
        pytest.param(["algo-2", "algo-10", "algo-1"], id="in no order"),
        pytest.param(["Zeta-1", "alpha-2"], id="of both cases"),
        pytest.param(["node1.training.example", "node2.training.example"], id="with dots"),
        pytest.param(["a_b", "a-b"], id="with an underscore"),
        pytest.param(["12", "7"], id="of digits"),
    ],
    indirect=True,
)
def test_hosts_may_have_names_of_any_form(cluster: Cluster) -> None:
    succeed(cluster.start_all(environment={"KMEANS_HOSTS_TIMEOUT_SECONDS": "20"}))
    leader = cluster.jobs[cluster.names.index(min(cluster.names))]
    assert mean_squared_distance(leader.model) < 700


@pytest.mark.parametrize("idle", [0, 1], ids=["the leader", "a follower"])
def test_a_host_may_get_no_objects(cluster: Cluster, idle: int) -> None:
    cluster.set_channel(S3DistributionType="ShardedByS3Key")
    cluster.put(idle, None)
    succeed(cluster.start_all())
    assert mean_squared_distance(cluster.model) < 700


@pytest.mark.parametrize(
    ("distribution", "idle"),
    [
        pytest.param("FullyReplicated", None, id="replicated"),
        pytest.param("ShardedByS3Key", None, id="sharded"),
        pytest.param("ShardedByS3Key", 1, id="no objects for one host"),
    ],
)
def test_hosts_train_through_pipes(cluster: Cluster, distribution: str, idle: int | None) -> None:
    cluster.set_channel(TrainingInputMode="Pipe", S3DistributionType=distribution)
    cluster.set_hyperparameters(k="10", feature_dim="64", epochs="2", mini_batch_size="500")
    content = csv(digits())
    with contextlib.ExitStack() as stack:
        feeders = []
        for number, job in enumerate(cluster.jobs):
            pieces = [] if number == idle else in_pieces(content, 60_000)
            feeders.append(stack.enter_context(Feeder(job.root / "input" / "data" / "train", [pieces] * 2)))
        succeed(cluster.start_all())
    assert [feeder.ended for feeder in feeders] == [2, 2]
    assert mean_squared_distance(cluster.model) < 700


def test_sigterm_on_all_hosts_at_once_ends_the_job_with_a_model(cluster: Cluster) -> None:
    cluster.set_hyperparameters(**ENDLESS)
    hosts = cluster.start_all()
    wait_for_training(hosts)
    for host in hosts:
        host.container.kill("SIGTERM")
    succeed(hosts)
    assert read_centers(cluster.model / "model_algo-1").shape == (10, 64)


@pytest.mark.parametrize("stopped", [0, 1], ids=["the leader", "a follower"])
def test_sigterm_while_the_leader_shrinks_leaves_a_model(cluster: Cluster, stopped: int) -> None:
    cluster.set_hyperparameters(k="10", feature_dim="64", local_lloyd_num_trials="1000000")
    hosts = cluster.start_all()
    wait_until(lambda: "local kmeans attempt #0" in hosts[0].log or not hosts[0].alive, "the leader to shrink")
    hosts[stopped].container.kill("SIGTERM")
    succeed(hosts)
    assert mean_squared_distance(cluster.model) < 1201


@pytest.mark.parametrize("stopped", [0, 1], ids=["the leader", "a follower"])
@pytest.mark.parametrize("signal_name", ["SIGTERM", "SIGINT"])
def test_stop_signal_on_one_host_ends_all_with_a_model(cluster: Cluster, stopped: int, signal_name: str) -> None:
    cluster.set_hyperparameters(**ENDLESS)
    hosts = cluster.start_all()
    wait_for_training(hosts)
    hosts[stopped].container.kill(signal_name)
    succeed(hosts)
    assert read_centers(cluster.model / "model_algo-1").shape == (10, 64)


@pytest.mark.parametrize(("signal_name", "exit_code"), [("SIGTERM", 143), ("SIGINT", 130)])
def test_stop_signal_while_hosts_are_missing_ends_the_job(cluster: Cluster, signal_name: str, exit_code: int) -> None:
    host = cluster.start(0)
    wait_until(lambda: "waiting for" in host.log, "the leader to wait")
    host.container.kill(signal_name)
    finished = host.finish()
    assert finished.exit_code == exit_code, finished.log
    assert f"the job was stopped ({signal_name})" in cluster.failure(0)


@pytest.mark.parametrize("fails", [True, False])
def test_nothing_is_left_running(cluster: Cluster, fails: bool) -> None:
    """Not even where `train` isn't the container's first process, and can't count on the container's end."""
    if fails:
        cluster.jobs[1].data_file("more.csv").write_text("seven\n")
    script = "train; code=$?; for p in /proc/[0-9]*; do echo process: $(tr '\\0' ' ' < $p/cmdline); done; exit $code"
    for host in finish(cluster.start_all(["sh", "-c", script])):
        assert host.exit_code == int(fails), host.log
        processes = [line for line in host.out.splitlines() if line.startswith("process: ")]
        assert processes
        assert not [line for line in processes if "train --rank" in line or "hydra" in line or "mpiexec" in line]


def test_orphans_of_pid_1_are_seen_off(containers: Containers) -> None:
    """The rank is one, when its proxy has ended before it."""
    code = """
import os, pathlib, subprocess
from train.distributed.launcher import HydraLauncher
assert os.getpid() == 1
subprocess.run(["sh", "-c", "true & true &"], check=True)
HydraLauncher([]).wait(0)
left = [path.read_text() for path in pathlib.Path("/proc").glob("[0-9]*/stat") if path.parent.name != "1"]
assert not left, left
"""
    containers.output("python3", "-c", code)


def test_proxy_command_is_the_one_that_mpiexec_prints(containers: Containers) -> None:
    code = """
import socket, subprocess
from train.distributed.launcher import mpiexec_command, proxy_command
name = socket.gethostname()
mpiexec = subprocess.Popen(mpiexec_command([name, "algo-2"], ["true"]), stdout=subprocess.PIPE, text=True)
for rank in (0, 1):
    printed = mpiexec.stdout.readline().split()
    assert printed[0] == "HYDRA_LAUNCH:", printed
    assert printed[1].endswith("/hydra_pmi_proxy"), printed
    assert printed[2:] == proxy_command(name, 10000, rank)[1:], printed
mpiexec.kill()
"""
    containers.output("python3", "-c", code)


RANKS = """
import numpy as np
from train.distributed.mpi import MpiCollectives

hosts = MpiCollectives.join()
rank, size = hosts.rank, hosts.size
assert size == 3, size
generator = np.random.default_rng(rank)
for shape in ((), (1,), (7,), (100, 11), (1000, 785)):
    mine = np.asarray(generator.standard_normal(shape))
    total = hosts.sum(mine)
    assert total.shape == shape and total.dtype == np.float64
    # As bits: a difference in the last one counts too.
    seen = hosts.gather(total.reshape(1, -1).view(np.uint64))
    assert len(seen) == (size if rank == 0 else 0)
    assert (seen == seen[:1]).all(), "all hosts get the same sums"
assert (hosts.sum(np.arange(5.0)) == 3 * np.arange(5.0)).all()
assert (hosts.sum(np.arange(10.0)[::2]) == 3 * np.arange(10.0)[::2]).all(), "not contiguous"
assert hosts.total(rank + 0.5) == 4.5
assert [hosts.any(rank == 1), hosts.any(False)] == [True, False]
hosts.barrier()

points = np.full((rank + 2, 4), rank, dtype=np.float32)
sent = hosts.broadcast(points)
assert sent.shape == (2, 4) and (sent == 0).all() and sent.dtype == np.float32
assert hosts.broadcast(np.empty((0, 3), dtype=np.float32)).shape == (0, 3)

gathered = hosts.gather(points)
assert gathered[:, 0].tolist() == ([0] * 2 + [1] * 3 + [2] * 4 if rank == 0 else [])
assert gathered.shape[1] == 4 and gathered.dtype == np.float32
nothing = np.empty((0, 0), dtype=np.float32)
gathered = hosts.gather(points if rank == 1 else nothing)
assert gathered.shape == (3 if rank == 0 else 0, 4), "some hosts have no rows"
assert (gathered == 1).all()
assert hosts.gather(nothing).shape == (0, 0)
hosts.leave()
"""


def test_three_ranks_get_the_results_of_each_collective(containers: Containers) -> None:
    """Three ranks in one container, which think of each other as on other machines and so do the same."""
    finished = containers.run(
        ["/opt/kmeans/venv/bin/mpiexec", "-n", "3", "python3", "-c", RANKS],
        environment={"MPIR_CVAR_NOLOCAL": "1", "UCX_TLS": "tcp,self"},
    )
    assert finished.exit_code == 0, finished.log
