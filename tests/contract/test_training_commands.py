"""What the command `train` can do besides training."""

import pytest

from train.hyperparameters import TABLE

from .opt_ml import TRAIN, OptMl
from .samples import csv, digits

DIGITS = digits()[:100]
VALIDATE = (*TRAIN, "--validate")


def test_the_table_of_hyperparameters_is_printed(opt_ml: OptMl) -> None:
    finished = opt_ml.train([*TRAIN, "--hyperparameters"])
    assert (finished.exit_code, finished.errors) == (0, "")
    assert all(f"| `{row.name}` |" in finished.log for row in TABLE)


def test_an_unknown_argument_is_refused(opt_ml: OptMl) -> None:
    finished = opt_ml.train([*TRAIN, "--nonsense"])
    assert finished.exit_code == 2
    assert "unrecognized arguments" in finished.errors
    assert not opt_ml.failure.exists()


def test_a_valid_job_is_described_and_not_trained(job: OptMl) -> None:
    job.put("digits.csv", csv(DIGITS))
    job.put("digits.csv", csv(DIGITS[:40]), channel="test")
    finished = job.train(VALIDATE)
    assert (finished.exit_code, finished.errors) == (0, "")
    assert "100 rows x 64 columns" in finished.log
    assert "40 rows x 64 columns" in finished.log
    assert finished.lines[-1] == "The job is valid."
    assert list(job.model.iterdir()) == []
    assert not job.failure.exists()


def test_mistakes_of_all_kinds_are_listed_at_once(job: OptMl) -> None:
    job.set_hyperparameters(k="ten", epoch="3")
    job.put("1.csv", csv(DIGITS))
    job.put("2.csv", b"1,2,x\n")
    job.put("3.csv", b"")
    job.put("4.csv", csv(DIGITS[:, :60]))
    job.put("test.csv", csv(DIGITS[:, :60]), channel="test")
    finished = job.train(VALIDATE)
    assert (finished.exit_code, finished.errors) == (1, "")
    for cause in ("'ten'", "'epochs'", "2.csv, row 1, column 3", "4.csv", "test.csv"):
        assert cause in finished.log
    assert list(job.model.iterdir()) == []
    assert not job.failure.exists()


@pytest.mark.parametrize("name", ["hyperparameters.json", "inputdataconfig.json", "resourceconfig.json"])
def test_a_broken_configuration_file_is_listed(job: OptMl, name: str) -> None:
    job.put("digits.csv", csv(DIGITS))
    job.write_config(name, "{")
    finished = job.train(VALIDATE)
    assert (finished.exit_code, finished.errors) == (1, "")
    assert str(job.config / name) in finished.log


def test_wrong_content_type_of_many_files_is_one_mistake(job: OptMl) -> None:
    for i in range(5):
        job.put(f"{i}.csv", csv(DIGITS))
    job.set_content_type("image/png")
    finished = job.train(VALIDATE)
    assert finished.exit_code == 1
    assert finished.log.count("image/png") == 1
