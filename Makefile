# The one task list, for people, hooks and CI. `make` alone shows it.
# Overrides pass through: make train ARGS='classifier=logistic'

PYTHON ?= python3
ARGS ?=
EXTRAS ?=
UV := $(or $(shell command -v uv 2>/dev/null),.uv/bin/uv)
VENV := .venv
FIND_LINKS = UV_FIND_LINKS="$${UV_FIND_LINKS:-$$($(PYTHON) -m pip config get global.find-links 2>/dev/null)}"
RUN := $(VENV)/bin/python start_batch_nlp.py
SOURCES := src tests benchmarks start_batch_nlp.py .ci/audit.py

.DEFAULT_GOAL := help
.PHONY: help install run train infer test coverage test-faults check format docs sample benchmark-quality benchmark-scale clean

help: ## show this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 12

install: $(VENV)/.installed ## install the environment; EXTRAS=transformers adds sentence-transformers
ifneq ($(EXTRAS),)
	@# Through uv's pip, which takes wheels from the folder that pip is set up with, if any.
	$(FIND_LINKS) $(UV) pip install --python $(VENV)/bin/python --editable '.[$(EXTRAS)]'
endif

.uv/bin/uv:
	$(PYTHON) -m venv .uv
	.uv/bin/pip install --quiet --disable-pip-version-check uv

$(VENV)/.installed: pyproject.toml $(filter .uv/bin/uv,$(UV))
	@# Compiled once: every start, and that of every worker process, is quicker.
	$(UV) sync --inexact --compile-bytecode
	@touch $@

run: $(VENV)/.installed ## the whole way on the synthetic sample: features, training, inference
	$(RUN) pipeline=full $(ARGS)

# A fresh clone has no features of its own yet, but a committed sample of them.
ELSEWHERE = $(BATCH_NLP_ROOT) $(wildcard data/04_feature/manifest.json) $(findstring paths.root=,$(ARGS)) \
	$(findstring training.features=,$(ARGS))
FEATURES = $(if $(strip $(ELSEWHERE)),,training.features=data/04_feature/sample)

train: $(VENV)/.installed ## train on the feature store (on the committed sample where there is none)
	$(RUN) pipeline=training $(FEATURES) $(ARGS)

infer: $(VENV)/.installed ## label new messages: make infer ARGS='inference.source=new.csv dataset=messages'
	$(RUN) pipeline=inference $(ARGS)

test: export OMP_WAIT_POLICY = passive
test: $(VENV)/.installed ## run the tests
	$(VENV)/bin/python -m pytest -n 2 $(ARGS)

coverage: export OMP_WAIT_POLICY = passive
coverage: $(VENV)/.installed ## the same with coverage, which takes a third longer
	$(VENV)/bin/python -m pytest -n 2 --cov --cov-report=term --cov-report=xml $(ARGS)

test-faults: export OMP_WAIT_POLICY = passive
test-faults: export FAULTS_REPORT = build/faults
# In memory, where a flush costs nothing.
test-faults: export TMPDIR = $(or $(wildcard /dev/shm),/tmp)
test-faults: $(VENV)/.installed ## break runs at hundreds of places; say what was tried
	rm -rf $(FAULTS_REPORT)
	$(VENV)/bin/python -m pytest -n 2 -m faults -o tmp_path_retention_policy=none tests $(ARGS)
	$(VENV)/bin/python tests/faults/summary.py $(FAULTS_REPORT)

check: $(VENV)/.installed ## lint, format, types, security, workflow files, known vulnerabilities
	$(VENV)/bin/ruff check $(SOURCES)
	$(VENV)/bin/ruff format --check $(SOURCES)
	$(VENV)/bin/mypy
	$(VENV)/bin/bandit --quiet --configfile pyproject.toml --recursive src start_batch_nlp.py
	$(VENV)/bin/check-jsonschema --builtin-schema vendor.github-workflows .github/workflows/*.yml
	$(VENV)/bin/python .ci/audit.py

format: $(VENV)/.installed ## put the code in its format
	$(VENV)/bin/ruff check --fix $(SOURCES)
	$(VENV)/bin/ruff format $(SOURCES)

docs: $(VENV)/.installed ## run the notebooks
	$(UV) sync --inexact --group docs
	$(VENV)/bin/jupyter nbconvert --to html --execute --output-dir build/docs notebooks/*.ipynb

sample: $(VENV)/.installed ## make the committed sample of features again
	rm -rf build/sample data/04_feature/sample
	$(RUN) pipeline=feature sample.n_reviews=1000 feature.save_layers=false paths.root=build/sample
	mkdir -p data/04_feature/sample
	cp -R build/sample/data/04_feature/. data/04_feature/sample
	@# No run goes on from there.
	rm -r data/04_feature/sample/extent.json data/04_feature/sample/references

BENCHMARK := build/benchmark/envs/harness

$(BENCHMARK)/.installed: pyproject.toml $(filter .uv/bin/uv,$(UV))
	$(UV) venv --quiet --clear --python $(PYTHON) $(BENCHMARK)
	$(FIND_LINKS) $(UV) pip install --quiet --compile-bytecode --python $(BENCHMARK)/bin/python \
		--editable '.[transformers]' --group benchmark
	@touch $@

benchmark-quality: export OMP_WAIT_POLICY = passive
benchmark-quality: $(BENCHMARK)/.installed ## accuracy beside the rivals, under 40 minutes; ARGS=--quick: 5
	$(FIND_LINKS) UV=$(UV) $(BENCHMARK)/bin/python -m benchmarks.quality $(ARGS)

SIZE ?= 100k

benchmark-scale: export OMP_WAIT_POLICY = passive
benchmark-scale: $(BENCHMARK)/.installed ## cost by number of messages beside plain ways; SIZE=100k, 1m or 7m
	$(BENCHMARK)/bin/python -m benchmarks.scale --size $(SIZE) $(ARGS)

clean: ## remove the environment, caches and build outputs; data and models stay
	rm -rf $(VENV) .uv build dist coverage.xml .coverage .pytest_cache .mypy_cache .ruff_cache outputs
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
