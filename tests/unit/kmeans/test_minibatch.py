from __future__ import annotations

import numpy as np
import pytest

from kmeans.arrays import Float32
from kmeans.minibatch import MiniBatchCenters
from kmeans.threads import ThreadPool
from tests.unit.kmeans import oracle


def rows(**counts: int) -> Float32:
    """Return rows of one column; ``at_7=3`` stands for three times 7."""
    return np.repeat([float(name[3:]) for name in counts], list(counts.values())).astype(np.float32)[:, None]


def three_centers(half_life: int = 0) -> MiniBatchCenters:
    """Return centers at 0, 100 and 200 that have absorbed 100, 150 and 450 rows."""
    streaming = MiniBatchCenters(np.array([[0], [100], [200]], dtype=np.float32), half_life)
    streaming.update(rows(at_0=100, at_100=150, at_200=450))
    assert streaming.centers.ravel().tolist() == [0, 100, 200]
    return streaming


def test_centers_move_by_the_documented_learning_rates() -> None:
    streaming = three_centers()
    streaming.update(rows(at_1=25, at_101=40, at_201=5))
    moved = streaming.centers.ravel() - [0, 100, 200]
    assert moved == pytest.approx([25 / 125, 40 / 190, 5 / 455], rel=1e-9)
    assert streaming.weights.tolist() == [125, 190, 455]


def test_the_order_of_a_batch_does_not_matter() -> None:
    streaming, shuffled = three_centers(), three_centers()
    batch = rows(at_1=25, at_101=40, at_201=5)
    streaming.update(batch)
    shuffled.update(np.random.default_rng(0).permutation(batch))
    np.testing.assert_allclose(streaming.centers, shuffled.centers, rtol=1e-7)


def test_a_half_life_halves_the_weights() -> None:
    streaming = three_centers(half_life=700)
    assert streaming.weights.tolist() == [100, 150, 450]
    streaming.update(rows(at_1=700))
    assert streaming.weights == pytest.approx([50 + 700, 75, 225])
    assert streaming.centers.ravel() == pytest.approx([700 / 750, 100, 200])


def test_a_short_half_life_forgets_all_but_the_last_batch() -> None:
    streaming = three_centers(half_life=1)
    streaming.update(rows(at_9=80))
    assert streaming.centers[0, 0] == pytest.approx(9)


def test_one_batch_moves_each_center_to_the_mean_of_its_rows() -> None:
    points, centers = oracle.blobs(1)
    streaming = MiniBatchCenters(centers)
    streaming.update(points)
    labels, _ = oracle.nearest(points, centers)
    expected = [points[labels == j].mean(axis=0, dtype=np.float64) for j in range(len(centers))]
    np.testing.assert_allclose(streaming.centers, expected, rtol=1e-5)
    assert streaming.weights.tolist() == np.bincount(labels).tolist()


def test_many_batches_of_well_separated_rows_end_at_their_mean() -> None:
    points, centers = oracle.blobs(2, spread=100)
    streaming = MiniBatchCenters(centers)
    for batch in np.array_split(points, 13):
        streaming.update(batch)
    labels, _ = oracle.nearest(points, centers)
    expected = [points[labels == j].mean(axis=0, dtype=np.float64) for j in range(len(centers))]
    np.testing.assert_allclose(streaming.centers, expected, rtol=1e-5)


def test_the_distance_is_that_to_the_centers_before_they_moved() -> None:
    streaming = MiniBatchCenters(np.array([[0], [10]], dtype=np.float32))
    assert streaming.update(rows(at_1=1, at_13=1)) == pytest.approx((1 + 9) / 2)
    assert streaming.update(rows(at_1=1, at_13=1)) == pytest.approx(0, abs=1e-5)


def test_a_center_without_rows_stays_where_it_is() -> None:
    streaming = MiniBatchCenters(np.array([[0], [10], [1000]], dtype=np.float32))
    streaming.update(rows(at_2=3, at_12=1))
    assert streaming.centers.ravel().tolist() == [2, 12, 1000]
    assert streaming.weights.tolist() == [3, 1, 0]


def test_the_first_centers_are_not_changed() -> None:
    first = np.array([[0], [10]], dtype=np.float32)
    MiniBatchCenters(first).update(rows(at_2=3, at_12=1))
    assert first.tolist() == [[0], [10]]


def test_weights_count_on_beyond_float32() -> None:
    streaming = MiniBatchCenters(np.zeros((1, 1), dtype=np.float32))
    streaming.weights[:] = 2.0**24
    streaming.update(rows(at_1=1))
    assert streaming.weights.tolist() == [2**24 + 1]


def test_threads_do_not_change_a_bit() -> None:
    points, centers = oracle.blobs(3, n=9000)
    alone = MiniBatchCenters(centers)
    alone.update(points)
    with ThreadPool(3) as pool:
        together = MiniBatchCenters(centers, pool=pool)
        together.update(points)
    assert alone.centers.tobytes() == together.centers.tobytes()
