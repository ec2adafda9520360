"""Sparse vectors to dense rows: k-means computes with dense rows."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from kmeans.arrays import Float32, Float64, Int64, as_float32
from kmeans.errors import DataError

# A few bytes can describe a sparse vector of any width. Limits of the size of the dense rows of a file or body: they
# leave room for honest data (a row of 10,000 columns with 50 values grows 60 times), and none for an attack.
MAX_GROWTH = 512
FREE_BYTES = 64 << 20


class DenseRows:
    """Converts sparse vectors to dense rows, as long as their size is in proportion to the bytes they came in.

    Parameters
    ----------
    source_bytes
        Size of the file or body that holds the vectors; of a stream, the bytes read so far. May be changed.
    features
        Width that each must have; None for any.
    wide
        Whether rows are float64, unless their values are float32.
    """

    def __init__(self, source_bytes: int, features: int | None, *, wide: bool = False) -> None:
        self._wide = wide
        self.source_bytes = source_bytes
        self._grown = 0
        self._features = features

    def fill(self, keys: Int64, values: NDArray[np.generic], width: int) -> Float32 | Float64:
        """Return the vector (width,) with ``values`` at the places ``keys`` and zeros elsewhere.

        Raises
        ------
        DataError
            If keys and values aren't equally many, a key lies outside of the width, or the width is not the expected
            one or out of proportion.
        """
        if self._features is not None and width != self._features:
            raise DataError(f"expected a sparse vector of width {self._features}, found {width}")
        if keys.ndim != 1 or keys.shape != values.shape:
            raise DataError(f"expected as many keys as values, found {keys.size} and {values.size}")
        if len(keys) and not 0 <= int(keys.min()) <= int(keys.max()) < width:
            raise DataError(f"expected keys from 0 to {width - 1}, found one outside")
        self._grown += 4 * width
        if width < 1 or self._grown > FREE_BYTES + MAX_GROWTH * self.source_bytes:
            raise DataError(
                f"found a sparse vector of width {width}: as dense rows, which k-means needs, the data would be more "
                f"than {MAX_GROWTH} times their size",
                hint="Reduce the number of columns.",
            )
        if self._wide and values.dtype != np.float32:
            wide = np.zeros(width)
            wide[keys] = values
            return wide
        vector = np.zeros(width, dtype=np.float32)
        vector[keys] = as_float32(values)
        return vector
