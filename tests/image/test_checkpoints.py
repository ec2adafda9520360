"""Checkpoints of jobs on several hosts: the leader's are those of all."""

import contextlib

import pytest
from docker.errors import APIError

from .cluster import Cluster, finish, succeed
from .containers import HARDENED, Job, Running, wait_until

pytestmark = [pytest.mark.image, pytest.mark.slow]

# Enough moves to stop the job in phase 3, and enough mini-batches for phase 1.
SETTINGS = {
    "k": "10",
    "feature_dim": "64",
    "epochs": "10",
    "mini_batch_size": "50",
    "local_lloyd_tol": "0",
    "refine_max_iter": "100",
    "checkpoint_interval": "0",
}

# The job may be over before the log with the awaited line is read: then it is started again.
ATTEMPTS = 10


def kill_all(hosts: list[Running], phase: str) -> bool:
    """Kill all hosts when a checkpoint of ``phase`` is there; return False if the job was over before."""
    leader, line = hosts[0], f"saved a checkpoint in phase {phase}"
    # Followed and not asked for again and again: phases take tenths of a second. It ends with the container.
    for piece in leader.container.logs(stream=True, follow=True):
        if line.encode() in piece:
            for host in hosts:
                with contextlib.suppress(APIError):  # that has ended, because another was killed or the job is over
                    host.container.kill()
    return all(host.exit_code for host in finish(hosts))


@pytest.mark.parametrize("phase", ["stream", "refine"])
@pytest.mark.parametrize("cluster", [2, 4], indirect=True, ids=lambda count: f"{count} hosts")
def test_hosts_killed_together_resume_to_the_same_model(cluster: Cluster, phase: str) -> None:
    cluster.set_hyperparameters(**SETTINGS)
    succeed(cluster.start_all())
    expected = (cluster.model / "model_algo-1").read_bytes()
    # Only the leader's folder comes back: on SageMaker all hosts' are copied to one place.
    checkpoints = cluster.jobs[0].root / "checkpoints"
    checkpoints.mkdir()
    checkpoints.chmod(0o777)
    (cluster.model / "model_algo-1").unlink()
    for _ in range(ATTEMPTS):
        if kill_all(cluster.start_all(), phase):
            break
        (cluster.model / "model_algo-1").unlink(missing_ok=True)
        for path in checkpoints.iterdir():
            path.unlink()
    else:
        pytest.fail(f"the job was over before it could be killed, {ATTEMPTS} times")
    finished = succeed(cluster.start_all())
    assert all("going on from checkpoint" in host.out for host in finished), finished
    assert (cluster.model / "model_algo-1").read_bytes() == expected


def test_stopped_hosts_resume_from_a_checkpoint_of_the_stop(cluster: Cluster) -> None:
    cluster.set_hyperparameters(**{**SETTINGS, "checkpoint_interval": "100000", "epochs": "1000000"})
    checkpoints = cluster.jobs[0].root / "checkpoints"
    checkpoints.mkdir()
    checkpoints.chmod(0o777)
    hosts = cluster.start_all()
    for host in hosts:
        wait_until(lambda host=host: "#throughput_metric" in host.log or not host.alive, "an epoch")  # type: ignore[misc]
    hosts[1].stop()
    assert "saved a checkpoint in phase stream" in succeed(hosts)[0].out
    cluster.set_hyperparameters(**{**SETTINGS, "checkpoint_interval": "100000", "epochs": "1000000"})
    hosts = cluster.start_all()
    wait_until(lambda: "going on from checkpoint 0 in phase stream" in hosts[1].log or not hosts[1].alive, "that line")
    hosts[0].stop()
    succeed(hosts)


def test_a_checkpoint_of_other_settings_is_the_failure_of_all(cluster: Cluster) -> None:
    checkpoints = cluster.jobs[0].root / "checkpoints"
    checkpoints.mkdir()
    checkpoints.chmod(0o777)
    cluster.set_hyperparameters(**SETTINGS)
    succeed(cluster.start_all())
    cluster.set_hyperparameters(**{**SETTINGS, "seed": "7"})
    finished = finish(cluster.start_all())
    assert [host.exit_code for host in finished] == [1, 1], finished
    for number in (0, 1):
        reason = cluster.failure(number)
        assert reason.startswith(f"ClientError: host {cluster.names[0]}: ")
        assert "seed was 0 and is 7" in reason


def test_full_disk_for_checkpoints_is_reported_and_job_continues(digits_job: Job) -> None:
    digits_job.set_hyperparameters(**SETTINGS)
    full = {**HARDENED["tmpfs"], "/opt/ml/checkpoints": "size=4k,mode=1777"}
    finished = digits_job.run(["train"], tmpfs=full)
    assert finished.exit_code == 0, finished.log
    assert "no checkpoint was saved, and the job goes on" in finished.out
    assert "no space is left on the device" in finished.out
    assert (digits_job.model / "model_algo-1").exists()


def test_torn_newest_checkpoint_costs_one_step(digits_job: Job) -> None:
    checkpoints = digits_job.root / "checkpoints"
    checkpoints.mkdir()
    checkpoints.chmod(0o777)
    digits_job.set_hyperparameters(**SETTINGS)
    assert digits_job.run(["train"]).exit_code == 0
    expected = (digits_job.model / "model_algo-1").read_bytes()
    newest = max(checkpoints.iterdir(), key=lambda path: path.stat().st_mtime_ns)
    newest.write_bytes(newest.read_bytes()[:-1000])
    finished = digits_job.run(["train"])
    assert finished.exit_code == 0, finished.log
    assert f"{newest.name} is torn, and is passed over" in finished.out
    assert "going on from checkpoint" in finished.out
    assert (digits_job.model / "model_algo-1").read_bytes() == expected
