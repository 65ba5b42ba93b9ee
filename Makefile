# make train: set up and run the main job. make test: set up and pass the tests.
PYTHON ?= python3
BIN = .venv/bin

.PHONY: install train test test-all lint oracles

install: .venv/installed

.venv/installed: pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check -e ".[dev]"
	touch .venv/installed

train: install
	$(BIN)/python train.py

test: install
	$(BIN)/python -m pytest -q -n 2 -m "not slow and not oracle"

test-all: install oracles
	$(BIN)/python -m pytest -q -n 2

oracles: install
	$(BIN)/pip install --quiet --disable-pip-version-check -e ".[dev,oracles,baselines,portfolio,ray,live]"

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
