"""build_and_push.sh itself, against a real engine, the real AWS command line, moto's AWS and a real registry.

What isn't as on AWS: the registry is an address of the loopback interface without TLS, named by KMEANS_REGISTRY; and
AWS is moto, named by AWS_ENDPOINT_URL. moto's ECR knows the repository and gives the password, and Debian's
docker-registry takes it and holds the images: so ECR doesn't know what was pushed, and the registry keeps no tag from
moving (ECR does, by the setting that is looked at here). Passwords don't expire after 12 hours; no image is scanned.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

from .conftest import missing
from .person import Outcome, Person
from .registry import Registry

CLOSED = "127.0.0.1:1"  # tcpmux: no server answers there


def repositories(ecr: Any) -> dict[str, dict[str, Any]]:
    return {found["repositoryName"]: found for found in ecr.describe_repositories()["repositories"]}


# ---- the real image --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def veteran(engine: Any, cloud: str, registry: Registry, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Person]:
    """Somebody who pushes the real image."""
    person = Person(tmp_path_factory.mktemp("veteran"), cloud, registry.host, "team/kmeans")
    person.take_the_project()
    yield person
    person.forget(engine)


@pytest.fixture(scope="module")
def first(veteran: Person) -> Outcome:
    """The first push."""
    return veteran.push("--sbom", "kmeans.cdx.json", "--tag", "blue")


def test_creates_the_repository_and_pushes_all_tags(
    veteran: Person, first: Outcome, ecr: Any, registry: Registry
) -> None:
    revision, version, blue, latest, digest = first.uris
    assert {uri.rpartition(":")[0] for uri in (revision, version, blue, latest)} == {veteran.uri}
    tags = [uri.rpartition(":")[2] for uri in (revision, version, blue, latest)]
    assert tags == [veteran.commit_id(), veteran.version(), "blue", "latest"]
    assert digest.startswith(f"{veteran.uri}@sha256:")
    assert registry.tags("team/kmeans") == sorted(tags)
    assert {registry.image_id("team/kmeans", tag) for tag in tags} == {veteran.image_id(veteran.image)}
    made = repositories(ecr)["team/kmeans"]
    assert made["imageTagMutability"] == "IMMUTABLE_WITH_EXCLUSION"
    assert made["imageTagMutabilityExclusionFilters"] == [{"filterType": "WILDCARD", "filter": "latest"}]
    assert made["imageScanningConfiguration"] == {"scanOnPush": True}


def test_pushes_what_sagemaker_takes_and_all_of_it(veteran: Person, first: Outcome, registry: Registry) -> None:
    """Docker's own kind of manifest, of one image: hosting refuses OCI's, and lists."""
    assert first.uris
    manifest = registry.manifest("team/kmeans", "latest")
    assert manifest["mediaType"] == "application/vnd.docker.distribution.manifest.v2+json"
    registry.assert_whole("team/kmeans", "latest")


def test_the_second_push_finds_everything_there(veteran: Person, first: Outcome, ecr: Any) -> None:
    made, image = repositories(ecr)["team/kmeans"], veteran.image_id(veteran.image)
    second = veteran.push("--tag", "blue")
    assert second.uris == first.uris
    assert second.err.count("is there already with this image") == 3
    assert repositories(ecr)["team/kmeans"] == made
    assert veteran.image_id(veteran.image) == image


def test_pulls_back_the_same_image(veteran: Person, first: Outcome, engine: Any) -> None:
    image = veteran.image_id(veteran.image)
    veteran.forget(engine)
    assert veteran.names(engine) == []
    *named, digest = first.uris
    for uri in (digest, *named):
        veteran.docker("pull", "--quiet", uri)
        assert veteran.image_id(uri) == image
    veteran.docker("tag", digest, veteran.image)
    said = veteran.docker(
        "run",
        "--rm",
        "--network",
        "none",
        digest,
        "python3",
        "-c",
        "import kmeans.fitting, train, serve; print(kmeans.__version__)",
    )
    assert said == veteran.version()


def test_the_sbom_is_valid_and_names_everything(veteran: Person, first: Outcome) -> None:
    assert first.uris
    text = (veteran.home / "kmeans.cdx.json").read_text()
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(text) is None
    document = json.loads(text)
    about = document["metadata"]["component"]
    assert (about["name"], about["version"]) == ("kmeans", veteran.version())
    assert about["properties"] == [{"name": "kmeans:image:id", "value": veteran.image_id(veteran.image)}]

    ask = (
        "import importlib.metadata as m; print(*sorted(f'{d.name} {d.version}' for d in m.distributions()), sep='\\n')"
    )
    python = veteran.docker("run", "--rm", "--entrypoint", "python3", veteran.image, "-c", ask).splitlines()
    debian = veteran.docker(
        "run", "--rm", "--entrypoint", "dpkg-query", veteran.image, "-W", "-f", "${Package} ${Version}\n"
    ).splitlines()
    found: dict[str, list[str]] = {"pypi": [], "deb": []}
    for component in document["components"]:
        kind = component["purl"].removeprefix("pkg:").partition("/")[0]
        found[kind].append(f"{component['name']} {component['version']}")
    assert sorted(found["pypi"]) == python
    assert sorted(found["deb"]) == sorted(debian)
    assert len(debian) > 50

    licenses = {part["name"]: part.get("licenses") for part in document["components"]}
    assert licenses["Flask"] == [{"expression": "BSD-3-Clause"}]
    assert licenses["Jinja2"] == [{"license": {"name": "BSD License"}}]
    assert all(licenses[line.split()[0]] for line in python)
    assert {"license": {"name": "MIT"}} in licenses["libexpat1"]
    (orjson,) = [part for part in document["components"] if part["name"] == "orjson"]
    assert "pkg:cargo/" in orjson["components"][0]["purl"], "what is compiled into it"


# ---- tags that don't move --------------------------------------------------------------------------------------------


def test_another_image_is_never_pushed_over_a_tag(person: Person, registry: Registry) -> None:
    old = person.commit_id()
    assert len(person.push().uris) == 4
    image = person.image_id(person.image)
    (person.project / "kmeans" / "more").write_text("a change without a new version")
    new = person.commit()
    person.push().assert_failed(f"{person.uri}:1.2.3 is there already with another image", "--latest-only")
    assert registry.tags(person.repository) == sorted([old, "1.2.3", "latest"])
    assert {registry.image_id(person.repository, tag) for tag in (old, "1.2.3", "latest")} == {image}

    person.release("1.2.4")
    assert len(person.push().uris) == 4
    assert registry.image_id(person.repository, "1.2.3") == image
    assert registry.image_id(person.repository, "1.2.4") == registry.image_id(person.repository, "latest") != image
    assert new not in registry.tags(person.repository)


def test_latest_moves_alone(person: Person, registry: Registry) -> None:
    """With changes that are in no commit, or on demand."""
    tags = sorted(uri.rpartition(":")[2] for uri in person.push().uris[:-1])
    kept = person.image_id(person.image)
    for change, options in (("uncommitted", ()), ("committed", ("--latest-only",))):
        (person.project / "kmeans" / "more").write_text(change)
        if options:
            person.commit()
        latest, digest = person.push(*options).uris
        assert (latest, digest.partition("@")[0]) == (f"{person.uri}:latest", person.uri)
        assert registry.tags(person.repository) == tags
        assert registry.image_id(person.repository, "latest") == person.image_id(person.image) != kept
        assert {registry.image_id(person.repository, tag) for tag in tags if tag != "latest"} == {kept}


# ---- platforms and builders ------------------------------------------------------------------------------------------


def test_a_platform_by_name(person: Person, registry: Registry, engine: Any) -> None:
    if not person.has_buildx:
        missing("Docker has no buildx plugin (`docker buildx version`)")
    here = engine.version()["Arch"]
    outcome = person.push("--platform", f"linux/{here}")
    assert "docker buildx build" in outcome.err
    assert len(outcome.uris) == 4
    assert (
        person.docker("image", "inspect", "--format", "{{.Os}}/{{.Architecture}}", outcome.uris[0]) == f"linux/{here}"
    )
    assert "manifest.v2" in registry.manifest(person.repository, "1.2.3")["mediaType"]


def test_without_buildx_and_back_from_the_registry(person: Person, registry: Registry, engine: Any) -> None:
    person.lose_buildx()
    outcome = person.push()
    assert "docker build -f" in outcome.err
    *_, digest = outcome.uris
    assert "manifest.v2" in registry.manifest(person.repository, "1.2.3")["mediaType"]
    person.forget(engine)  # with the layer that holds the mark
    person.docker("pull", "--quiet", digest)
    assert person.docker("run", "--rm", "--entrypoint", "cat", digest, "/kmeans/mark") == person.repository


# ---- what can be missing ---------------------------------------------------------------------------------------------


def lose_docker(person: Person) -> None:
    (person.bin / "docker").unlink()


def lose_the_engine(person: Person) -> None:
    person.environment["DOCKER_HOST"] = f"unix://{person.home}/no.sock"


def lose_aws(person: Person) -> None:
    (person.bin / "aws").unlink()


def lose_keys(person: Person) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        del person.environment[name]


def lose_the_region(person: Person) -> None:
    del person.environment["AWS_REGION"]


def lose_the_way_to_aws(person: Person) -> None:
    person.environment["AWS_ENDPOINT_URL"] = f"http://{CLOSED}"


@pytest.mark.parametrize(
    ("lose", "parts"),
    [
        (lose_docker, ("docker is not on the PATH", "install Docker")),
        (lose_the_engine, ("The Docker engine does not answer", "no.sock", "start it")),
        (lose_aws, ("aws, the AWS command line, is not on the PATH", "install it")),
        (lose_keys, ("Unable to locate credentials", "log in")),
        (lose_the_region, ("No AWS region is set", "--region")),
        (lose_the_way_to_aws, ("Could not connect to the endpoint URL", CLOSED, "network")),
    ],
)
def test_what_is_missing_is_said_before_anything_is_done(
    person: Person, engine: Any, ecr: Any, lose: Callable[[Person], None], parts: tuple[str, ...]
) -> None:
    lose(person)
    person.push().assert_failed(*parts)
    assert person.repository not in repositories(ecr)
    assert person.names(engine) == []


def test_an_unknown_profile(person: Person) -> None:
    person.push("--profile", "nobody").assert_failed("nobody", "--profile")


def test_no_way_to_the_registry(person: Person) -> None:
    person.environment["KMEANS_REGISTRY"] = CLOSED
    person.push().assert_failed(f"The log-in to {CLOSED} failed", "connection refused", "network")


def test_a_registry_that_wants_another_password(person: Person, engine: Any, tmp_path: Path) -> None:
    with Registry(engine, tmp_path, "AWS", "another") as registry:
        person.environment["KMEANS_REGISTRY"] = registry.host
        person.push().assert_failed(f"The log-in to {registry.host} failed", "401", "ecr:GetAuthorizationToken")
        assert registry.tags(person.repository) == []


def test_an_sbom_of_an_image_without_python(person: Person, registry: Registry) -> None:
    person.push("--sbom", "sbom.json").assert_failed("The SBOM cannot be written", "python3")
    assert sorted(path.name for path in person.home.iterdir()) == [".docker"]
    assert registry.tags(person.repository) == []
