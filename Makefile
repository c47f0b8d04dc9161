# The verbs of this project. Each does its own set-up: Linux, Python 3.11 or newer and make are enough.
# PyTorch comes from the default index; for the CPU build where that one has CUDA builds only:
#   make test PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu
PYTHON ?= python3
HOST ?= 127.0.0.1
PORT ?= 8000
RECIPE ?= recipes/msnbc.toml
RUN ?= runs/news
NAME ?= news
VERSION ?= 1
export ORT_DISABLE_TELEMETRY = 1
export PIP_DISABLE_PIP_VERSION_CHECK = 1
ifdef PIP_EXTRA_INDEX_URL
export PIP_EXTRA_INDEX_URL
endif

BIN := .venv/bin

.PHONY: help serve test lint format train export bench docs clean

help: ## list the verbs
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-8s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.venv/.python:
	$(PYTHON) -m venv .venv
	@touch $@

# What serves and scores: small, without PyTorch.
.venv/.base: .venv/.python pyproject.toml
	$(BIN)/pip install --quiet --editable .
	@touch $@

# Everything: training, export, tests. torch is named first, so that its CPU build satisfies the range.
.venv/.all: .venv/.python pyproject.toml
	$(BIN)/pip install --quiet "torch==2.13.0"
	$(BIN)/pip install --quiet --editable ".[train,dev]"
	@touch $@ .venv/.base

serve: .venv/.base ## serve the shipped artifacts (PORT=8000)
	$(BIN)/persona serve --artifacts artifacts --host $(HOST) --port $(PORT)

test: .venv/.all ## run the tests
	$(BIN)/pytest

lint: .venv/.all ## formatter, linter, types, import arrows
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: .venv/.all ## format and fix what can be fixed
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

train: .venv/.all ## train a recipe (RECIPE=recipes/msnbc.toml RUN=runs/news DATA=clicks.seq)
	$(BIN)/persona train --recipe $(RECIPE) $(if $(DATA),--data $(DATA)) --output $(RUN)

export: .venv/.all ## turn a run into an artifact (RUN=runs/news NAME=news VERSION=1)
	$(BIN)/persona export $(RUN) --name $(NAME) --version $(VERSION) --output artifacts

bench: .venv/.all ## measure, and write bench/RESULTS.md and bench/results.json
	$(BIN)/python -m bench

docs: .venv/.all ## draw the pictures in docs/
	$(BIN)/python -m docs.pictures
	$(BIN)/python -m docs.attention_pictures

clean: ## remove what the verbs made
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
