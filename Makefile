# One verb per habit. `make` alone lists them.
PYTHON ?= python3
VENV   ?= .venv
IMAGE  ?= kmeans:latest
DOCKER_BUILD_FLAGS ?=

RUN_READY  = $(VENV)/.run-ready
TEST_READY = $(VENV)/.test-ready
WORKFLOW_READY = $(VENV)/.workflow-ready

# AWS's packages conflict with today's; they have an environment of their own.
CONFORMANCE       = .venv-conformance
CONFORMANCE_READY = $(CONFORMANCE)/.ready
# Among themselves, too: the SDK 3 can't be installed beside the SDK 2.
SDK3       = .venv-sdk3
SDK3_READY = $(SDK3)/.ready

# The AWS command line wants old versions of packages that the others share.
PUSH       = .venv-push
PUSH_READY = $(PUSH)/.ready

# What a notebook needs is nothing to the others.
NOTEBOOK       = .venv-notebook
NOTEBOOK_READY = $(NOTEBOOK)/.ready

# The peers stay out of all other environments.
BENCH       = .venv-bench
BENCH_READY = $(BENCH)/.ready

# So does the fuzzer.
FUZZ       = .venv-fuzz
FUZZ_READY = $(FUZZ)/.ready
RUNS      ?= 20000

.DEFAULT_GOAL := help
.PHONY: help run workflow workflow-ready test check fix image image-test conformance push-test notebook notebook-outputs sbom fuzz bench lock clean

help:  ## list the verbs
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 14

run: $(RUN_READY)  ## train on real digits, serve the model, send requests (no Docker, no AWS); MNIST=DIR for MNIST
	$(VENV)/bin/python -m local_test $(if $(MNIST),--mnist "$(MNIST)")

workflow: $(WORKFLOW_READY)  ## the five steps of docs/workflow.md with $(IMAGE) in Docker, and delete what they made; MNIST=DIR for MNIST
	@step() { echo "python -m workflow $$*"; $(VENV)/bin/python -m workflow "$$@" --target local --folder .workflow/make; }; \
	trap 'code=$$?; step delete || code=1; exit $$code' EXIT; trap 'exit 130' INT; trap 'exit 143' TERM; set -e; \
	step data $(if $(MNIST),--mnist "$(MNIST)"); \
	step train --image $(IMAGE) --instances 2; \
	step deploy --image $(IMAGE); \
	step validate; \
	step transform --image $(IMAGE); \
	step validate --of transform
# Whatever KMEANS_TARGET says, and in a folder of its own: delete, which also follows a failure, finds nobody else's endpoint.

workflow-ready: $(WORKFLOW_READY)  ## set up what `.venv/bin/python -m workflow` needs, and nothing else

test: $(TEST_READY)  ## run all tests; those of the image if a Docker engine answers
	$(VENV)/bin/python -m pytest

check: $(TEST_READY)  ## lint, types, spelling and language
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy
	$(VENV)/bin/codespell
	$(VENV)/bin/proselint check *.md docs $$(find kmeans train serve local_test workflow benchmarks -name '*.py')
	$(VENV)/bin/python -m pytest -q tests/unit/test_language.py

fix: $(TEST_READY)  ## mend what lint can mend
	$(VENV)/bin/ruff check --fix .
	$(VENV)/bin/ruff format .

image:  ## build the image, $(IMAGE)
	docker build -f container/Dockerfile -t $(IMAGE) \
	    --build-arg VERSION="$$(sed -n 's/^__version__ = "\(.*\)"/\1/p' kmeans/__init__.py)" \
	    --build-arg REVISION="$$(git rev-parse --short=12 HEAD 2>/dev/null || echo unknown)" \
	    $(DOCKER_BUILD_FLAGS) .

image-test: $(TEST_READY)  ## test the image as SageMaker runs it
	KMEANS_IMAGE=$(IMAGE) $(VENV)/bin/python -m pytest tests/image

conformance: $(CONFORMANCE_READY) $(SDK3_READY)  ## test against AWS's own toolkits and SDKs, in environments of their own (needs gcc)
	KMEANS_CONFORMANCE=1 KMEANS_SDK3_PYTHON=$(SDK3)/bin/python KMEANS_IMAGE=$(IMAGE) \
	    $(CONFORMANCE)/bin/python -m pytest tests/conformance

push-test: $(PUSH_READY) $(WORKFLOW_READY)  ## test build_and_push.sh and the IAM policies against a registry and AWS on this machine
	KMEANS_WORKFLOW_PYTHON=$(VENV)/bin/python $(PUSH)/bin/python -m pytest tests/push

notebook: $(NOTEBOOK_READY)  ## run workflow/mnist_kmeans.ipynb from start to end with $(IMAGE) in Docker, and check it; MNIST=DIR
	$(WITH_MNIST) KMEANS_IMAGE=$(IMAGE) $(NOTEBOOK)/bin/python -m pytest tests/notebook

notebook-outputs: $(NOTEBOOK_READY)  ## run the notebook and keep its outputs in the file; MNIST=DIR
	$(WITH_MNIST) $(NOTEBOOK)/bin/python -m tests.notebook.execution
WITH_MNIST = $(if $(MNIST),KMEANS_MNIST_DIR="$(abspath $(MNIST))")

SBOM ?= build/kmeans.cdx.json
sbom:  ## write what is in the image, $(IMAGE), to SBOM=build/kmeans.cdx.json (CycloneDX)
	@mkdir -p "$(dir $(SBOM))"
	docker run --rm -i --network none --entrypoint python3 $(IMAGE) \
	    - "$$(docker image inspect --format '{{.Id}}' $(IMAGE))" <container/sbom.py >"$(SBOM).part"
	mv "$(SBOM).part" "$(SBOM)"

fuzz: $(FUZZ_READY)  ## search for inputs that break a decoder or the server; RUNS=20000 for each of them
	$(FUZZ)/bin/python -m tests.fuzz --runs $(RUNS) --findings $(FUZZ)/findings

bench: $(BENCH_READY)  ## measure algorithm and server beside their peers, and the formats; MNIST=DIR, EMBEDDINGS=DIR (needs wrk)
	$(BENCH)/bin/python -m benchmarks.formats
	$(BENCH)/bin/python -m benchmarks.clustering $(if $(MNIST),--mnist "$(MNIST)") $(if $(EMBEDDINGS),--embeddings "$(EMBEDDINGS)")
	$(BENCH)/bin/python -m benchmarks.serving $(if $(MNIST),--mnist "$(MNIST)")

lock:  ## pin the packages again, with hashes (needs uv)
	uv pip compile pyproject.toml --extra image --extra mpi $(LOCK) -o container/requirements.lock
	uv pip compile pyproject.toml --extra local $(LOCK) -o local_test/requirements.lock
	uv pip compile pyproject.toml --extra workflow $(LOCK) -o workflow/requirements.lock
	uv pip compile pyproject.toml --extra test $(LOCK) -o tests/requirements.lock
	uv pip compile tests/conformance/requirements.in $(LOCK) -o tests/conformance/requirements.lock
	uv pip compile tests/conformance/sdk3/requirements.in $(LOCK) -o tests/conformance/sdk3/requirements.lock
	uv pip compile tests/push/requirements.in $(LOCK) -o tests/push/requirements.lock
	uv pip compile tests/notebook/requirements.in $(LOCK) -o tests/notebook/requirements.lock
	uv pip compile tests/fuzz/requirements.in $(LOCK) -o tests/fuzz/requirements.lock
	uv pip compile benchmarks/requirements.in $(LOCK) -o benchmarks/requirements.lock
# --no-strip-extras: without `jsonschema[format]==...` pip asks for the newest release, which has no hash here.
LOCK = --quiet --upgrade --universal --python-version 3.11 --generate-hashes --no-config \
       --no-emit-index-url --no-emit-find-links --no-strip-extras \
       --custom-compile-command "make lock"

clean:  ## remove the environment and what local jobs left
	rm -rf $(VENV) $(CONFORMANCE) $(SDK3) $(PUSH) $(NOTEBOOK) $(FUZZ) $(BENCH) .pytest_cache .mypy_cache .ruff_cache .hypothesis
	git clean -fdXq local_test

$(VENV)/bin/python $(CONFORMANCE)/bin/python $(SDK3)/bin/python $(PUSH)/bin/python $(NOTEBOOK)/bin/python $(FUZZ)/bin/python $(BENCH)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	    || { echo "Python 3.11 or newer is needed, and $(PYTHON) is none: set PYTHON=/path/to/python3.11"; exit 1; }
	$(PYTHON) -m venv $(@D:/bin=)

INSTALL = -m pip install --quiet --disable-pip-version-check --require-hashes -r

$(RUN_READY): local_test/requirements.lock | $(VENV)/bin/python
	$(VENV)/bin/python $(INSTALL) $<
	@touch $@

$(WORKFLOW_READY): workflow/requirements.lock | $(VENV)/bin/python
	$(VENV)/bin/python $(INSTALL) $<
	@touch $@

$(TEST_READY): tests/requirements.lock | $(VENV)/bin/python
	$(VENV)/bin/python $(INSTALL) $<
	@touch $@

$(BENCH_READY): benchmarks/requirements.lock | $(BENCH)/bin/python
	$(BENCH)/bin/python $(INSTALL) $<
	@touch $@

$(CONFORMANCE_READY): tests/conformance/requirements.lock | $(CONFORMANCE)/bin/python
	$(CONFORMANCE)/bin/python $(INSTALL) $<
	@touch $@

$(SDK3_READY): tests/conformance/sdk3/requirements.lock | $(SDK3)/bin/python
	$(SDK3)/bin/python $(INSTALL) $<
	@touch $@

$(PUSH_READY): tests/push/requirements.lock | $(PUSH)/bin/python
	$(PUSH)/bin/python $(INSTALL) $<
	@touch $@

$(NOTEBOOK_READY): tests/notebook/requirements.lock | $(NOTEBOOK)/bin/python
	$(NOTEBOOK)/bin/python $(INSTALL) $<
	@touch $@

$(FUZZ_READY): tests/fuzz/requirements.lock | $(FUZZ)/bin/python
	$(FUZZ)/bin/python $(INSTALL) $<
	@touch $@
