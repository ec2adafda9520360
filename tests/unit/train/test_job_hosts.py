"""A job on several hosts, each a thread with its own /opt/ml."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kmeans import artifact
from kmeans.collectives import Collectives
from kmeans.errors import KMeansError, NoDataError
from kmeans.model import KMeansModel
from tests.pipes import Feeder
from tests.unit.kmeans.thread_hosts import ThreadHosts, on_all_hosts
from train.job import TrainingJob
from train.metrics import JobLog

MEMORY = 1 << 30

# The first share has no objects, the second an empty one.
SHARES = ("", None, "0\n1\n", "10\n11\n")
FILE, PIPE = {"TrainingInputMode": "File"}, {"TrainingInputMode": "Pipe"}
SHARDED = {"S3DistributionType": "ShardedByS3Key"}


class HostJob:
    """What one host finds, and what it says."""

    def __init__(self, base: Path, name: str, names: list[str]) -> None:
        self.base = base
        self.out = io.StringIO()
        self.stops_when_written = False
        self.data = base / "input" / "data"
        self.write("resourceconfig", {"current_host": name, "hosts": names})
        self.set(k="2", eval_metrics="[msd, ssd]")

    def write(self, name: str, content: object) -> None:
        path = self.base / "input" / "config" / f"{name}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(content))

    def set(self, **hyperparameters: str) -> None:
        self.write("hyperparameters", hyperparameters)

    def put(self, content: str | None, channel: str = "train") -> None:
        """Put an object into a channel; None stands for a folder without any."""
        folder = self.data / channel
        folder.mkdir(parents=True, exist_ok=True)
        if content is not None:
            (folder / "rows.csv").write_text(content)

    def run(self, hosts: Collectives) -> None:
        log = JobLog(stream=self.out)
        TrainingJob(
            self.base, 1, MEMORY, log, hosts, on_written=log.stop if self.stops_when_written else lambda: None
        ).run()


class Jobs:
    """The hosts of one job."""

    def __init__(self, folder: Path, size: int) -> None:
        names = [f"algo-{number}" for number in range(1, size + 1)]
        self.hosts = [HostJob(folder / name, name, names) for name in names]

    def configure(self, **channels: dict[str, str]) -> None:
        for host in self.hosts:
            host.write("inputdataconfig", channels)

    def set(self, **hyperparameters: str) -> None:
        for host in self.hosts:
            host.set(**hyperparameters)

    def outcomes(self) -> list[BaseException | None]:
        def work(hosts: ThreadHosts) -> None:
            self.hosts[hosts.rank].run(hosts)

        return on_all_hosts(len(self.hosts), work)

    def failure_of(self, rank: int) -> str:
        """Return how the job failed on the host of this number, for which the others would wait."""
        failures = []

        def work(hosts: ThreadHosts) -> None:
            try:
                self.hosts[hosts.rank].run(hosts)
            except KMeansError as error:
                failures.append((hosts.rank, str(error)))
                raise RuntimeError from None

        on_all_hosts(len(self.hosts), work)
        ((found, reason),) = failures
        assert found == rank
        return reason

    def model(self) -> KMeansModel:
        """Run the job to its end and return its model."""
        for outcome in self.outcomes():
            if outcome is not None:
                raise outcome
        return artifact.load(self.hosts[0].base / "model")


@pytest.fixture
def four(tmp_path: Path) -> Jobs:
    return Jobs(tmp_path, 4)


@pytest.fixture
def two(tmp_path: Path) -> Jobs:
    return Jobs(tmp_path, 2)


def centers(model: KMeansModel) -> list[float]:
    return sorted(model.centers.ravel().tolist())


@pytest.mark.parametrize("first", range(4))
def test_a_host_may_get_no_objects_of_a_sharded_channel(four: Jobs, first: int) -> None:
    four.configure(train=FILE | SHARDED)
    for host, share in zip(four.hosts, SHARES[first:] + SHARES[:first], strict=True):
        host.put(share)
    model = four.model()
    assert centers(model) == [0.5, 10.5]
    assert model.training["rows"] == 4
    idle = [host for host in four.hosts if "there are no objects of channel train for this host" in host.out.getvalue()]
    assert len(idle) == 2


@pytest.mark.parametrize("channel", ["train", "test"])
def test_a_channel_that_is_empty_on_all_hosts_is_named(two: Jobs, channel: str) -> None:
    two.configure(train=FILE | SHARDED, test=FILE | SHARDED)
    for host in two.hosts:
        host.put("0\n1\n", "train" if channel == "test" else "test")
        host.put(None, channel)
    for outcome in two.outcomes():
        assert isinstance(outcome, NoDataError)
        assert f"Channel {channel} has no data" in str(outcome)
    assert not (two.hosts[0].base / "model").exists()


def test_replicated_data_may_be_empty_on_no_host(two: Jobs) -> None:
    two.configure(train=FILE)
    two.hosts[0].put("0\n1\n")
    two.hosts[1].put(None)
    assert "Channel train has no data" in two.failure_of(1)


@pytest.mark.parametrize(
    ("distribution", "shares"),
    [
        pytest.param({}, ["2\n10.5\n"] * 2, id="replicated"),
        pytest.param(SHARDED, ["2\n", "10.5\n"], id="sharded"),
        pytest.param(SHARDED, ["2\n10.5\n", None], id="nothing for the second host"),
        pytest.param(SHARDED, [None, "2\n10.5\n"], id="nothing for the first host"),
    ],
)
def test_each_row_of_the_test_channel_is_scored_once(
    two: Jobs, distribution: dict[str, str], shares: list[str | None]
) -> None:
    two.configure(train=FILE, test=FILE | distribution)
    for host, share in zip(two.hosts, shares, strict=True):
        host.put("0\n1\n10\n11\n")
        host.put(share, "test")
    metrics = two.model().training["metrics"]
    assert (metrics["test:ssd"], metrics["test:msd"]) == (2.25, 1.125)


@pytest.fixture
def feeders() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def _feed(two: Jobs, feeders: ExitStack, streams: list[list[list[Any]]]) -> list[Feeder]:
    return [
        feeders.enter_context(Feeder(host.data / "train", share))
        for host, share in zip(two.hosts, streams, strict=True)
    ]


# One center, moved by the mean of each mini-batch, is in the end the mean of all rows that were streamed.
MEAN = {"k": "1", "extra_center_factor": "1", "refine_max_iter": "0", "epochs": "3"}


@pytest.mark.parametrize("has_checkpoints", [False, True])
@pytest.mark.parametrize("empty", range(3))
@pytest.mark.parametrize("idle", range(2))
def test_a_pipe_may_be_empty_on_one_host_in_any_epoch(
    two: Jobs, feeders: ExitStack, idle: int, empty: int, has_checkpoints: bool
) -> None:
    two.configure(train=PIPE | SHARDED)
    two.set(**MEAN, checkpoint_interval="0")
    if has_checkpoints:
        (two.hosts[0].base / "checkpoints").mkdir()
    shares: list[list[list[Any]]] = [[[b"%d\n%d\n" % (rank, 10 * epoch)] for epoch in range(3)] for rank in range(2)]
    shares[idle][empty] = []
    rows = np.loadtxt(io.BytesIO(b"".join(b"".join(pieces) for share in shares for pieces in share)))
    fed = _feed(two, feeders, shares)
    assert centers(two.model()) == [pytest.approx(rows.mean())]
    assert [feeder.ended for feeder in fed] == [3, 3]


def test_rows_of_a_later_epoch_have_the_columns_of_the_first(two: Jobs, feeders: ExitStack) -> None:
    two.configure(train=PIPE | SHARDED)
    two.set(**MEAN)
    _feed(two, feeders, [[[b"1\n"], []], [[], [b"1,2\n"]]])
    assert "expected 1 columns as in the first epoch, found 2" in two.failure_of(1)


def test_rows_dealt_out_in_another_way_go_on_from_the_centers(two: Jobs) -> None:
    two.configure(train=FILE | SHARDED)
    two.set(k="2", checkpoint_interval="0")
    (two.hosts[0].base / "checkpoints").mkdir()
    for shares in (["0\n1\n10\n", "11\n"], ["0\n11\n", "10\n1\n"]):
        for host, share in zip(two.hosts, shares, strict=True):
            host.put(share)
        assert centers(two.model()) == [0.5, 10.5]
    for host in two.hosts:
        assert "going on from checkpoint" in host.out.getvalue()
        assert "not to the same bits" in host.out.getvalue()


@pytest.mark.parametrize(
    ("hyperparameters", "channels", "difference"),
    [
        pytest.param({"k": "3"}, {}, "k is 2 there and 3 here", id="k"),
        pytest.param({"epochs": "2"}, {}, "epochs is 1 there and 2 here", id="another default"),
        pytest.param({}, {"test": None}, "channel test is replicated in File mode there and missing here", id="test"),
        pytest.param(
            {}, {"model": FILE}, "channel model is missing there and replicated in File mode here", id="model"
        ),
        pytest.param({}, {"train": PIPE}, "channel train is replicated in File mode there", id="mode"),
        pytest.param({}, {"train": FILE | SHARDED}, "and sharded in File mode here", id="distribution"),
    ],
)
def test_host_with_another_job_reports_the_differences(
    two: Jobs, hyperparameters: dict[str, str], channels: dict[str, dict[str, str] | None], difference: str
) -> None:
    given = {"train": FILE, "test": FILE}
    two.configure(**given)
    for host in two.hosts:
        host.put("0\n1\n10\n11\n")
        host.put("0\n1\n10\n11\n", "test")
    two.hosts[1].set(**{"k": "2", "eval_metrics": "[msd, ssd]", **hyperparameters})
    changed = {name: fields for name, fields in (given | channels).items() if fields is not None}
    two.hosts[1].write("inputdataconfig", changed)
    if "model" in changed:
        artifact.save(KMeansModel(np.zeros((2, 1), dtype=np.float32)), two.hosts[1].data / "model")
    reason = two.failure_of(1)
    assert reason.startswith("algo-1 was given another job: ")
    assert difference in reason


@pytest.mark.parametrize("stopped", [0, 1])
def test_stop_of_one_host_during_scoring_prevents_only_scores(two: Jobs, stopped: int) -> None:
    two.configure(train=FILE, test=FILE)
    for host in two.hosts:
        for channel in ("train", "test"):
            host.put("0\n1\n10\n11\n", channel)
    two.hosts[stopped].stops_when_written = True
    metrics = two.model().training["metrics"]
    assert metrics["train:mean_squared_distance"] == 0.25
    assert "test:msd" not in metrics
    assert "not scored: the job is to stop" in two.hosts[stopped].out.getvalue()
    assert "not scored: another host could not" in two.hosts[1 - stopped].out.getvalue()
