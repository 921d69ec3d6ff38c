# Every target works in a fresh clone, on a machine with Python >= 3.11 (with venv) and make: it sets .venv up first.
PYTHON ?= python3
BIN := .venv/bin
INSTALLED := .venv/.installed

.DEFAULT_GOAL := help
.PHONY: help setup demo test thorough check lint fix docs parity constraints clean

help: ## Show this list
	@awk -F':.*## ' '/^[a-z]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: $(INSTALLED) ## Make .venv and install potstill into it, at the versions of constraints.txt

$(INSTALLED): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "potstill needs Python 3.11 or newer. Name one: make setup PYTHON=python3.12" >&2; exit 1; }
	@echo "Setting up .venv (minutes, the first time) ..."
	@$(PYTHON) -m venv .venv
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@

demo: setup ## Distil the digits: teacher, baseline, student, and the table that compares them
	$(BIN)/potstill run recipe=digits

test: setup ## Pass the tests
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

thorough: setup ## Pass all tests there are, every loss on every task and launcher: before a release
	POTSTILL_THOROUGH=1 OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

check: lint ## Lint, format, types and the fast tests: before every commit
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 -m 'not slow and not gpu'

lint: setup ## ruff, ruff format, pyright
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright

fix: setup ## Let ruff mend what it can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: setup ## Write the table of losses in docs/losses.md anew from the docstrings
	$(BIN)/python -m potstill.reporting.loss_table conf/loss/term docs/losses.md

# The last two without their dependencies: pyproject.toml says why.
parity: setup ## Compare losses and gradients with the projects they come from, and print the table
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev,parity]'
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps torchdistill==1.1.5 torchtune==0.6.1
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.parity

# To move a version: edit its line in constraints.txt, `make test`, then this. To leave out what was installed by hand,
# `make clean` first. The local part of a version (torch==2.13.0+cpu) is dropped: one file serves machines with and
# without an accelerator.
constraints: setup ## Write constraints.txt anew from what .venv holds
	@echo "# All that is installed, dev extras included, as 'make constraints' found it. Ranges: pyproject.toml." > $@.new
	@$(BIN)/python -m pip freeze --all --exclude-editable --exclude pip | sed -E 's/\+[A-Za-z0-9.]+$$//' >> $@.new
	@mv $@.new constraints.txt && touch $(INSTALLED)

clean: ## Remove .venv and what tools leave behind; runs/ stays
	rm -rf .venv .pytest_cache .ruff_cache build dist
	find src tests benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +
