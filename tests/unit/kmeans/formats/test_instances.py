from __future__ import annotations

import numpy as np
import pytest

from kmeans.formats.instances import Predictions


def test_predictions_are_given_row_by_row_as_python_s_own_types() -> None:
    rows = Predictions(np.array([1.0, 2.0]), np.array([0.5, 0.25]), [{"id": 7}, {}]).rows()
    assert rows == [(1.0, 0.5, {"id": 7}), (2.0, 0.25, {})]
    assert [type(label) for label, _, _ in rows] == [float, float]
    whole = Predictions(np.array([1, 2]), np.array([0.5, 0.25])).rows()
    assert whole == [(1, 0.5, {}), (2, 0.25, {})]
    assert [type(label) for label, _, _ in whole] == [int, int]


@pytest.mark.parametrize(("labels", "distances", "attached"), [(2, 3, None), (2, 2, [{}])])
def test_predictions_of_several_lengths_are_a_defect(
    labels: int, distances: int, attached: list[dict[str, object]] | None
) -> None:
    with pytest.raises(ValueError, match=r"shorter|longer"):
        Predictions(np.zeros(labels), np.zeros(distances), attached).rows()
