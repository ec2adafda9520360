"""A fresh /opt/ml for each test, and a trained model with a server that tests share."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from kmeans.formats import recordio

from .opt_ml import OptMl
from .samples import digits
from .server import Server, serving


@pytest.fixture
def opt_ml(tmp_path: Path) -> OptMl:
    """A job without configuration, data or hyperparameters."""
    return OptMl(tmp_path / "ml")


@pytest.fixture
def job(opt_ml: OptMl) -> OptMl:
    """A job that has all it needs but data: k=10."""
    opt_ml.set_hyperparameters(k="10")
    return opt_ml


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> OptMl:
    """A finished job on the digits, k=10, from one RecordIO file. For reading only."""
    opt_ml = OptMl(tmp_path_factory.mktemp("trained") / "ml")
    opt_ml.set_hyperparameters(k="10")
    opt_ml.put("digits.pbr", recordio.encode(digits()))
    opt_ml.set_content_type("application/x-recordio-protobuf")
    finished = opt_ml.train()
    assert finished.exit_code == 0, finished.log
    return opt_ml


@pytest.fixture(scope="module")
def server(trained: OptMl, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server of the trained model that tests share, so none of them may harm it."""
    output = tmp_path_factory.mktemp("server") / "output"
    with serving(trained.base, output, SAGEMAKER_MODEL_SERVER_WORKERS="2") as server:
        yield server
