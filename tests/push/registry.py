"""Debian's docker-registry in a container, on the loopback interface, with a password."""

from __future__ import annotations

import hashlib
import json
import time
import uuid
from pathlib import Path
from types import TracebackType
from typing import Any
from urllib.error import HTTPError
from urllib.request import HTTPBasicAuthHandler, HTTPPasswordMgrWithDefaultRealm, OpenerDirector, build_opener

import bcrypt

DOCKERFILE = Path(__file__).with_name("registry")
DEADLINE = 30
MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"


class Registry:
    """A registry that lives as long as the ``with`` block; ``host`` is where it answers."""

    def __init__(self, engine: Any, folder: Path, user: str, password: str) -> None:
        self._engine, self._user, self._password = engine, user, password
        self._passwords = folder / f"htpasswd-{uuid.uuid4().hex[:8]}"
        self.host = ""

    def __enter__(self) -> Registry:
        image, _ = self._engine.images.build(path=str(DOCKERFILE), tag="kmeans-test-registry", rm=True)
        # 4 rounds: a registry asks for the password at every request.
        secret = bcrypt.hashpw(self._password.encode(), bcrypt.gensalt(4)).decode()
        self._passwords.write_text(f"{self._user}:{secret}\n")
        self._container = self._engine.containers.run(
            image.id,
            detach=True,
            ports={"5000/tcp": ("127.0.0.1", None)},
            volumes={str(self._passwords): {"bind": "/etc/docker/registry/htpasswd", "mode": "ro"}},
        )
        try:
            self._await()
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._container.remove(force=True, v=True)

    def _await(self) -> None:
        deadline = time.monotonic() + DEADLINE
        while time.monotonic() < deadline:
            self._container.reload()
            ports = self._container.ports.get("5000/tcp")
            assert self._container.status in ("created", "running"), self._container.logs().decode()
            if ports:
                self.host = f"127.0.0.1:{ports[0]['HostPort']}"
                try:
                    build_opener().open(f"http://{self.host}/v2/", timeout=5).close()
                except HTTPError as refused:
                    if refused.code != 401:  # it wants a password
                        raise
                    return
                except OSError:
                    pass
            time.sleep(0.02)
        raise TimeoutError(f"the registry does not answer: {self._container.logs().decode()}")

    def _opener(self) -> OpenerDirector:
        passwords = HTTPPasswordMgrWithDefaultRealm()
        passwords.add_password(None, f"http://{self.host}", self._user, self._password)
        return build_opener(HTTPBasicAuthHandler(passwords))

    def _get(self, path: str) -> bytes:
        opener = self._opener()
        opener.addheaders = [("Accept", MANIFEST)]
        with opener.open(f"http://{self.host}/v2/{path}", timeout=60) as answer:
            body: bytes = answer.read()
        return body

    def tags(self, repository: str) -> list[str]:
        """Return the tags that the registry has, sorted; none if it has no such repository."""
        try:
            return sorted(json.loads(self._get(f"{repository}/tags/list"))["tags"] or ())
        except HTTPError as error:
            if error.code != 404:
                raise
            return []

    def manifest(self, repository: str, tag: str) -> dict[str, Any]:
        """Return the manifest of a tag."""
        manifest: dict[str, Any] = json.loads(self._get(f"{repository}/manifests/{tag}"))
        return manifest

    def image_id(self, repository: str, tag: str) -> str:
        """Return the image's ID: the digest of its configuration."""
        return str(self.manifest(repository, tag)["config"]["digest"])

    def assert_whole(self, repository: str, tag: str) -> None:
        """Download everything that a tag is made of, and compare it with the digests."""
        manifest = self.manifest(repository, tag)
        for part in (manifest["config"], *manifest["layers"]):
            body = self._get(f"{repository}/blobs/{part['digest']}")
            assert len(body) == part["size"]
            assert f"sha256:{hashlib.sha256(body).hexdigest()}" == part["digest"]
