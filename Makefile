# `make` alone lists the verbs.
PYTHON ?= python3
VENV   ?= .venv
IMAGE  ?= kmeans:latest
DOCKER_BUILD_FLAGS ?=
PYTEST_FLAGS ?=
# More than CPUs: many tests wait for processes.
TEST_PROCESSES ?= $(shell $(PYTHON) -c "import os; print(1 + (os.cpu_count() or 1))")
RUNS   ?= 20000
SBOM   ?= build/kmeans.cdx.json

.DEFAULT_GOAL := help
.PHONY: help run workflow workflow-ready test test-all check fix image image-test conformance push-test notebook \
        notebook-outputs sbom wheel fuzz bench lock clean

help:  ## list the verbs
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 18

run: $(VENV)/.run-ready  ## train on real digits, serve the model, send requests (no Docker, no AWS); MNIST=DIR for MNIST
	$(VENV)/bin/python -m local_test $(if $(MNIST),--mnist "$(MNIST)")

# Always the local target in a separate folder: `delete`, which also follows a failure, removes only what these steps made.
workflow: $(VENV)/.workflow-ready  ## run the steps of docs/workflow.md with $(IMAGE) in Docker, then delete the results; MNIST=DIR for MNIST
	@step() { echo "python -m workflow $$*"; $(VENV)/bin/python -m workflow "$$@" --target local --folder .workflow/make; }; \
	trap 'code=$$?; step delete || code=1; exit $$code' EXIT; trap 'exit 130' INT; trap 'exit 143' TERM; set -e; \
	step data $(if $(MNIST),--mnist "$(MNIST)"); \
	step train --image $(IMAGE) --instances 2; \
	step deploy --image $(IMAGE); \
	step validate; \
	step transform --image $(IMAGE); \
	step validate --of transform

workflow-ready: $(VENV)/.workflow-ready  ## install only what `.venv/bin/python -m workflow` needs

test: $(VENV)/.test-ready  ## run the tests that are quick, and the main paths of $(IMAGE) if a Docker engine answers
	KMEANS_IMAGE=$(IMAGE) $(VENV)/bin/python -m pytest -m "not slow" --numprocesses $(TEST_PROCESSES) $(PYTEST_FLAGS)

test-all: test  ## run `make test`, then all other tests
	KMEANS_IMAGE=$(IMAGE) $(VENV)/bin/python -m pytest -m slow --numprocesses $(TEST_PROCESSES) $(PYTEST_FLAGS)

check: $(VENV)/.test-ready  ## check style, types, GitHub workflows, spelling and language
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy
	$(VENV)/bin/jactionlint --shellcheck=$(VENV)/bin/shellcheck
	$(VENV)/bin/codespell
	$(VENV)/bin/proselint check *.md docs $$(find kmeans train serve local_test workflow benchmarks -name '*.py')
	$(VENV)/bin/python -m pytest -q tests/unit/test_language.py

fix: $(VENV)/.test-ready  ## correct what ruff can correct
	$(VENV)/bin/ruff check --fix .
	$(VENV)/bin/ruff format .

# The last command starts the result: an image whose programs can't run must fail here, not in an account.
image:  ## build the image, $(IMAGE)
	docker build -f container/Dockerfile -t $(IMAGE) \
	    --build-arg VERSION="$$(sed -n 's/^__version__ = "\(.*\)"/\1/p' kmeans/__init__.py)" \
	    --build-arg REVISION="$$(git rev-parse --short=12 HEAD 2>/dev/null || echo unknown)" \
	    $(DOCKER_BUILD_FLAGS) .
	docker run --rm --network none $(IMAGE) --help >/dev/null

image-test: $(VENV)/.test-ready  ## run all tests of the image, $(IMAGE), as SageMaker runs it
	KMEANS_IMAGE=$(IMAGE) $(VENV)/bin/python -m pytest tests/image

conformance: .venv-conformance/.ready .venv-sdk3/.ready  ## test against AWS's toolkits and SDKs (needs gcc)
	KMEANS_CONFORMANCE=1 KMEANS_SDK3_PYTHON=.venv-sdk3/bin/python KMEANS_IMAGE=$(IMAGE) \
	    .venv-conformance/bin/python -m pytest tests/conformance

push-test: .venv-push/.ready $(VENV)/.workflow-ready  ## test build_and_push.sh and the IAM policies with a registry and a simulated AWS on this machine
	KMEANS_WORKFLOW_PYTHON=$(VENV)/bin/python .venv-push/bin/python -m pytest tests/push

notebook: .venv-notebook/.ready  ## run workflow/mnist_kmeans.ipynb with $(IMAGE) in Docker, and check its outputs; MNIST=DIR
	$(WITH_MNIST) KMEANS_IMAGE=$(IMAGE) .venv-notebook/bin/python -m pytest tests/notebook

notebook-outputs: .venv-notebook/.ready  ## run the notebook and save its outputs in the file; MNIST=DIR
	$(WITH_MNIST) .venv-notebook/bin/python -m tests.notebook.execution
WITH_MNIST = $(if $(MNIST),KMEANS_MNIST_DIR="$(abspath $(MNIST))")

sbom:  ## write the packages of the image, $(IMAGE), to SBOM=build/kmeans.cdx.json (CycloneDX)
	@mkdir -p "$(dir $(SBOM))"
	docker run --rm -i --network none --entrypoint python3 $(IMAGE) \
	    - "$$(docker image inspect --format '{{.Id}}' $(IMAGE))" <container/sbom.py >"$(SBOM).part"
	mv "$(SBOM).part" "$(SBOM)"

wheel: .venv-uv/.ready  ## build the Python package in dist/
	$(UV) build --quiet --wheel

fuzz: .venv-fuzz/.ready  ## search for inputs that break a decoder or the server; RUNS=20000 for each of them
	.venv-fuzz/bin/python -m tests.fuzz --runs $(RUNS) --findings .venv-fuzz/findings

bench: .venv-bench/.ready  ## measure the algorithm, the formats and the server; MNIST=DIR, EMBEDDINGS=DIR (needs wrk)
	.venv-bench/bin/python -m benchmarks.formats
	.venv-bench/bin/python -m benchmarks.clustering $(if $(MNIST),--mnist "$(MNIST)") $(if $(EMBEDDINGS),--embeddings "$(EMBEDDINGS)")
	.venv-bench/bin/python -m benchmarks.serving $(if $(MNIST),--mnist "$(MNIST)")

clean:  ## remove the environments, caches, and the results of local jobs
	rm -rf $(VENV) $(dir $(SEPARATE)) .venv-uv .pytest_cache .mypy_cache .ruff_cache .hypothesis
	git clean -fdXq local_test

# ---- environments: uv installs each from its lock file (docs/decisions/environments.md) ------------------------------

$(VENV)/.run-ready:       local_test/requirements.lock
$(VENV)/.workflow-ready:  workflow/requirements.lock
$(VENV)/.test-ready:      tests/requirements.lock
# The packages of these conflict with the others', or only one verb needs them.
SEPARATE = $(patsubst %,.venv-%/.ready,conformance sdk3 push notebook fuzz bench)
.venv-conformance/.ready: tests/conformance/requirements.lock
.venv-sdk3/.ready:        tests/conformance/sdk3/requirements.lock
.venv-push/.ready:        tests/push/requirements.lock
.venv-notebook/.ready:    tests/notebook/requirements.lock
.venv-fuzz/.ready:        tests/fuzz/requirements.lock
.venv-bench/.ready:       benchmarks/requirements.lock

# As pip does: the system's certificates, the index of PIP_INDEX_URL, no download of another Python, and byte code once at
# the installation instead of at each start where PYTHONDONTWRITEBYTECODE is set.
UV = UV_SYSTEM_CERTS=true UV_PYTHON_DOWNLOADS=never $(if $(PIP_INDEX_URL),UV_DEFAULT_INDEX="$(PIP_INDEX_URL)") .venv-uv/bin/uv

$(VENV)/.run-ready $(VENV)/.workflow-ready $(VENV)/.test-ready $(SEPARATE): | .venv-uv/.ready
	$(UV) venv --quiet --allow-existing --python "$$(command -v $(PYTHON))" $(@D)
	$(UV) pip install --quiet --compile-bytecode --python $(@D) --require-hashes -r $<
	@touch $@

.venv-uv/.ready: .uv/requirements.lock
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	    || { echo "$(PYTHON) is missing or older than Python 3.11: set PYTHON=/path/to/python3.11"; exit 1; }
	$(PYTHON) -m venv $(@D)
	$(@D)/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r $<
	@touch $@

# --no-strip-extras: without `jsonschema[format]==...` an installer asks for the newest release, which has no hash here.
UPGRADE ?= --upgrade
COMPILE = $(UV) pip compile --quiet $(UPGRADE) --universal --python-version 3.11 --generate-hashes --no-config \
          --no-emit-index-url --no-emit-find-links --no-strip-extras --custom-compile-command "make lock"
lock: .venv-uv/.ready  ## pin the newest packages, with hashes; UPGRADE= keeps the versions that still fit
	$(COMPILE) pyproject.toml --extra image --extra mpi -o container/requirements.lock
	$(COMPILE) pyproject.toml --extra local -o local_test/requirements.lock
	$(COMPILE) pyproject.toml --extra workflow -o workflow/requirements.lock
	$(COMPILE) pyproject.toml --extra test -o tests/requirements.lock
	@set -e; for folder in .uv tests/conformance tests/conformance/sdk3 tests/push tests/notebook tests/fuzz benchmarks; do \
	    echo "$$folder/requirements.lock"; $(COMPILE) $$folder/requirements.in -o $$folder/requirements.lock; done
