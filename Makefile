# make demo   install into .venv and run the main job on a bundled example
# make test   install what the tests need and run all of them
# make bench  print speed figures of this machine
# make docs   build the documentation into site/
# make figures  draw every picture of README and documentation again
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin

.PHONY: demo test check bench docs figures clean

demo: $(VENV)/.installed
	$(BIN)/fluidwait demo --out demo

test: $(VENV)/.installed-test check
	$(BIN)/python -m pytest -n auto -q

check: $(VENV)/.installed-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(VENV)/.installed
	$(BIN)/python tests/benchmarks/engine_speed.py
	$(BIN)/python tests/benchmarks/compare_speed.py

docs: $(VENV)/.installed-test
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

figures: $(VENV)/.installed
	$(BIN)/python docs/figures.py

$(VENV)/.installed: pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -e .
	touch $@

$(VENV)/.installed-test: $(VENV)/.installed
	$(BIN)/pip install --quiet --disable-pip-version-check -e '.[test,docs]'
	touch $@

clean:
	rm -rf $(VENV) demo site
