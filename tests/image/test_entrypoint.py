"""The first program of the image: what it starts, and what it says to a command it doesn't know."""

import pytest

from .containers import OFFLINE, Containers, Job

pytestmark = pytest.mark.image


def test_unknown_command_is_refused_in_one_sentence(containers: Containers) -> None:
    finished = containers.run(["predict", "now"], **OFFLINE)
    assert finished.exit_code == 2
    assert finished.out == ""
    assert finished.err.startswith("Unknown command 'predict': use train, validate, serve,")
    assert finished.err.count("\n") == 1


@pytest.mark.parametrize("flag", ["--help", "-h", "help"])
def test_help_shows_how_to_run_the_image(containers: Containers, flag: str) -> None:
    finished = containers.run([flag], **OFFLINE)
    assert (finished.exit_code, finished.err) == (0, "")
    for example in ("docker run --rm -v", "IMAGE train", "IMAGE serve", "curl"):
        assert example in finished.out


@pytest.mark.parametrize(
    "options",
    [
        pytest.param({"command": None}, id="nothing"),
        pytest.param({"command": None, "entrypoint": ["/opt/kmeans/bin/entrypoint"]}, id="entry point without command"),
        pytest.param({"command": ["train"]}, id="train"),
        pytest.param({"command": None, "entrypoint": ["train"]}, id="train as the entry point"),
    ],
)
def test_trains(digits_job: Job, options: dict[str, list[str] | None]) -> None:
    finished = digits_job.run(**options)
    assert finished.exit_code == 0, finished.log
    assert (digits_job.model / "model_algo-1").is_file()


@pytest.mark.parametrize(
    "command",
    [
        ["bash", "-c", "echo here"],
        ["sh", "-c", "echo here"],
        ["python3", "-c", "print('here')"],
        ["/bin/echo", "here"],
    ],
)
def test_lets_a_person_look_around(containers: Containers, command: list[str]) -> None:
    assert containers.output(*command) == "here\n"
