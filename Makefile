# Two commands do everything: `make demo` and `make test`. Both build .venv once and reuse it.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
DEMO_DIR ?= runs/demo
# Processes of the tests; on two cores a third works while others wait for a disk or a child.
TEST_WORKERS ?= 3
PYTEST := $(BIN)/python -m pytest -n $(TEST_WORKERS) --dist loadfile --no-loadscope-reorder
# The most sensitive of the tests that compare what float32 programs compute. All of them:
#   make test-isa NUMERIC_TESTS="$(grep -rl --include='test_*.py' '^from tests.float32' tests)"
NUMERIC_TESTS ?= $(addprefix tests/, \
  train/test_t5x_parity.py train/test_step.py train/test_loss.py train/test_optimizer.py \
  models/test_attention.py models/test_layers.py models/test_encoder_decoder.py \
  eval/decoding/test_slots.py eval/scoring/test_score.py test_packing_equivalence.py)
export TF_CPP_MIN_LOG_LEVEL ?= 2
# Else each worker and child process of the tests compiles every module, and rewrites every assert.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo test covered test-fast test-isa bench extras lint style types docs constraints format clean help

help:  ## what the targets do
	@grep -E '^[a-z-]+:.*##' Makefile | sed -E 's/:.*## /\t/'

$(STAMP): setup.cfg pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(None if (3, 11) <= v < (3, 13) else "instruct needs Python 3.11 or 3.12, not %d.%d: make PYTHON=/path/to/python3.11" % v)'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $(STAMP)

demo: $(STAMP)  ## train, evaluate and report on a small mixture (runs/demo)
	$(BIN)/python run.py train --gin_file=gin/recipes/replica_counting.gin --gin.MODEL_DIR=$(DEMO_DIR)
	$(BIN)/python run.py eval --gin_file=gin/recipes/replica_counting.gin --gin.MODEL_DIR=$(DEMO_DIR)
	$(BIN)/python run.py report --model_dir=$(DEMO_DIR)

lint: style types  ## format, lint and types

style: $(STAMP)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

types: $(STAMP)
	$(BIN)/basedpyright --pythonpath $(BIN)/python

test: style  ## lint, and every test with line coverage
	@$(MAKE) --no-print-directory -j 2 types covered  # types take a core for half a minute

covered: $(STAMP)
	$(PYTEST) -p tests.line_coverage

test-fast: $(STAMP)  ## the tests without the marker `slow`: about a minute on two cores
	$(PYTEST) -m 'not slow'

bench: $(STAMP)  ## measure speed for ten minutes: a row of docs/performance.md, `Over versions`
	$(BIN)/python benchmarks/over_versions.py

docs: $(STAMP)  ## the documentation as a site, in build/site
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build -q

constraints:  ## lock the newest versions that setup.cfg allows (constraints.txt); run the tests after
	rm -rf build/lock
	$(PYTHON) -m venv build/lock
	build/lock/bin/python -m pip install -q --disable-pip-version-check -e '.[dev]'
	{ sed -n '/^#/p' constraints.txt; build/lock/bin/python -m pip freeze --exclude-editable | sed 's/+cpu$$//'; } > build/constraints.txt
	mv build/constraints.txt constraints.txt

test-isa: $(STAMP)  ## the numeric tests as processors without AVX-512 and without AVX compute
	@for isa in AVX2 SSE4_2; do echo "numeric tests with $$isa:"; \
	  XLA_FLAGS="--xla_cpu_max_isa=$$isa $(XLA_FLAGS)" $(PYTEST) $(NUMERIC_TESTS) || exit 1; done

extras: $(STAMP)  ## let pip resolve all extras together; needs the package index
	@for jax in gpu tpu; do echo "all extras, $$jax:"; \
	  $(BIN)/python -m pip install -q --disable-pip-version-check --dry-run --ignore-installed \
	    -e ".[$$jax,hf,beam,ner,wandb,mlflow,serve,lm-eval,dev]" || exit 1; done

format: $(STAMP)  ## rewrite files in the project's format
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:  ## remove what make built (not the runs)
	rm -rf $(VENV) build *.egg-info .pytest_cache .ruff_cache .coverage*
