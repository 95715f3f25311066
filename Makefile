# A target is a name for commands that a person could type.

FLAVOUR ?= $(shell command -v nvidia-smi >/dev/null 2>&1 && echo cuda || echo cpu)
PYTHON ?= $(shell for p in python3 python3.11 python3.12 python3.13; do \
  $$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
comma := ,
EXTRAS := $(if $(filter cuda,$(FLAVOUR)),dev$(comma)cuda,dev)
INDEX := $(if $(filter cpu,$(FLAVOUR)),--no-deps --extra-index-url https://download.pytorch.org/whl/cpu,)
PINS := .constraints/$(FLAVOUR).txt
STAMP := .venv/installed-$(FLAVOUR)
BIN := .venv/bin
BARE := $(CURDIR)/.venv/bare
TRL := .venv/trl
ARGS ?=

.DEFAULT_GOAL := help
.PHONY: help install train test test-bare test-browser test-slurm test-slow test-gpu bench bench-data bench-submit bench-cli bench-busy bench-evaluate bench-default bench-report bench-sizes bench-memory bench-evenness picture lint format

help:  ## this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/\1|\2/' | \
	  while IFS='|' read -r name text; do printf '  make %-10s %s\n' "$$name" "$$text"; done

install: $(STAMP)  ## make .venv with pinned packages, for CUDA where nvidia-smi is; FLAVOUR=cpu or cuda decides

$(STAMP): pyproject.toml $(PINS)
	@test -n "$(PYTHON)" || { echo "python 3.11 or newer was not found; set PYTHON=/path/to/python3"; exit 2; }
	@test -x $(BIN)/python || { echo "making .venv with $(PYTHON)"; $(PYTHON) -m venv .venv; }
	@echo "installing torch ($(FLAVOUR)), which takes a minute or more"
	@$(BIN)/python -m pip install -qq --retries 1 -c $(PINS) $(INDEX) torch
	@echo "installing qhk and what it needs"
	@$(BIN)/python -m pip install -q -c $(PINS) -e '.[$(EXTRAS)]'
	@touch $@

train: install  ## train the default: the tiny model on miniature sets; ARGS="seed=1" passes overrides
	@$(BIN)/qhk train $(ARGS)

test: install  ## the test suite: offline, CPU, about five minutes on two cores
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n 2 --dist loadscope --no-loadscope-reorder $(ARGS)

# mount and umount stay in reach: the tests of a full disk make one with them.
test-bare: install  ## the same with no other program in reach: no SLURM, nvidia-smi, browser, git or shell
	@mkdir -p $(BARE) && for name in mount umount; do ln -sf "$$(command -v $$name)" $(BARE)/$$name; done
	@OMP_NUM_THREADS=1 PATH=$(BARE) $(BIN)/python -m pytest -q -n 2 --dist loadscope --no-loadscope-reorder $(ARGS)

test-browser: install  ## the review page and the report in a real Chromium, two minutes; needs one on this machine
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -rs -m browser $(ARGS)

test-slurm: install  ## sweeps on a real SLURM of two nodes, which apt installs where it may; some minutes
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -rs -m "slurm and not slow" tests/slurm $(ARGS)

test-slow: install  ## tests that take minutes
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -m slow $(ARGS)

test-gpu: install  ## tests that need a CUDA device
	@$(BIN)/python -m pytest -q -m gpu $(ARGS)

lint: install  ## ruff and mypy
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy

format: install  ## let ruff rewrite what it can
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

bench-submit: install  ## seconds from the command to thirty cells submitted, on the same SLURM
	@OMP_NUM_THREADS=1 $(BIN)/python -m tests.bench.submit_cells $(ARGS)

bench: install $(TRL)  ## a whole step beside TRL's: time by part, peak memory; ARGS=--quick for one small cell
	@OMP_NUM_THREADS=1 PYTHONPATH=$(TRL) $(BIN)/python -m tests.bench.step $(ARGS)

# A folder of its own: the project's environment never holds TRL, whose other needs are the project's own.
$(TRL): .constraints/bench.txt
	@mkdir -p $@ && $(BIN)/python -m pip install -q --no-deps --target $@ -r $< || \
	  { rm -rf $@; echo "TRL could not be installed"; }

bench-data: install  ## opening a set of 10,000 images, cold and warm, and decoding it
	@OMP_NUM_THREADS=1 $(BIN)/python -m tests.bench.open_set $(ARGS)

bench-cli: install  ## CPU seconds of common commands beside an import of torch, two minutes
	@OMP_NUM_THREADS=1 $(BIN)/python -m tests.bench.commands $(ARGS)

bench-busy: install  ## a run of two threads alone and beside another one, with waiting and spinning threads
	@$(BIN)/python -m tests.bench.busy_neighbour $(ARGS)

bench-evaluate: install  ## images per second of the read-outs beside a plain generate loop, a few minutes
	@OMP_NUM_THREADS=1 $(BIN)/python -m tests.bench.evaluate $(ARGS)

bench-default: install  ## where the default ends and what it goes through, 20 trajectories, two hours; goes on where it stopped
	@$(BIN)/python -m tests.bench.default $(ARGS)

bench-report: install  ## a report of 200 synthetic runs: time, size, and time until a browser has drawn it
	@OMP_NUM_THREADS=1 $(BIN)/python -m tests.bench.report_page $(ARGS)

bench-sizes: install  ## how often each test of two methods, and of modules, is wrong, and how often it finds what is there
	@OMP_NUM_THREADS=1 $(BIN)/python -m tests.bench.sizes $(ARGS)

bench-memory: install  ## the planner's memory beside what runs of one step take, three minutes
	@OMP_NUM_THREADS=1 $(BIN)/python -m tests.bench.memory_plan $(ARGS)

bench-evenness: install  ## how uneven processes and micro-batches are before and after prompts are dealt out
	@$(BIN)/python -m tests.bench.evenness $(ARGS)

picture: install  ## .github/report.png, the upper part of a report; ARGS="REPORT.html .github/report.png"
	@$(BIN)/python -m tests.bench.picture $(ARGS)
