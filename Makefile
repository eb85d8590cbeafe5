# Everything is set up from here: `make demo` and `make test` need Debian, Python >= 3.11, make, Maven, and for the Kafka tests Java 17.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMPS := .make

.PHONY: help install demo test check lint types unit soak clean

help: ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(STAMPS)/venv:
	@mkdir -p $(STAMPS)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or newer is needed (set PYTHON=...)"; exit 1; }
	@$(PYTHON) -m venv $(VENV) || { echo "the venv module is missing; on Debian: apt-get install python3-venv"; exit 1; }
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check 'uv>=0.8,<1'
	@touch $@

$(STAMPS)/run: $(STAMPS)/venv pyproject.toml constraints.txt
	$(BIN)/uv pip install --quiet --python $(BIN)/python --constraint constraints.txt --editable .
	@touch $@

$(STAMPS)/test: $(STAMPS)/run
	$(BIN)/uv pip install --quiet --python $(BIN)/python --constraint constraints.txt --editable '.[test]'
	@touch $@

$(STAMPS)/encoder: $(STAMPS)/run
	@$(BIN)/bellwether fetch-base || echo "it will be asked of the Hugging Face hub when the model is first loaded"
	@touch $@

install: $(STAMPS)/encoder ## the virtualenv and the encoder: everything that a run needs

demo: $(STAMPS)/encoder ## a day of invented news at speed: incidents open on your screen
	$(BIN)/bellwether demo

test: check unit ## every check and every test

check: lint types ## lint and types

lint: $(STAMPS)/test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(STAMPS)/test
	$(BIN)/mypy

unit: $(STAMPS)/test $(STAMPS)/encoder
	$(BIN)/python -m pytest

soak: $(STAMPS)/test ## instances under random kills, stalls and outages: nothing may be lost, doubled or told otherwise
	$(BIN)/python -m pytest -m soak
	$(BIN)/python -m tests.faults.soak

clean: ## forget the virtualenv and all that was fetched
	rm -rf $(VENV) $(STAMPS) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
