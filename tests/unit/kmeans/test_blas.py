from __future__ import annotations

import pytest

from kmeans.blas import BlasThreads, of_numpy


class Library:
    def __init__(self, threads: int) -> None:
        self.threads = threads

    def get(self) -> int:
        return self.threads

    def set_to(self, threads: int) -> None:
        self.threads = threads


def test_blas_has_one_thread_inside_and_as_many_as_before_after() -> None:
    library = Library(4)
    blas = BlasThreads(library.get, library.set_to)
    with blas.one():
        assert library.threads == 1
    assert library.threads == 4


def test_blas_threads_come_back_after_an_error() -> None:
    library = Library(4)
    with pytest.raises(ZeroDivisionError), BlasThreads(library.get, library.set_to).one():
        _ = 1 / 0
    assert library.threads == 4


def test_blas_threads_come_back_when_the_last_user_leaves() -> None:
    library = Library(4)
    blas = BlasThreads(library.get, library.set_to)
    first, second = blas.one(), blas.one()
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    assert library.threads == 1
    second.__exit__(None, None, None)
    assert library.threads == 4


def test_blas_without_functions_is_left_alone() -> None:
    with BlasThreads(None, None).one():
        pass
    assert BlasThreads(None, None).threads() is None


def test_blas_of_numpy_is_limited() -> None:
    blas = of_numpy()
    if blas.threads() is None:
        pytest.skip("NumPy doesn't use OpenBLAS here")
    with blas.one():
        assert blas.threads() == 1
