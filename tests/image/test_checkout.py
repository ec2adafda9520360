"""Images built from checkouts with and without Windows line ends."""

import secrets
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import docker.errors
import pytest

pytestmark = [pytest.mark.image, pytest.mark.slow]

PROJECT = Path(__file__).parents[2]


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """A clone by Git for Windows with its default setting."""
    if not (PROJECT / ".git").exists():
        pytest.skip("needs a git checkout")
    command = ["git", "clone", "--quiet", "--config", "core.autocrlf=true", str(PROJECT), "clone"]
    subprocess.run(command, cwd=tmp_path, check=True, timeout=60)
    return tmp_path / "clone"


@pytest.fixture
def tag(engine: Any) -> Iterator[str]:
    """A name for an image that is removed after the test."""
    name = f"kmeans-checkout-{secrets.token_hex(4)}"
    yield name
    if engine.images.list(name):
        engine.images.remove(name, force=True)


def build(engine: Any, folder: Path, tag: str) -> None:
    engine.images.build(path=str(folder), dockerfile="container/Dockerfile", tag=tag, rm=True, forcerm=True)


def test_image_of_a_windows_clone_starts(engine: Any, clone: Path, tag: str) -> None:
    build(engine, clone, tag)
    assert b"docker run IMAGE train" in engine.containers.run(tag, ["--help"], network_mode="none", remove=True)


def test_windows_line_ends_fail_the_build(engine: Any, clone: Path, tag: str) -> None:
    serve = clone / "container" / "bin" / "serve"
    serve.write_bytes(serve.read_bytes().replace(b"\n", b"\r\n"))
    with pytest.raises(docker.errors.BuildError) as failure:
        build(engine, clone, tag)
    log = "".join(line.get("stream", "") for line in failure.value.build_log)
    assert "bin/serve\n" in log
    assert "have Windows line ends" in log
