"""The rules of docs/architecture.md that a program can check."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parents[2]
PACKAGES = ("kmeans", "train", "serve", "local_test", "workflow")
MODULES = sorted(path for package in PACKAGES for path in (PROJECT / package).rglob("*.py"))
EDGES = ("train/__main__.py", "serve/__main__.py", "serve/server/gunicorn_conf.py")

# A package may import itself, these others of ours, and libraries except those that are named.
ALLOWED = {
    "kmeans": set(),
    "train": {"kmeans"},
    "serve": {"kmeans"},
    "local_test": {"kmeans"},
    "workflow": {"kmeans", "train", "local_test"},
}
FORBIDDEN_LIBRARIES = {
    "kmeans": {"flask", "werkzeug", "gunicorn", "docker", "sklearn"},
    "train": {"flask", "werkzeug", "gunicorn", "docker", "sklearn"},
    "serve": {"docker", "sklearn"},
    "local_test": {"flask", "gunicorn"},
    "workflow": {"flask", "gunicorn"},
}


def name_of(path: Path) -> str:
    return path.relative_to(PROJECT).as_posix()


def in_packages(*packages: str) -> list[Path]:
    return [path for path in MODULES if name_of(path).split("/")[0] in packages]


def nodes(path: Path) -> Iterator[ast.AST]:
    return ast.walk(ast.parse(path.read_text(encoding="utf-8"), filename=str(path)))


def imported(path: Path) -> set[str]:
    """Return the top-level names of all that ``path`` imports, wherever in its code it does so."""
    found: set[str] = set()
    for node in nodes(path):
        if isinstance(node, ast.Import):
            found.update(alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            found.add((node.module or "").split(".")[0] if not node.level else name_of(path).split("/")[0])
    return found


def called(path: Path) -> Iterator[tuple[str, ast.Call]]:
    for node in nodes(path):
        if isinstance(node, ast.Call):
            yield ast.unparse(node.func), node


@pytest.mark.parametrize("package", PACKAGES)
def test_the_packages_are_where_they_are_looked_for(package: str) -> None:
    assert in_packages(package)


@pytest.mark.parametrize("path", in_packages(*ALLOWED), ids=name_of)
def test_packages_import_only_the_allowed_packages(path: Path) -> None:
    package = name_of(path).split("/")[0]
    ours = {"kmeans", "train", "serve", "local_test", "tests", "container", "benchmarks", "workflow"}
    found = imported(path)
    assert found & ours <= ALLOWED[package] | {package}
    assert not found & FORBIDDEN_LIBRARIES[package]


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_only_serve_server_imports_gunicorn(path: Path) -> None:
    assert "gunicorn" not in imported(path) or name_of(path).startswith("serve/server/")


@pytest.mark.parametrize("path", in_packages("kmeans", "train", "serve"), ids=name_of)
def test_only_the_edges_read_the_environment_and_exit(path: Path) -> None:
    if name_of(path) in EDGES:
        return
    names = {ast.unparse(node) for node in nodes(path) if isinstance(node, ast.Attribute | ast.Name)}
    assert not names & {"os.environ", "os.getenv", "os.environb", "sys.argv", "sys.exit", "os._exit", "exit"}
    # By its bare name `environ` would have to be imported; as a parameter it is that of a WSGI application.
    taken = {
        alias.name
        for node in nodes(path)
        if isinstance(node, ast.ImportFrom) and node.module == "os"
        for alias in node.names
    }
    assert not taken & {"environ", "environb", "getenv", "_exit"}


@pytest.mark.parametrize("path", in_packages("kmeans"), ids=name_of)
def test_the_heart_neither_prints_nor_logs(path: Path) -> None:
    assert "print" not in {name for name, _ in called(path)}
    assert not imported(path) & {"logging", "warnings"}


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_no_code_comes_out_of_data(path: Path) -> None:
    assert not imported(path) & {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "marshal", "shelve"}
    for name, call in called(path):
        assert name not in {"eval", "exec", "compile", "__import__", "os.system", "os.popen"}, ast.unparse(call)
        for keyword in call.keywords:
            assert keyword.arg not in {"shell", "allow_pickle"} or ast.unparse(keyword.value) == "False"


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_a_module_is_named_after_what_it_is_about(path: Path) -> None:
    vague = {"util", "utils", "helper", "helpers", "common", "misc", "tools", "shared"}
    assert not vague & {path.stem, *path.relative_to(PROJECT).parent.parts}


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_a_module_says_what_it_is_about(path: Path) -> None:
    assert ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
