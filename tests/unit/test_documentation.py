"""The documents agree with the code."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from kmeans.formats.registry import FORMATS
from train import hyperparameters

PROJECT = Path(__file__).resolve().parents[2]
README = (PROJECT / "README.md").read_text()
TRAINING = (PROJECT / "docs" / "training.md").read_text()
ENVIRONMENT = (PROJECT / "docs" / "environment.md").read_text()
ARCHITECTURE = (PROJECT / "docs" / "architecture.md").read_text()
DOCUMENTS = sorted([*PROJECT.glob("*.md"), *(PROJECT / "docs").rglob("*.md")])


def test_training_page_has_the_table_of_hyperparameters() -> None:
    assert hyperparameters.markdown_table() in TRAINING


@pytest.mark.parametrize("media_type", sorted(form.media_type for form in FORMATS))
def test_the_readme_names_every_media_type(media_type: str) -> None:
    assert f"`{media_type}`" in README


@pytest.mark.parametrize("package", ["kmeans", "train", "serve", "workflow"])
def test_architecture_page_names_every_module(package: str) -> None:
    modules = {path.stem for path in (PROJECT / package).rglob("*.py")} - {"__init__", "__main__"}
    assert {name for name in modules if not re.search(rf"\b{name}\b", ARCHITECTURE)} == set()


def test_environment_page_names_every_variable() -> None:
    source = "".join(
        path.read_text() for folder in ("train", "serve", "workflow") for path in (PROJECT / folder).glob("*.py")
    )
    assert {
        name for name in re.findall(r"(?:SAGEMAKER|KMEANS)_[A-Z_]+", source) if f"`{name}`" not in ENVIRONMENT
    } == set()


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(PROJECT)))
def test_links_of_documents_lead_to_files(document: Path) -> None:
    targets = re.findall(r"\]\((?!https?://)([^)#]+)\)", document.read_text())
    assert [target for target in targets if not (document.parent / target).exists()] == []


def test_documents_name_only_targets_of_the_makefile() -> None:
    verbs = set(re.findall(r"^([a-z-]+):", (PROJECT / "Makefile").read_text(), re.MULTILINE))
    used = {verb for document in DOCUMENTS for verb in re.findall(r"`make ([a-z-]+)", document.read_text())}
    assert used <= verbs


def test_tests_named_in_documents_exist() -> None:
    tests = "".join(path.read_text() for path in (PROJECT / "tests").rglob("test_*.py"))
    named = {name for document in DOCUMENTS for name in re.findall(r"`(test_[a-z0-9_]+)`", document.read_text())}
    assert {name for name in named if f"def {name}(" not in tests} == set()


def test_python_example_in_readme_runs(tmp_path: Path) -> None:
    section = README.partition("## In Python")[2].partition("\n## ")[0]
    (code,) = re.findall(r"```python\n(.*?)```", section, re.DOTALL)
    environment = {**os.environ, "PYTHONPATH": str(PROJECT)}
    subprocess.run([sys.executable, "-W", "error", "-c", code], cwd=tmp_path, env=environment, check=True)
    assert (tmp_path / "model" / "model_algo-1").exists()
