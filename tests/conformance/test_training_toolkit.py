"""sagemaker-training's Environment and our contract reader, on the same folders."""

import json
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.contract.opt_ml import PROJECT, OptMl, environment
from train import hyperparameters
from train.config import output_directory, read_job

READ_ENVIRONMENT = (sys.executable, "-m", "tests.conformance.read_environment")

FILE_MODE = {"TrainingInputMode": "File", "S3DistributionType": "FullyReplicated", "RecordWrapperType": "None"}


def toolkit_reads(base: Path, answer: Path) -> dict[str, Any]:
    subprocess.run([*READ_ENVIRONMENT, str(answer)], cwd=PROJECT, env=environment(base), timeout=60, check=True)
    found: dict[str, Any] = json.loads(answer.read_text())
    return found


def one_host(opt_ml: OptMl) -> None:
    """A training job on SageMaker."""
    opt_ml.set_hyperparameters(k="10", feature_dim="64")
    opt_ml.set_channels(train=FILE_MODE | {"ContentType": "application/x-recordio-protobuf"})
    group = {"instance_group_name": "homogeneousCluster", "instance_type": "ml.c5.xlarge", "hosts": ["algo-1"]}
    opt_ml.write_config(
        "resourceconfig.json",
        {
            "current_host": "algo-1",
            "current_instance_type": "ml.c5.xlarge",
            "current_group_name": "homogeneousCluster",
            "hosts": ["algo-1"],
            "instance_groups": [group],
            "network_interface_name": "eth0",
        },
    )


def several_hosts(opt_ml: OptMl) -> None:
    """The second of three hosts, all hyperparameters, and what others than the algorithm read."""
    opt_ml.set_hyperparameters(
        k="7",
        feature_dim="13",
        mini_batch_size="500",
        epochs="2",
        init_method="kmeans++",
        extra_center_factor="auto",
        half_life_time_size="0",
        local_lloyd_init_method='"random"',
        local_lloyd_max_iter="30",
        local_lloyd_num_trials="auto",
        local_lloyd_tol="0.001",
        refine_max_iter="5",
        seed="42",
        eval_metrics='["msd", "ssd"]',
        force_dense="true",
        _tuning_objective_metric="test:msd",
        sagemaker_region='"eu-west-1"',
        sagemaker_job_name='"kmeans-2026-11-23"',
    )
    opt_ml.set_channels(train=FILE_MODE | {"ContentType": "text/csv;label_size=0"}, test=FILE_MODE)
    opt_ml.write_config(
        "resourceconfig.json",
        {
            "current_host": "algo-2",
            "hosts": ["algo-1", "algo-2", "algo-3"],
            "network_interface_name": "ethwe",
        },
    )


def local_mode(opt_ml: OptMl) -> None:
    """What SDK 2 writes in local mode: hosts with random names, channels without a content type."""
    opt_ml.set_hyperparameters(k="3", feature_dim="2", epochs="1.0")
    opt_ml.set_channels(train={"TrainingInputMode": "File"})
    hosts = ["algo-1-x7k2p", "algo-2-x7k2p"]
    opt_ml.write_config(
        "resourceconfig.json",
        {
            "current_host": hosts[0],
            "hosts": hosts,
            "network_interface_name": "eth0",
            "current_instance_type": "local",
        },
    )


def local_test(opt_ml: OptMl) -> None:
    """The configuration that `make run` trains with."""
    shutil.copytree(PROJECT / "local_test" / "test_dir" / "input" / "config", opt_ml.config, dirs_exist_ok=True)


def decoded(texts: Mapping[str, str]) -> dict[str, Any]:
    """Our values of the hyperparameters that the job gives, as JSON has them."""
    values: dict[str, Any] = json.loads(json.dumps(dict(hyperparameters.parse(texts).values)))
    return {name: value for name, value in values.items() if name in texts}


@pytest.mark.parametrize("fill", [one_host, several_hosts, local_mode, local_test], ids=lambda fill: fill.__name__)
def test_environment_and_our_reader_agree(tmp_path: Path, fill: Any) -> None:
    opt_ml = OptMl(tmp_path / "ml")
    fill(opt_ml)
    toolkit = toolkit_reads(opt_ml.base, tmp_path / "answer.json")
    job = read_job(opt_ml.base)
    assert decoded(job.hyperparameters) == toolkit["hyperparameters"]
    assert {name: str(channel.directory) for name, channel in job.channels.items()} == toolkit["channels"]
    assert list(job.hosts.names) == toolkit["hosts"]
    assert job.hosts.current == toolkit["current_host"]
    assert job.hosts.names[0] == toolkit["leader"]
    assert str(job.model_directory) == toolkit["model"]
    assert str(output_directory(job.base)) == toolkit["output"]


def test_environment_reads_the_folder_of_a_finished_job(tmp_path: Path) -> None:
    """Files that the training leaves don't disturb later readers of the folder."""
    opt_ml = OptMl(tmp_path / "ml")
    one_host(opt_ml)
    opt_ml.set_hyperparameters(k="2")
    opt_ml.set_content_type("text/csv;label_size=0")
    opt_ml.put("points.csv", b"0,0\n0,1\n9,9\n9,8\n")
    finished = opt_ml.train()
    assert finished.exit_code == 0, finished.log + finished.errors
    toolkit = toolkit_reads(opt_ml.base, tmp_path / "answer.json")
    assert toolkit["hyperparameters"] == {"k": 2}
    assert (Path(toolkit["model"]) / "model_algo-1").is_file()
