"""The SDK 3's ModelTrainer in local mode, unmodified, trains on two hosts with the image under test.

It needs neither an account nor an S3: data and model are folders of this machine. The SDK has an
separate environment (tests/conformance/sdk3), in which a user's program runs.
"""

import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.contract.opt_ml import PROJECT
from tests.contract.samples import csv, digits, nearest

from .laptop import Laptop, Notebook

pytestmark = pytest.mark.image

PROGRAM = PROJECT / "tests" / "conformance" / "sdk3" / "model_trainer.py"
# No server listens there.
NOWHERE = "http://127.0.0.1:9"


@pytest.fixture(scope="module")
def notebook(
    engine: Any, image: Any, compose: Path, sdk3_python: str, tmp_path_factory: pytest.TempPathFactory
) -> Notebook:
    """A job of two hosts that is over."""
    folder = tmp_path_factory.mktemp("trainer")
    (folder / "train").mkdir()
    (folder / "train" / "digits.csv").write_bytes(csv(digits()))
    done = Laptop(engine, compose, NOWHERE).run([sdk3_python, str(PROGRAM), str(folder), image.id, "2"], folder)
    shutil.copy(folder / "compressed_artifacts" / "model.tar.gz", folder)
    return done


def test_two_hosts_train_one_model(notebook: Notebook) -> None:
    """They get no command, and the name of an interface that no container has."""
    assert notebook.centers.shape == (10, 64)
    _, distances = nearest(digits(), notebook.centers)
    # scikit-learn's best of 20 starts reaches 648; all in one cluster is 1201.
    assert float((distances**2).mean()) < 700


def test_each_host_says_its_own(notebook: Notebook) -> None:
    said = {
        host: re.findall(rf"^\W*(?:\[2K)?{host}-1 +\| \[[^]]+\] (.+)$", notebook.log, re.MULTILINE)
        for host in ("algo-1", "algo-2")
    }
    for host, lines in said.items():
        assert "Docker entrypoint called with argument(s): train" in lines, notebook.log
        assert [line for line in lines if re.match(r"read channel train: 89[89] rows x 64 columns", line)], host
    assert "host algo-2 is there" in said["algo-1"]
    assert "going to algo-1, port 10011" in said["algo-2"]
    wrote = {host: [line for line in lines if line.startswith("wrote the model to")] for host, lines in said.items()}
    assert [len(wrote["algo-1"]), len(wrote["algo-2"])] == [1, 0]
