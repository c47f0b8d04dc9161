# The verbs of this project. Each does its own set-up: Linux, Python 3.11 or newer and make are enough.
# Packages come from the lock files in requirements/, PyTorch by its version from the default index.
# Where that index has CUDA builds only, this takes the CPU build:
#   make test PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu
PYTHON ?= python3
HOST ?= 127.0.0.1
PORT ?= 8000
RECIPE ?= recipes/msnbc.toml
RUN ?= runs/news
NAME ?= news
VERSION ?= 1
UPGRADE ?=
export ORT_DISABLE_TELEMETRY = 1
export PIP_DISABLE_PIP_VERSION_CHECK = 1
ifdef PIP_EXTRA_INDEX_URL
export PIP_EXTRA_INDEX_URL
endif

BIN := .venv/bin
LOCKED := $(BIN)/pip install --quiet --no-deps --require-hashes
# Without isolation: pip would fetch the build backend anew, of any version.
EDITABLE := $(BIN)/pip install --quiet --no-deps --no-build-isolation --editable .
PAGE := service/playground/page
NPM := command -v npm >/dev/null
COMPILE := $(BIN)/uv pip compile --quiet --config-file requirements/uv.toml $(UPGRADE)

# Tools that look at our packages from outside, in an environment of their own.
.venv/.audit: .venv/.python
	$(PYTHON) -m venv .venv/audit
	.venv/audit/bin/pip install --quiet "cyclonedx-bom>=7,<8" "pip-audit>=2.10,<3"
	@touch $@

sbom: .venv/.audit ## write sbom.json, a CycloneDX list of what the image installs
	.venv/audit/bin/cyclonedx-py requirements requirements/serve.txt --pyproject pyproject.toml \
		--output-reproducible --output-file sbom.json

audit: .venv/.audit ## look for known faults in what the image installs
	.venv/audit/bin/pip-audit --requirement requirements/serve.txt --require-hashes --disable-pip

# What checks the page: a type checker, a linter and the rules of axe, from npm, of fixed versions.
# Without npm there is nothing to check it with; the page itself needs none of it.
.venv/.page: .venv/.python tests/page/package.json tests/page/package-lock.json
	mkdir -p .venv/page
	cp tests/page/package.json tests/page/package-lock.json .venv/page/
	cd .venv/page && npm ci --silent --no-audit --no-fund
	@touch $@

browser: ## install what the tests of the page need, where apt-get and npm can be had
	@for name in chromium chromium-browser google-chrome; do command -v $$name >/dev/null && exit 0; done; \
		{ apt-get update -qq && apt-get install -y -qq --no-install-recommends chromium; } >/dev/null 2>&1 \
		|| echo "no Chromium here and no way to install it: the page is not driven"
	@command -v npm >/dev/null || apt-get install -y -qq --no-install-recommends npm >/dev/null 2>&1 || true
	@$(NPM) && $(MAKE) --silent .venv/.page || echo "no npm: the page's scripts are not checked"

test-page: .venv/.all browser ## drive the page in Chromium (PERSONA_TEST_PICTURES=folder keeps pictures)
	$(BIN)/pytest -n 0 tests/page

.PHONY: help serve install test test-all test-ranges test-page browser lint lint-page format train export bench docs lock sbom audit clean

help: ## list the verbs
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.venv/.python:
	$(PYTHON) -m venv .venv
	@touch $@

# What serves and scores: small, without PyTorch.
.venv/.base: .venv/.python pyproject.toml requirements/build.txt requirements/serve.txt requirements/files.txt
	$(LOCKED) -r requirements/build.txt -r requirements/serve.txt -r requirements/files.txt
	$(EDITABLE)
	@touch $@

# Everything: training, export, tests. PyTorch comes last, when what it depends on is there.
.venv/.all: .venv/.python pyproject.toml requirements/build.txt requirements/all.txt
	$(LOCKED) -r requirements/build.txt -r requirements/all.txt
	$(BIN)/pip install --quiet "torch==2.13.0"
	$(EDITABLE)
	@touch $@ .venv/.base

serve: .venv/.base ## serve the shipped artifacts (PORT=8000)
	$(BIN)/persona serve --artifacts artifacts --host $(HOST) --port $(PORT)

install: .venv/.all ## install everything into .venv

test: .venv/.all ## run the tests, without the slow ones
	$(BIN)/pytest -m "not slow"

test-all: .venv/.all ## run all tests
	$(BIN)/pytest

test-ranges: .venv/.all ## try the oldest and the newest packages that pyproject.toml allows
	$(BIN)/python -m tests.ranges

lint: .venv/.all ## formatter, linter, types, house rules
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	@if $(NPM) && $(MAKE) --silent .venv/.page; then $(MAKE) --silent lint-page; \
		else echo "no npm here, or no packages: the page's scripts are not checked"; fi
	$(BIN)/pytest --quiet -n 0 tests/project/test_house.py tests/project/test_lock.py

lint-page: .venv/.page ## formatter, linter and types of the page's scripts
	.venv/page/node_modules/.bin/biome check --config-path tests/page $(PAGE)
	.venv/page/node_modules/.bin/tsc -p tests/page

format: .venv/.all ## format and fix what can be fixed
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .
	@if $(NPM); then $(MAKE) --silent .venv/.page; \
		.venv/page/node_modules/.bin/biome check --write --config-path tests/page $(PAGE); fi

train: .venv/.all ## train a recipe (RECIPE=recipes/msnbc.toml RUN=runs/news DATA=clicks.seq)
	$(BIN)/persona train --recipe $(RECIPE) $(if $(DATA),--data $(DATA)) --output $(RUN)

export: .venv/.all ## turn a run into an artifact (RUN=runs/news NAME=news VERSION=1)
	$(BIN)/persona export $(RUN) --name $(NAME) --version $(VERSION) --output artifacts

bench: .venv/.all ## measure, and write bench/RESULTS.md and bench/results.json
	$(BIN)/python -m bench

docs: .venv/.all browser ## draw the pictures in docs/, record the examples of docs/openapi.json
	$(BIN)/python -m docs.pictures
	$(BIN)/python -m docs.attention_pictures
	$(BIN)/python -m docs.next_click_picture
	$(BIN)/python -m docs.api_examples
	$(BIN)/python -m docs.playground_pictures

# all.txt is written first, and the others take its versions. `build.txt` is the build backend.
lock: .venv/.python ## write requirements/ anew from pyproject.toml (UPGRADE=--upgrade for new versions)
	$(BIN)/pip install --quiet "uv>=0.13,<0.14"
	$(COMPILE) pyproject.toml --extra train --extra serve --extra index --extra ray --extra dev \
		--output-file requirements/all.txt
	$(COMPILE) pyproject.toml --extra serve -c requirements/all.txt --output-file requirements/serve.txt
	$(COMPILE) pyproject.toml --extra files -c requirements/all.txt --output-file requirements/files.txt
	$(BIN)/python -c "import tomllib; build = tomllib.load(open('pyproject.toml', 'rb'))['build-system']; \
		print(*build['requires'], sep='\n')" \
		| $(COMPILE) - -c requirements/all.txt --output-file requirements/build.txt

clean: ## remove what the verbs made
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .hypothesis
