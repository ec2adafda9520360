"""Time of adding up the sums of a pass over the hosts; runs in a container of the image on each host of a job.

``python3 allreduce.py algo-1,algo-2 10x784,100x784`` starts a rank on each of the hosts ``algo-1`` and ``algo-2``, as
``train`` does. The ranks add up sums of 10 and of 100 clusters with the class that a fit uses (``ClusterSums`` over
``MpiCollectives``), and the leader prints one line of JSON.
"""

from __future__ import annotations

import json
import os
import socket
import statistics
import sys
import time
from pathlib import Path

from kmeans.collectives import Collectives
from kmeans.sums import ClusterSums
from train.config import HostNames
from train.distributed.follower import Follower
from train.distributed.launcher import HydraLauncher, rank_environment
from train.distributed.leader import Leader
from train.distributed.messages import RANK_SOCKET, Message, encode
from train.distributed.rank import claim_streams
from train.distributed.supervisor import Supervisor

AS_RANK = "--rank"

# For each shape: exchanges that are not counted, then as many as take about SECONDS, within limits.
WARM_UP, SECONDS, FEWEST, MOST = 5, 0.8, 15, 400


def watch(names: str, shapes: str) -> int:
    """Run the supervisor of this container's rank, and return its exit code."""
    current = socket.gethostname()
    hosts = HostNames(current=current, names=tuple(sorted(names.split(","))))
    launcher = HydraLauncher([sys.executable, str(Path(__file__).resolve()), AS_RANK, shapes])
    role: type[Supervisor] = Leader if current == hosts.leader else Follower
    failure = role(hosts, launcher, print).run()
    if failure is not None:
        print(failure.reason, file=sys.stderr)
        return failure.exit_code
    return 0


def run_rank(shapes: str) -> int:
    """Run the rank, and return its exit code."""
    # MPI reads these variables at its start.
    os.environ.update(rank_environment("eth0"))
    from train.distributed.mpi import MpiCollectives  # noqa: PLC0415

    claim_streams()
    messages = socket.socket(fileno=RANK_SOCKET)
    messages.sendall(encode(Message("started", number=os.getpid())))
    hosts = MpiCollectives.join()
    messages.sendall(encode(Message("ready")))
    measured = {}
    for shape in shapes.split(","):
        clusters, columns = map(int, shape.split("x"))
        sums = ClusterSums.zero(clusters, columns)
        once = statistics.fmean(_seconds(sums, hosts, WARM_UP))
        # All hosts must do the same number of exchanges.
        once = hosts.total(once) / hosts.size
        seconds = _seconds(sums, hosts, min(MOST, max(FEWEST, round(SECONDS / once))))
        measured[shape] = {"mean": statistics.fmean(seconds), "median": statistics.median(seconds), "min": min(seconds)}
    if hosts.rank == 0:
        print(json.dumps(measured), flush=True)
    hosts.leave()
    messages.sendall(encode(Message("done")))
    return 0


def _seconds(sums: ClusterSums, hosts: Collectives, times: int) -> list[float]:
    """Return the seconds of each of ``times`` exchanges of ``sums``."""
    seconds = []
    for _ in range(times):
        started = time.perf_counter()
        sums.over(hosts)
        seconds.append(time.perf_counter() - started)
    return seconds


if __name__ == "__main__":
    sys.exit(run_rank(sys.argv[2]) if sys.argv[1] == AS_RANK else watch(*sys.argv[1:]))
