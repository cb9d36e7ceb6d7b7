# esrp-judge: each target does all the set-up it needs on a fresh machine. `make help` lists them.
SHELL := bash
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
NVIDIA := $(shell ls /dev/nvidia[0-9]* 2>/dev/null; command -v nvidia-smi)

.DEFAULT_GOAL := help
.PHONY: help setup judge test lint clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
	@echo
	@echo 'make judge [DATA="FILE…"] [JUDGE=auto|stand-in|qwen3-0.6b|…|FOLDER] [RUN=FOLDER] [ARGS="--limit 100 …"]'
	@echo 'TORCH_INDEX=URL takes torch from an index of CPU builds; PYTHON=python3.12 chooses the interpreter.'

setup: $(VENV)/.ready ## make .venv with the dependencies for the hardware found

judge: $(VENV)/.ready ## score dialogues: DATA, or ChatAnime where fetched and the judge is real, or the example
	@$(BIN)/esrp-judge score $(DATA) $(if $(JUDGE),--judge "$(JUDGE)") $(if $(RUN),--run "$(RUN)") $(ARGS)

test: $(VENV)/.ready-dev ## run the tests
	$(BIN)/python -m pytest $(ARGS)

lint: $(VENV)/.ready-dev ## check style and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

clean: ## remove .venv and caches; runs in results/ stay
	rm -rf $(VENV) .mypy_cache .pytest_cache .ruff_cache .hypothesis dist build
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(VENV)/.ready: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "$(PYTHON) is older than Python 3.11; install a newer one and name it: make setup PYTHON=python3.12" >&2; exit 2; }
	@$(PYTHON) -m venv $(VENV) || \
	  { echo "$(PYTHON) cannot make a virtual environment; install its venv module (Debian: python3-venv)" >&2; exit 2; }
ifeq ($(NVIDIA),)
	$(BIN)/python -m pip install --quiet torch==2.13.0 $(if $(TORCH_INDEX),--index-url "$(TORCH_INDEX)")
	$(BIN)/python -m pip install --quiet --editable .
else
	$(BIN)/python -m pip install --quiet --editable '.[vllm]'
endif
	@touch $@

$(VENV)/.ready-dev: $(VENV)/.ready
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	@touch $@
