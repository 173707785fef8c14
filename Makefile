# Every target is one plain command of the README; `make` alone lists them.

PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.locked
# Beside the packages, because JAX would look for a TPU wherever it finds the compiler.
TPU_COMPILER := $(VENV)/tpu-compiler
OUT ?= out
DEMO ?= demo
LEARN ?= learn
CONFIG ?= tiny
WORKDIR ?= run
CHECKPOINT ?= base
TASK ?= vcr
TEST_PROCESSES ?= 2
INIT ?= base
REPORT ?= report
EXTRAS ?= --extra worker --extra train --extra ask --extra view --extra demo --extra dev
RUN := PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python

.DEFAULT_GOAL := help
.PHONY: help setup doctor demo learn test test-faults test-gcs lint compile preprocess pretrain finetune ask app status stats report bench clean

help: ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 16

setup: $(STAMP) ## make .venv from the lock file; needs Python 3.11 and the package registry only

$(STAMP): pyproject.toml uv.lock
	@command -v $(PYTHON) >/dev/null || { echo "error: $(PYTHON) was not found; install Python 3.11 or pass PYTHON=..."; exit 1; }
	@echo "setting up $(VENV): half a minute to three, 5 GB of disk (packages already in uv's cache are linked, not copied)"
	@test -x $(BIN)/uv || { $(PYTHON) -m venv $(VENV) && $(BIN)/python -m pip install --quiet uv; }
	UV_PROJECT_ENVIRONMENT=$(VENV) $(BIN)/uv sync --frozen --inexact $(EXTRAS)
	@$(BIN)/uv export --quiet --frozen --no-hashes --no-emit-project --extra tpu | grep '^libtpu==' \
	  | $(BIN)/uv pip install --quiet --no-deps --target $(TPU_COMPILER) -r - || echo "there is no TPU compiler for this machine"
	@touch $(STAMP)
	@du -sh $(VENV) | sed -E 's/^([^\t]*).*/$(VENV) is ready and takes \1/'

doctor: $(STAMP) ## check what this machine has and lacks
	$(RUN) -m pipelines.doctor

demo: $(STAMP) ## the whole chain on videos made on this machine: shards, training, questions (DEMO=folder)
	$(RUN) -m pipelines.demo --out "$(DEMO)"

learn: $(STAMP) ## the demo with more videos and a long training (LEARN=folder)
	$(RUN) -m pipelines.demo --out "$(LEARN)" --videos 256 --steps 16000 --final-scale 0.05 \
	  --hearing-steps 6000 --evaluations 8 --questions 1500 --epochs 4

test: $(STAMP) ## every test that needs no accelerator and no network, shared by TEST_PROCESSES processes
	$(RUN) -m pytest -n $(TEST_PROCESSES) --dist loadfile -m "not faults and not gcs and not network and not gpu"

test-gcs: $(STAMP) ## the same files and jobs in a bucket, on an emulator that the tests start
	$(RUN) -m pytest -n $(TEST_PROCESSES) --dist worksteal -m gcs

test-faults: $(STAMP) ## kills, races and scale
	$(RUN) -m pytest -n $(TEST_PROCESSES) --dist worksteal -m "faults and not gcs"

lint: $(STAMP) ## ruff and pyright
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/basedpyright

compile: $(STAMP) ## compile the training step for accelerators that are not present: make compile CONFIG=base TOPOLOGY=v4:4x4x4 [ARGS=...]
	PYTHONPATH="$(CURDIR)/$(TPU_COMPILER)" $(RUN) -m train.compile $(CONFIG) --topology "$(TOPOLOGY)" $(ARGS)

preprocess: $(STAMP) ## videos to shards: make preprocess VIDEOS=folder OUT=folder [ARGS=...], or with RUNNER=DataflowRunner
	$(RUN) -m pipelines.preprocess $(if $(VIDEOS),--videos "$(VIDEOS)") $(if $(IDS),--ids "$(IDS)") $(if $(RAW),--raw "$(RAW)") --out "$(OUT)" \
	  $(if $(RUNNER),--runner=$(RUNNER)) $(if $(PROJECT),--project=$(PROJECT)) $(if $(REGION),--region=$(REGION)) \
	  $(if $(IMAGE),--sdk_container_image=$(IMAGE)) $(ARGS)

pretrain: $(STAMP) ## shards to weights: make pretrain DATA=folder CONFIG=tiny [WORKDIR=folder] [ARGS=...]
	$(RUN) -m train.pretrain $(CONFIG) --data "$(DATA)" --workdir "$(WORKDIR)" $(ARGS)

finetune: $(STAMP) ## questions to answers: make finetune TASK=vcr DATA=folder INIT=base [WORKDIR=folder] [ARGS=...]
	$(RUN) -m train.finetune $(TASK) --data "$(DATA)" --init "$(INIT)" --workdir "$(WORKDIR)" $(ARGS)

ask: $(STAMP) ## ask a video: make ask VIDEO=clip.mp4 PROMPT="... <|MASK|>" OPTIONS="a,b,c" [CHECKPOINT=base]
	$(RUN) -m pipelines.ask "$(VIDEO)" --prompt "$(PROMPT)" --options "$(OPTIONS)" --checkpoint "$(CHECKPOINT)" $(ARGS)

app: $(STAMP) ## a page on this machine for asking videos: make app [CHECKPOINT=base]
	$(RUN) -m pipelines.app --checkpoint "$(CHECKPOINT)" $(ARGS)

status: $(STAMP) ## how a preprocessing job is doing: make status DATA=folder
	$(RUN) -m pipelines.status "$(DATA)"

stats: $(STAMP) ## print the statistics of a data folder: make stats DATA=folder
	$(RUN) -m shards stats "$(DATA)"

report: $(STAMP) ## a page that shows a data folder: make report DATA=folder [REPORT=folder]
	$(RUN) -m shards report "$(DATA)" --out "$(REPORT)" $(ARGS)

bench: $(STAMP) ## the benchmarks, each beside its baseline
	@for file in benchmarks/*.py; do echo "== $$file"; $(RUN) -m benchmarks.$$(basename $$file .py) || exit 1; done

clean: ## remove the environment and caches
	rm -rf $(VENV) .pytest_cache .ruff_cache .hypothesis build *.egg-info
