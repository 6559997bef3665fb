# Every target works from a fresh clone. Another interpreter: make PYTHON=python3.12 venv

SHELL := /bin/bash
.DEFAULT_GOAL := help
PYTHON ?= python3
VENV := .venv
BENCH := .venv-bench
# Tests at the same time, a file each; a job takes up to two cores and 4 GB.
JOBS ?= 2
PIP_FLAGS := --disable-pip-version-check --no-input --quiet
export PIP_NO_WARN_SCRIPT_LOCATION := 1

.PHONY: help demo test test-fast lint docs experiments experiments-smoke venv bench-venv lock lock-bench check-python clean

help: ## this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-11s %s\n", $$1, $$2}'

demo: venv ## the whole method at small scale: two stages, measured, in runs/demo (CPU, about 15 minutes)
	$(VENV)/bin/salad run recipes/demo.yaml

test: lint ## lint, types and every test, the slow ones included
	$(VENV)/bin/python -m pytest --numprocesses $(JOBS) --dist loadfile --no-loadscope-reorder

test-fast: venv ## the quick tests alone (a few minutes)
	$(VENV)/bin/python -m pytest --numprocesses $(JOBS) --dist loadfile --no-loadscope-reorder -m "not slow and not kill"

lint: venv ## ruff (rules and format) and mypy
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy

CLAIMS := distillation_law broad_domain explained_accuracy active_selection more_training text_mix selection_knobs voices stage_zero curriculum controlled_selection on_policy

experiments: venv ## the paper's claims at small scale, all arms that are not there yet (hours; MINUTES=30 stops in between)
	@for claim in $(CLAIMS); do $(VENV)/bin/python -m experiments.$$claim $(if $(MINUTES),--minutes $(MINUTES)) || exit 1; done

experiments-smoke: venv ## each experiment at a size that only shows that it works (minutes)
	@for claim in $(CLAIMS); do $(VENV)/bin/python -m experiments.$$claim --toy || exit 1; done

docs: venv ## the docs as a site, in build/site; warnings are errors
	NO_MKDOCS_2_WARNING=1 $(VENV)/bin/mkdocs build --strict --quiet
	@echo build/site/index.html

# An environment is whole when its stamp is there; the stamp goes first and comes last, so that one cut off half-way is
# made anew. `locked` stands for the lock's packages, `installed` for salad itself.
venv: check-python ## .venv with the locked dependencies and salad (editable)
	@$(VENV)/bin/python -c '' 2>/dev/null || rm -f $(VENV)/.locked $(VENV)/.installed
	@$(MAKE) -s --no-print-directory $(VENV)/.installed

bench-venv: check-python ## .venv-bench, which also has the peers that benchmarks compare with
	@$(BENCH)/bin/python -c '' 2>/dev/null || rm -f $(BENCH)/.locked $(BENCH)/.installed
	@$(MAKE) -s --no-print-directory $(BENCH)/.installed

$(VENV)/.locked: requirements.lock
$(BENCH)/.locked: requirements-bench.lock
$(VENV)/.locked $(BENCH)/.locked:
	@rm -f $@
	@echo "Making $(@D) from $< (about 2 GB; minutes the first time) ..."
	@$(PYTHON) -m venv --clear $(@D)
	@$(@D)/bin/python -m pip install $(PIP_FLAGS) -r $< || { echo "$(@D) is not whole: the packages of $< could not all be installed, for the reason above; the same command starts it anew." >&2; exit 2; }
	@touch $@

# hatchling and editables are in the lock, so nothing is fetched here.
%/.installed: %/.locked pyproject.toml
	@rm -f $@
	@$(@D)/bin/python -m pip install $(PIP_FLAGS) --no-deps --no-build-isolation --editable .
	@touch $@

check-python:
	@command -v $(PYTHON) >/dev/null || { echo "salad needs Python 3.11 or newer, and '$(PYTHON)' is not on the PATH; install python3 and python3-venv, or name another: make PYTHON=python3.12 venv" >&2; exit 2; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "salad needs Python 3.11 or newer, and '$(PYTHON)' is $$($(PYTHON) -V 2>&1); name a newer one: make PYTHON=python3.12 venv" >&2; exit 2; }
	@$(PYTHON) -c 'import venv, ensurepip' 2>/dev/null || { echo "'$(PYTHON)' has no venv module; install it (on Debian: apt-get install python3-venv) and try again." >&2; exit 2; }

# The pip of a fresh environment resolves pyproject.toml's bounds anew; only torch keeps its line.
lock: check-python ## write requirements.lock anew from pyproject.toml's bounds
	$(PYTHON) -m venv --clear build/lock
	build/lock/bin/python -m pip install $(PIP_FLAGS) "$$(grep '^torch==' requirements.lock)" setuptools hatchling editables --editable '.[dev,ray,serve,chat,mic,docs]'
	{ grep '^#' requirements.lock; build/lock/bin/python -m pip freeze --all --exclude-editable | grep -v '^pip==' | sed -E 's/^(torch==[^+]+)\+.*/\1/' | sort -f; } > build/requirements.lock
	mv build/requirements.lock requirements.lock
	rm -rf build/lock

# protobuf is the one package the peers hold back.
lock-bench: check-python ## write requirements-bench.lock anew from requirements.lock and the peers
	$(PYTHON) -m venv --clear build/lock
	grep -vE '^(#|protobuf==)' requirements.lock > build/without-protobuf.txt
	build/lock/bin/python -m pip install $(PIP_FLAGS) -r build/without-protobuf.txt liger-kernel==0.8.5 'trl==1.16.*' lm-eval==0.4.13 k-means-constrained==0.9.1
	{ grep '^#' requirements-bench.lock; build/lock/bin/python -m pip freeze --all | grep -v '^pip==' | sed -E 's/^(torch==[^+]+)\+.*/\1/' | sort -f; } > build/requirements-bench.lock
	mv build/requirements-bench.lock requirements-bench.lock
	rm -rf build/lock build/without-protobuf.txt

clean: ## remove the environments and the tools' caches; runs/ and the asset cache stay
	rm -rf $(VENV) $(BENCH) build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find src tests -name __pycache__ -type d -prune -exec rm -rf {} +
