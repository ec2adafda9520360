"""A person who runs build_and_push.sh: a project in git, a home, a PATH, keys; none of this machine's own settings."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import docker.errors

PROJECT = Path(__file__).parents[2]
REGION = "eu-west-1"
DEADLINE = 300
TOOLS = (
    "bash",
    "cat",
    "date",
    "dirname",
    "docker",
    "env",
    "git",
    "mktemp",
    "mv",
    "rm",
    "sed",
    "sh",
    "tee",
    "tr",
    "uname",
)

# Built at once; the script is the same for it.
DOCKERFILE = """\
ARG BASE_IMAGE=debian:trixie-slim
FROM ${BASE_IMAGE}
COPY kmeans /kmeans
ENTRYPOINT ["/bin/true"]
ARG VERSION
ARG REVISION
ARG CREATED
LABEL org.opencontainers.image.version="${VERSION}" org.opencontainers.image.revision="${REVISION}" \\
      org.opencontainers.image.created="${CREATED}"
"""


@dataclass(frozen=True)
class Outcome:
    """What a run came to."""

    code: int
    out: str
    err: str

    @property
    def uris(self) -> list[str]:
        assert self.code == 0, self.err
        return self.out.splitlines()

    def assert_failed(self, *parts: str) -> None:
        """One plain sentence at the end, with these parts, and nothing that looks like a result."""
        assert self.code == 1, self.err
        assert self.out == ""
        last = self.err.splitlines()[-1]
        assert last.startswith("error: ")
        assert last.endswith(".")
        for part in parts:
            assert part in last


class Person:
    """A person with a project in ``top``, who pushes to ``repository`` at ``host``; ``aws`` is where AWS answers."""

    def __init__(self, top: Path, aws: str, host: str, repository: str) -> None:
        self.project, self.bin, self.home = top / "project", top / "bin", top / "home"
        self.host, self.repository, self.image = host, repository, f"{repository}-local:latest"
        self.uri = f"{host}/{repository}"
        self.bin.mkdir()
        for tool in TOOLS:
            found = shutil.which(tool)
            assert found, f"{tool} is needed"
            (self.bin / tool).symlink_to(found)
        (self.bin / "aws").symlink_to(Path(sys.executable).with_name("aws"))
        self._give_plugins()
        self.environment = {
            "PATH": str(self.bin),
            "HOME": str(self.home),
            "TMPDIR": str(top),
            "LC_ALL": "C",
            "AWS_REGION": REGION,
            "AWS_ACCESS_KEY_ID": "testing",
            "AWS_SECRET_ACCESS_KEY": "testing",
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_MAX_ATTEMPTS": "1",
            "AWS_ENDPOINT_URL": aws,
            "KMEANS_REGISTRY": host,
            "GIT_CONFIG_NOSYSTEM": "1",
            **{name: os.environ[name] for name in ("DOCKER_HOST",) if name in os.environ},
        }
        self._write_project()

    def _give_plugins(self) -> None:
        """Docker looks for buildx in the home."""
        asked = subprocess.run(
            ["docker", "info", "--format", "{{json .ClientInfo.Plugins}}"], capture_output=True, timeout=60, check=True
        )
        folder = self.home / ".docker" / "cli-plugins"
        folder.mkdir(parents=True)
        for plugin in json.loads(asked.stdout) or ():
            (folder / f"docker-{plugin['Name']}").symlink_to(plugin["Path"])

    @property
    def has_buildx(self) -> bool:
        return (self.home / ".docker" / "cli-plugins" / "docker-buildx").exists()

    def lose_buildx(self) -> None:
        (self.home / ".docker" / "cli-plugins" / "docker-buildx").unlink(missing_ok=True)

    def _write_project(self) -> None:
        for folder in ("container", "kmeans"):
            (self.project / folder).mkdir(parents=True)
        shutil.copy(PROJECT / "build_and_push.sh", self.project)
        shutil.copy(PROJECT / "container" / "sbom.py", self.project / "container")
        (self.project / "container" / "Dockerfile").write_text(DOCKERFILE)
        (self.project / "kmeans" / "mark").write_text(self.repository)  # no two tests make the same image
        self.release("1.2.3")

    def take_the_project(self) -> str:
        """Take all that the real image is made of instead; return its revision."""
        shutil.rmtree(self.project)
        self.project.mkdir()
        for name in ("build_and_push.sh", ".dockerignore", "LICENSE"):
            shutil.copy(PROJECT / name, self.project)
        for name in ("container", "kmeans", "train", "serve"):
            shutil.copytree(PROJECT / name, self.project / name, ignore=shutil.ignore_patterns("__pycache__"))
        return self.commit()

    def release(self, version: str) -> str:
        """Write and commit a version; return its revision."""
        (self.project / "kmeans" / "__init__.py").write_text(f'__version__ = "{version}"\n')
        return self.commit()

    def commit(self) -> str:
        git = ["git", "-c", "user.name=A", "-c", "user.email=a@example.org", "-c", "init.defaultBranch=main"]
        for arguments in (["init", "--quiet"], ["add", "."], ["commit", "--quiet", "-m", "work"]):
            subprocess.run([*git, *arguments], cwd=self.project, env=self.environment, check=True, timeout=60)
        return self.commit_id()

    def commit_id(self) -> str:
        asked = ["git", "rev-parse", "--short=12", "HEAD"]
        told = subprocess.run(
            asked, cwd=self.project, env=self.environment, check=True, capture_output=True, timeout=60
        )
        return told.stdout.decode().strip()

    def version(self) -> str:
        (line,) = re.findall('__version__ = "(.*)"', (self.project / "kmeans" / "__init__.py").read_text())
        return str(line)

    def push(self, *options: str) -> Outcome:
        """Run the script as it is, from outside its folder."""
        command = [str(self.project / "build_and_push.sh"), "--image", self.image, *options, self.repository]
        done = subprocess.run(
            command, cwd=self.home, env=self.environment, check=False, capture_output=True, text=True, timeout=DEADLINE
        )
        return Outcome(done.returncode, done.stdout, done.stderr)

    def docker(self, *arguments: str) -> str:
        """Run docker with the log-in that the push has left."""
        done = subprocess.run(
            ["docker", *arguments],
            env=self.environment,
            check=True,
            capture_output=True,
            text=True,
            timeout=DEADLINE,
        )
        return done.stdout.strip()

    def image_id(self, name: str) -> str:
        return self.docker("image", "inspect", "--format", "{{.Id}}", name)

    def names(self, engine: Any) -> list[str]:
        """Return all names that this person's images have on this machine."""
        names = [name for image in engine.images.list() for name in (*image.tags, *image.attrs["RepoDigests"])]
        return [name for name in names if name.startswith((self.uri, self.image))]

    def forget(self, engine: Any) -> None:
        """Remove this person's images from this machine, with the layers that no other image has."""
        for name in self.names(engine):
            with contextlib.suppress(docker.errors.ImageNotFound):  # a digest goes with the last of its tags
                engine.images.remove(name, noprune=False)
