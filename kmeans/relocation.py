"""Move centers from where they are least useful to where the loss is largest.

Lloyd's algorithm moves each center within its region. A center with one or two rows stays there, and one with two
clusters keeps both. A relocation removes a center and splits another cluster in two. The loss falls by the split's gain
(:mod:`kmeans.splitting`) and rises by at most the center's *utility*: the loss of its rows if they move to their second
nearest centers. If the gain is larger, no pass is needed to verify it. (B. Fritzke, "The k-means++ heuristic improved:
breathing k-means", 2020, defines utility and error. The separate two-means of the split is an addition: in many columns
a single row is not a useful center.)
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from kmeans.arrays import Float32, Float64, Int64, in_blocks
from kmeans.assignments import Assignments, cluster_ranges
from kmeans.collectives import Collectives
from kmeans.dataset import MemoryRows
from kmeans.distance import NearestCenters
from kmeans.splitting import Splits, split_clusters
from kmeans.threads import Interrupted, ThreadPool

# Maximum fraction of the centers that is relocated at once; number of candidates for a split, for each and in all.
FRACTION, CANDIDATES, MIN_CANDIDATES = 0.05, 2, 10

# Number of values (rows times columns) from which the splits of all candidates are found, with the same number of rows
# of each cluster within these limits.
VALUES, MIN_ROWS, MAX_ROWS = 2_000_000, 64, 4096

# Number of centers considered for each removed one: the nearest center of a removed one must stay.
LEAVING = 4

# A split must gain this multiple of the other center's utility: utilities assume that only one center is removed.
MIN_GAIN_RATIO = 1.1


class _Candidates(NamedTuple):
    """Rows of the clusters that may be split, sorted by cluster, on the leader.

    Attributes
    ----------
    points
        Rows, (m, d).
    groups
        Number of each row's cluster among the candidates, ascending, (m,).
    weights
        Number of rows that each row represents, (m,).
    """

    points: Float32
    groups: Int64
    weights: Float64


def relocate(
    assignments: Assignments,
    means: Float32,
    rows: MemoryRows,
    generator: Generator,
    *,
    pool: ThreadPool,
    hosts: Collectives,
) -> tuple[Float32, Int64]:
    """Return the ``means`` (k, d) with some centers relocated, and their numbers.

    Both are the same on all ``hosts``. The numbers are those of removed centers and of split ones; none if no
    relocation lowers the loss.

    Parameters
    ----------
    assignments
        The labels that the means belong to.
    rows
        The rows of the assignments.

    Raises
    ------
    Interrupted
        On all hosts, if a stop was requested on one.
    """
    clusters = len(means)
    weights = assignments.weights_of_members()
    nearest = second = np.empty(0, dtype=np.float32)
    is_interrupted = False
    try:
        with pool.interruptible():
            nearest, second = assignments.distances()
    except Interrupted:
        is_interrupted = True
    if hosts.any(is_interrupted):
        raise Interrupted
    costs = nearest if weights is None else weights * nearest
    losses = second - nearest if weights is None else weights * (second - nearest)
    stacked = np.concatenate(
        [_by_cluster(costs, assignments), _by_cluster(losses, assignments), assignments.local_counts]
    )
    errors, utilities, counts = np.split(hosts.sum(stacked), 3)
    most = max(1, int(FRACTION * clusters))
    candidates = np.argsort(-errors, kind="stable")[: max(CANDIDATES * most, MIN_CANDIDATES)]
    candidates = np.sort(candidates[(errors[candidates] > 0) & (counts[candidates] > 1)])
    nothing = np.empty(0, dtype=np.int64)
    if clusters < 2 or not len(candidates):
        return means, nothing
    drawn = _draw_rows(assignments, costs, candidates, errors, counts, rows=rows, generator=generator, hosts=hosts)
    chosen, jumped = np.empty((0, means.shape[1]), dtype=np.float32), nothing
    if hosts.rank == 0:
        with pool.interruptible_alone(hosts.size):
            splits = _split(drawn, len(candidates), generator, pool)
        pairs = _pairs(splits.gains, candidates, utilities, means, most)
        split, removed = candidates[pairs[:, 0]], pairs[:, 1]
        jumped = np.concatenate([split, removed])
        chosen = np.concatenate([splits.first[pairs[:, 0]], splits.second[pairs[:, 0]]]).astype(np.float32)
    jumped, chosen = hosts.broadcast(jumped), hosts.broadcast(chosen)
    relocated = means.copy()
    relocated[jumped] = chosen
    return relocated, np.sort(jumped)


def _by_cluster(values: NDArray[np.floating], assignments: Assignments) -> Float64:
    """Return the sum of the members' ``values`` (m,) of each cluster, float64 (k,)."""
    return np.bincount(assignments.labels, values, minlength=len(assignments.centers)).astype(np.float64)


def _draw_rows(
    assignments: Assignments,
    costs: NDArray[np.floating],
    candidates: Int64,
    errors: Float64,
    counts: Float64,
    *,
    rows: MemoryRows,
    generator: Generator,
    hosts: Collectives,
) -> _Candidates:
    """Draw rows of the candidates.

    All rows of a small cluster are used; of a large one, distant rows are preferred.
    """
    number = np.full(len(errors), -1)
    number[candidates] = np.arange(len(candidates))
    groups = number[assignments.labels]
    places = np.flatnonzero(groups >= 0)
    groups = groups[places]
    size = max(MIN_ROWS, min(MAX_ROWS, VALUES // rows.features // len(candidates)))
    chance = size * (0.5 / counts[candidates[groups]] + 0.5 * costs[places] / errors[candidates[groups]])
    numbers = rows.numbers_of(assignments.members[places])
    is_drawn = generator.random(rows.ordered)[numbers] < chance
    places, groups, numbers, chance = (array[is_drawn] for array in (places, groups, numbers, chance))
    own = assignments.weights_of_members()
    weights = (1.0 if own is None else own[places]) / np.minimum(chance, 1)
    notes = hosts.gather(np.stack([groups.astype(np.float64), numbers.astype(np.float64), weights], axis=1))
    points = hosts.gather(assignments.points_of(places))
    # Sorted by cluster and row number: the order that one host with all rows has.
    order = np.lexsort((notes[:, 1], notes[:, 0]))
    return _Candidates(points[order], notes[order, 0].astype(np.int64), notes[order, 2])


def _split(drawn: _Candidates, count: int, generator: Generator, pool: ThreadPool) -> Splits:
    """Return the best split found of each of ``count`` candidates."""
    ends = np.searchsorted(drawn.groups, np.arange(count), side="right")
    first = np.concatenate([[0], ends[:-1]])
    ranges = list(cluster_ranges(ends))
    generators = generator.spawn(len(ranges))

    def task(number: int) -> Splits:
        own = ranges[number]
        part = slice(first[own.start], ends[own.stop - 1])
        return split_clusters(
            drawn.points[part], drawn.weights[part], drawn.groups[part] - own.start, len(own), generators[number]
        )

    found = list(pool.map(task, range(len(ranges))))
    return Splits(*(np.concatenate(arrays) for arrays in zip(*found, strict=True)))


def _pairs(gains: Float64, candidates: Int64, utilities: Float64, centers: Float32, most: int) -> Int64:
    """Return the relocations, (m, 2): candidate to split, and center to remove.

    The center nearest to a removed one gets its rows, so it stays.
    """
    least_useful = np.argsort(utilities, kind="stable")[: LEAVING * most]
    nearest = least_useful[_nearest_other(centers[least_useful])]
    neighbors = dict(zip(least_useful.tolist(), nearest.tolist(), strict=True))
    going = iter(least_useful.tolist())
    touched: set[int] = set()
    left: set[int] = set()
    pairs: list[tuple[int, int]] = []
    for number in np.argsort(-gains, kind="stable").tolist():
        split = int(candidates[number])
        if split in touched:
            continue
        allowed = (each for each in going if each not in touched and each != split and neighbors[each] not in left)
        removed = next(allowed, None)
        if removed is None or len(pairs) == most or gains[number] <= MIN_GAIN_RATIO * utilities[removed]:
            break
        pairs.append((number, removed))
        touched |= {split, removed, neighbors[removed]}
        left.add(removed)
    return np.array(pairs, dtype=np.int64).reshape(-1, 2)


def _nearest_other(centers: Float32) -> Int64:
    """Return the nearest other center of each of the ``centers`` (k, d), (k,)."""
    nearest = NearestCenters(centers)
    moved, found = nearest.from_origin(nearest.centers), np.zeros(len(centers), dtype=np.int64)
    for first, block in in_blocks(moved, nearest.block_rows):
        table = block @ nearest.factor + nearest.norms
        rows = np.arange(len(block))
        table[rows, first + rows] = np.inf
        found[first : first + len(block)] = table.argmin(axis=1)
    return found
