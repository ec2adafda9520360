"""Jobs that succeed: what they accept, what they leave behind, what they log."""

import gzip
import json
import math
import re
import stat
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from kmeans.formats import recordio

from .opt_ml import Finished, OptMl
from .samples import csv, digits, json_lines, labelled_csv, nearest, npy, read_centers

DIGITS = digits()
FEATURES = DIGITS.shape[1]
LINE = re.compile(r"\[\d{2}/\d{2}/\d{4} \d{2}:\d{2}:\d{2} (INFO|WARNING|ERROR) \d+\] \S.*")
METRICS = re.compile(r"^#metrics (\{.*\})\n\n", re.MULTILINE)


def run(job: OptMl) -> Finished:
    """Run a job that shall succeed."""
    finished = job.train()
    assert finished.exit_code == 0, finished.log + finished.errors
    assert finished.errors == ""
    assert not job.failure.exists()
    assert sorted(job.model_files()) == ["kmeans.json", "model_algo-1"]
    assert [line for line in METRICS.sub("", finished.log).splitlines() if not LINE.fullmatch(line)] == []
    return finished


@pytest.fixture(scope="module")
def scored(tmp_path_factory: pytest.TempPathFactory) -> tuple[OptMl, Finished]:
    """A finished job with a test channel; for reading only."""
    job = OptMl(tmp_path_factory.mktemp("scored") / "ml")
    job.set_hyperparameters(k="10", eval_metrics='["msd", "ssd"]')
    job.put("train.csv", csv(DIGITS[:1500]))
    job.put("test.csv", csv(DIGITS[1500:]), channel="test")
    job.set_channels(train={"ContentType": "text/csv"}, test={"ContentType": "text/csv;label_size=0"})
    job.write_config("resourceconfig.json", {"current_host": "algo-7", "hosts": ["algo-7"]})
    return job, run(job)


def test_built_in_regex_finds_each_metric_once(scored: tuple[OptMl, Finished]) -> None:
    log = scored[1].log
    for pattern in (
        r"#quality_metric: host=\S+, test msd <loss>=(\S+)",
        r"#quality_metric: host=\S+, test ssd <loss>=(\S+)",
        r"#quality_metric: host=\S+, train msd <loss>=(\S+)",
        r"#throughput_metric: host=\S+, train throughput=(\S+) records/second",
        r"#progress_metric: host=\S+, completed (\S+) %",
    ):
        found = re.findall(pattern, log)
        assert len(found) == 1, pattern
        assert math.isfinite(float(found[0])), pattern


def test_metrics_lines_are_json_as_of_the_built_in_image(scored: tuple[OptMl, Finished]) -> None:
    documents = [json.loads(text) for text in METRICS.findall(scored[1].log)]
    assert documents
    for document in documents:
        assert list(document) == ["StartTime", "EndTime", "Dimensions", "Metrics"]
        assert document["StartTime"] <= document["EndTime"]
        assert document["Dimensions"]["Host"] == "algo-7"
        assert document["Dimensions"]["Operation"] == "training"
        assert all(sorted(values) == ["count", "max", "min", "sum"] for values in document["Metrics"].values())
    epochs = [document for document in documents if document["Dimensions"].get("Meta") == "training_data_iter"]
    assert [document["Metrics"]["Total Records Seen"]["sum"] for document in epochs] == [1500]


def test_metrics_name_the_host(scored: tuple[OptMl, Finished]) -> None:
    assert set(re.findall(r"_metric: host=([^,]+),", scored[1].log)) == {"algo-7"}


def test_progress_ends_at_100_percent(scored: tuple[OptMl, Finished]) -> None:
    assert "completed 100.0 % of epochs" in scored[1].log


def test_scores_of_the_test_channel_equal_brute_force(scored: tuple[OptMl, Finished]) -> None:
    job, finished = scored
    squared = nearest(DIGITS[1500:], read_centers(job.model))[1] ** 2
    logged = {
        name: float(value)
        for name, value in re.findall(r"#quality_metric: host=\S+, test (\S+) <loss>=(\S+)", finished.log)
    }
    assert logged == pytest.approx({"msd": squared.mean(), "ssd": squared.sum()}, rel=1e-6)
    metrics = job.card["training"]["metrics"]
    assert {name: metrics[f"test:{name}"] for name in logged} == logged


def test_mean_squared_distance_equals_brute_force(scored: tuple[OptMl, Finished]) -> None:
    job, finished = scored
    logged = re.search(r"train mean_squared_distance <loss>=(\S+)", finished.log)
    assert logged
    squared = nearest(DIGITS[:1500], read_centers(job.model))[1] ** 2
    assert float(logged[1]) == pytest.approx(squared.mean(), rel=1e-6)


def test_only_the_wanted_scores_are_logged(job: OptMl) -> None:
    job.put("digits.csv", csv(DIGITS))
    job.put("digits.csv", csv(DIGITS), channel="test")
    finished = run(job)
    assert "test msd" in finished.log
    assert "test ssd" not in finished.log


def test_a_job_without_a_test_channel_says_so(job: OptMl) -> None:
    job.put("digits.csv", csv(DIGITS))
    assert any(line.endswith("] Test data is not provided.") for line in run(job).lines)


def test_the_model_is_as_good_as_those_of_others(trained: OptMl) -> None:
    # scikit-learn's best of 20 starts reaches 648; all in one cluster is 1201.
    assert (nearest(DIGITS, read_centers(trained.model))[1] ** 2).mean() < 700


def test_the_card_describes_the_model(trained: OptMl) -> None:
    card = trained.card
    labels, _ = nearest(DIGITS, read_centers(trained.model))
    assert card["counts"] == np.bincount(labels, minlength=10).tolist()
    assert sum(card["counts"]) == card["training"]["rows"] == len(DIGITS)
    assert (card["clusters"], card["features"]) == (10, FEATURES)
    assert card["training"]["hyperparameters"]["k"] == 10
    assert card["training"]["hyperparameters"]["init_method"] == "random"


@pytest.mark.parametrize("name", ["model_algo-1", "kmeans.json"])
def test_output_files_can_be_read_and_replaced_by_anyone(trained: OptMl, name: str) -> None:
    assert stat.S_IMODE((trained.model / name).stat().st_mode) == 0o666


def test_folders_that_the_job_makes_are_open_to_others(job: OptMl) -> None:
    job.model.rmdir()
    job.put("digits.csv", csv(DIGITS))
    run(job)
    assert stat.S_IMODE(job.model.stat().st_mode) == 0o777


def _single_file(content: bytes, content_type: str | None, **hyperparameters: str) -> Callable[[OptMl], None]:
    def arrange(job: OptMl) -> None:
        job.put("digits", content)
        job.set_content_type(content_type)
        job.set_hyperparameters(k="10", **hyperparameters)

    return arrange


def _several_files_in_sub_folders(job: OptMl) -> None:
    # Written in another order than that of their names.
    names = ["part-3/2.csv", "b/c/1.csv", "part-10", "a.csv"]
    edges = (0, 1, 500, 1100, len(DIGITS))
    slices = dict(zip(sorted(names, key=lambda name: Path(name).parts), pairwise(edges), strict=True))
    for name in names:
        first, last = slices[name]
        job.put(name, csv(DIGITS[first:last]))


def _hidden_and_empty_files(job: OptMl) -> None:
    job.put("digits.csv", csv(DIGITS))
    for name in (".amazon.manifest", ".hidden/part-1", "sub/.crc"):
        job.put(name, b"not,numbers\n")
    for name in ("_SUCCESS", "a/empty.csv", "z.csv"):
        job.put(name, b"")


def _no_final_line_break_and_then_another_file(job: OptMl) -> None:
    job.put("1.csv", csv(DIGITS[:900]).rstrip(b"\n"))
    job.put("2.csv", csv(DIGITS[900:]).rstrip(b"\n"))


def _other_channels(job: OptMl) -> None:
    job.put("digits.csv", csv(DIGITS))
    job.put("x.csv", b"no,numbers,here\n", channel="my.channel-1_0")
    job.put("x.py", b"print('code')\n", channel="code")
    job.set_channels(train={}, **{"my.channel-1_0": {"ContentType": "image/png"}, "code": {}})


def _manifests_beside_the_channels(job: OptMl) -> None:
    job.put("digits.csv", csv(DIGITS))
    (job.data / "train-manifest").write_text('[{"prefix": "s3://bucket/"}]')
    (job.data / "test-manifest").write_text('[{"prefix": "s3://bucket/"}]')


def _all_that_sagemaker_writes(job: OptMl) -> None:
    job.put("digits.csv", csv(DIGITS))
    job.set_channels(
        train={
            "ContentType": "text/csv",
            "TrainingInputMode": "FastFile",
            "S3DistributionType": "FullyReplicated",
            "RecordWrapperType": "None",
            "CompressionType": None,
        }
    )
    job.write_config(
        "resourceconfig.json",
        {
            "current_host": "algo-1",
            "current_instance_type": "ml.c5.xlarge",
            "current_group_name": "homogeneousCluster",
            "hosts": ["algo-1"],
            "instance_groups": [
                {"instance_group_name": "homogeneousCluster", "instance_type": "ml.c5.xlarge", "hosts": ["algo-1"]}
            ],
            "network_interface_name": "eth0",
            "topology": None,
        },
    )
    for name in ("init-config.json", "metric-definition-regex.json", "trainingjobconfig.json"):
        job.write_config(name, "not JSON, and of no concern")


def _hyperparameters_for_other_readers(job: OptMl) -> None:
    job.put("digits.csv", csv(DIGITS))
    job.set_hyperparameters(
        k="10",
        _tuning_objective_metric="test:msd",
        _kvstore="auto",
        sagemaker_program='"train.py"',
        sagemaker_region="eu-west-1",
        default_user_module_name="x",
    )


def _empty_configuration_files_of_a_local_run(job: OptMl) -> None:
    job.put("digits.csv", csv(DIGITS))
    job.write_config("resourceconfig.json", {})


@pytest.mark.parametrize(
    "arrange",
    [
        pytest.param(_single_file(recordio.encode(DIGITS), None), id="RecordIO without a content type"),
        pytest.param(
            _single_file(recordio.encode(DIGITS), "Application/X-RecordIO-Protobuf", feature_dim="64"),
            id="RecordIO in other letter case",
        ),
        pytest.param(_single_file(csv(DIGITS), None), id="CSV without a content type"),
        pytest.param(_single_file(csv(DIGITS), "text/csv"), id="CSV"),
        pytest.param(_single_file(csv(DIGITS), "text/csv; label_size=0"), id="CSV with label_size=0"),
        pytest.param(_single_file(csv(DIGITS), "text/csv", feature_dim="64"), id="CSV of feature_dim columns"),
        pytest.param(_single_file(csv(DIGITS), "text/csv;charset=utf-8;label_size=0"), id="CSV with two parameters"),
        pytest.param(_single_file(labelled_csv(DIGITS), "TEXT/CSV;label_size=1"), id="CSV with label_size=1"),
        pytest.param(
            _single_file(labelled_csv(DIGITS), "text/csv;label_size=1", feature_dim="64"),
            id="CSV with label_size=1 and feature_dim",
        ),
        pytest.param(
            _single_file(labelled_csv(DIGITS), "text/csv", feature_dim="64"),
            id="CSV with a label column that feature_dim tells",
        ),
        pytest.param(
            _single_file(labelled_csv(DIGITS), None, feature_dim="64"),
            id="CSV without a content type, with a label column that feature_dim tells",
        ),
        pytest.param(
            _single_file(b"\xef\xbb\xbf" + csv(DIGITS).replace(b"\n", b"\r\n") + b"\r\n", "text/csv"),
            id="CSV as Excel writes it",
        ),
        pytest.param(_single_file(gzip.compress(csv(DIGITS)), "text/csv"), id="CSV in gzip"),
        pytest.param(_single_file(json_lines(DIGITS), "application/jsonlines"), id="JSON Lines"),
        pytest.param(_single_file(json_lines(DIGITS), None), id="JSON Lines without a content type"),
        pytest.param(_single_file(npy(DIGITS), None), id="NPY without a content type"),
        pytest.param(_several_files_in_sub_folders, id="several files in sub-folders, sorted by path"),
        pytest.param(_no_final_line_break_and_then_another_file, id="files that don't end with a line break"),
        pytest.param(_hidden_and_empty_files, id="hidden and empty files beside the data"),
        pytest.param(_other_channels, id="channels of other names, one with dots"),
        pytest.param(_manifests_beside_the_channels, id="manifest files beside the channels"),
        pytest.param(_all_that_sagemaker_writes, id="all files and fields that SageMaker writes"),
        pytest.param(_hyperparameters_for_other_readers, id="hyperparameters that are meant for others"),
        pytest.param(_empty_configuration_files_of_a_local_run, id="an empty resource configuration"),
    ],
)
def test_the_same_rows_give_the_same_model_however_they_come(
    job: OptMl, trained: OptMl, arrange: Callable[[OptMl], None]
) -> None:
    arrange(job)
    run(job)
    assert job.model_files()["model_algo-1"] == trained.model_files()["model_algo-1"]


PLAIN = {
    "k": "8",
    "feature_dim": "64",
    "mini_batch_size": "500",
    "epochs": "2",
    "init_method": "kmeans++",
    "extra_center_factor": "4",
    "half_life_time_size": "1000",
    "local_lloyd_init_method": "random",
    "local_lloyd_max_iter": "20",
    "local_lloyd_num_trials": "3",
    "local_lloyd_tol": "0.001",
    "refine_max_iter": "5",
    "refine_sample_size": "900",
    "distance_metric": "euclidean",
    "checkpoint_interval": "30",
    "ignore_changed_checkpoint": "True",
    "seed": "3",
    "eval_metrics": '["msd", "ssd"]',
    "force_dense": "true",
}
QUOTED = {name: json.dumps(value) for name, value in PLAIN.items() if name != "eval_metrics"}


@pytest.mark.parametrize(
    "spelled",
    [
        pytest.param({}, id="as the documentation has it"),
        pytest.param(QUOTED, id="all in quotes"),
        pytest.param(
            {"k": "8.0", "mini_batch_size": "5e2", "seed": " 3 ", "local_lloyd_tol": "1e-3"}, id="numbers as floats"
        ),
        pytest.param({"k": 8, "local_lloyd_tol": 0.001, "force_dense": True}, id="JSON numbers and booleans"),
        pytest.param({"eval_metrics": ["msd", "ssd"]}, id="a JSON list instead of its text"),
        pytest.param({"eval_metrics": "['msd', 'ssd']", "force_dense": "True"}, id="as Python's str writes them"),
        pytest.param({"eval_metrics": "[msd, ssd]"}, id="as the Spark SDK writes them"),
        pytest.param(
            {"init_method": "k-means++", "local_lloyd_init_method": "Random", "distance_metric": "Euclidean"},
            id="names in any case",
        ),
    ],
)
def test_hyperparameters_may_be_spelled_in_any_clients_way(job: OptMl, spelled: dict[str, object]) -> None:
    job.put("digits.csv", csv(DIGITS))
    job.set_hyperparameters(**(PLAIN | spelled))
    run(job)
    assert job.card["training"]["hyperparameters"] == {
        "k": 8,
        "feature_dim": 64,
        "mini_batch_size": 500,
        "epochs": 2,
        "init_method": "kmeans++",
        "extra_center_factor": 4,
        "half_life_time_size": 1000,
        "local_lloyd_init_method": "random",
        "local_lloyd_max_iter": 20,
        "local_lloyd_num_trials": 3,
        "local_lloyd_tol": 0.001,
        "refine_max_iter": 5,
        "refine_sample_size": 900,
        "distance_metric": "euclidean",
        "checkpoint_interval": 30,
        "ignore_changed_checkpoint": True,
        "seed": 3,
        "eval_metrics": ["msd", "ssd"],
        "force_dense": True,
    }
    assert job.card["training"]["metrics"]["streaming_centers"] == 32


@pytest.mark.parametrize("seed", ["0", "1", "9223372036854775807"])
def test_a_seed_fixes_the_model_to_the_byte(job: OptMl, seed: str) -> None:
    job.put("digits.csv", csv(DIGITS))
    job.set_hyperparameters(k="10", seed=seed, refine_max_iter="0")
    run(job)
    first = job.model_files()
    run(job)
    assert job.model_files() == first


def test_another_seed_gives_another_model(job: OptMl, trained: OptMl) -> None:
    job.put("digits.csv", csv(DIGITS))
    job.set_hyperparameters(k="10", seed="1")
    run(job)
    assert job.model_files()["model_algo-1"] != trained.model_files()["model_algo-1"]


def test_a_second_job_replaces_the_model_of_the_first(job: OptMl, trained: OptMl) -> None:
    for name, content in trained.model_files().items():
        (job.model / name).write_bytes(content)
    job.put("digits.csv", csv(DIGITS))
    job.set_hyperparameters(k="5")
    run(job)
    assert job.card["clusters"] == 5
    assert read_centers(job.model).shape == (5, FEATURES)


@pytest.mark.parametrize(
    ("k", "rows"),
    [
        pytest.param(1, 50, id="one cluster"),
        pytest.param(20, 20, id="as many clusters as rows"),
        pytest.param(1, 1, id="one row"),
    ],
)
def test_extremes_of_k_are_allowed(job: OptMl, k: int, rows: int) -> None:
    job.put("digits.csv", csv(DIGITS[:rows]))
    job.set_hyperparameters(k=str(k))
    run(job)
    assert read_centers(job.model).shape == (k, FEATURES)
    assert sum(job.card["counts"]) == rows


def test_input_is_unchanged(job: OptMl) -> None:
    path = job.put("digits.csv", csv(DIGITS))
    before = (path.stat().st_mtime_ns, sorted(job.data.rglob("*")), sorted(job.config.rglob("*")))
    run(job)
    assert (path.stat().st_mtime_ns, sorted(job.data.rglob("*")), sorted(job.config.rglob("*"))) == before


def test_the_environment_may_name_the_folder_for_checkpoints(job: OptMl) -> None:
    job.put("digits.csv", csv(DIGITS))
    job.set_hyperparameters(k="5", checkpoint_interval="0")
    (job.base / "checkpoints").mkdir()
    folder = job.base / "elsewhere"
    finished = job.train(KMEANS_CHECKPOINT_DIR=str(folder))
    assert finished.exit_code == 0, finished.log + finished.errors
    assert list((job.base / "checkpoints").iterdir()) == []
    assert "going on from checkpoint" in job.train(KMEANS_CHECKPOINT_DIR=str(folder)).log
