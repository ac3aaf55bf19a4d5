# `make demo` and `make test` need nothing but Python 3.11 or newer and make: they set up .venv first.

WORKERS ?= 2
MINUTES ?= 5
PYTEST   = .venv/bin/python -m pytest $(ARGS)
PARALLEL = -n $(WORKERS) --dist worksteal --ignore=tests/benchmarks

# TensorFlow reads these when it is imported.
export TF_CPP_MIN_LOG_LEVEL = 3
export CUDA_VISIBLE_DEVICES = -1
# Where this is set, every process that a test starts would compile kprune anew.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help demo test lint bench bench-accuracy models nightly fuzz

help: ## list these verbs
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-14s %s\n", $$1, $$2 }' Makefile

demo: .venv/ready ## inspect a sample model, remove units from it, verify what is left
	@rm -rf .demo && mkdir .demo
	@set -e; PATH="$(CURDIR)/.venv/bin:$$PATH"; \
	show() { printf '\n$$ %s\n' "$$*"; "$$@"; }; \
	model=sample_models/digits_cnn.keras small=.demo/digits_cnn.small.keras; \
	show kprune inspect $$model; \
	show kprune remove $$model conv_3:0-7 hidden:0-31 -o $$small; \
	show kprune verify $$model $$small --data sample_models/digits_test.npz; \
	printf '\nPlain Keras loads it: keras.models.load_model("%s")\n' $$small

test: .venv/ready ## run the tests (ARGS="-k labels" and the like go to pytest)
	@$(PYTEST) $(PARALLEL) -m "not nightly" tests

nightly: .venv/ready ## run the tests that take minutes
	@$(PYTEST) $(PARALLEL) -m nightly tests

fuzz: .venv/ready ## run kprune on damaged files at random for MINUTES=5; what fails is kept for the tests (ARGS="--kinds hdf5 --seed 1")
	@nice .venv/bin/python -m tests.hostile.fuzz --minutes $(MINUTES) $(ARGS)

lint: .venv/ready ## check style and types
	@.venv/bin/python -m ruff format --check .
	@.venv/bin/python -m ruff check .
	@.venv/bin/python -m mypy

bench: .venv/ready ## print time and memory beside those of cp and of Keras
	@$(PYTEST) -s tests/benchmarks

bench-accuracy: .venv/ready ## print the accuracy that each criterion keeps, cut, refitted and trained (some hours; resumes; ARGS=--larger for larger models)
	@.venv/bin/python -m tests.benchmarks.accuracy $(ARGS)

models: .venv/ready ## train the sample models anew
	@.venv/bin/python sample_models/make_models.py

# .venv/ready holds the folder that the environment was made for: in a copy of this folder, the
# `kprune` command and the editable install would still lead to the original.
ifneq ($(shell cat .venv/ready 2>/dev/null),$(CURDIR))
.PHONY: .venv/ready
endif

# A Python is taken if it can make an environment; up to 3.13 first, since TensorFlow's wheels
# come later than a new Python.
.venv/ready: pyproject.toml
	@rm -f $@
	@.venv/bin/python -m pip --version >/dev/null 2>&1 || { \
	  for below in 14 100; do \
	    for python in $(or $(PYTHON),python3 python3.13 python3.12 python3.11 python3.14 python); do \
	      "$$python" -c "import sys, venv, ensurepip; sys.exit(not (3, 11) <= sys.version_info < (3, $$below))" \
	        >/dev/null 2>&1 && found=$$python && break 2; \
	    done; \
	  done; \
	  if [ -z "$$found" ]; then \
	    echo "error: no Python to make .venv with" >&2; \
	    echo "where: tried $(or $(PYTHON),python3 python3.13 python3.12 python3.11 python3.14 python)" >&2; \
	    echo "why:   it must be 3.11 or newer and have the modules venv and ensurepip (Debian: python3-venv)" >&2; \
	    echo "do:    install one, or name it: make $(or $(MAKECMDGOALS),test) PYTHON=/path/to/python3" >&2; \
	    exit 1; \
	  fi; \
	  "$$found" -m venv --clear .venv; }
	@echo "Installing kprune and its tools into .venv; this takes a minute, once." >&2
	@.venv/bin/python -m pip install --quiet --disable-pip-version-check -e '.[dev]'
	@echo '$(CURDIR)' > $@
