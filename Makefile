# Each target makes .venv first if it must: Python 3.11 to 3.13 (with venv and pip) and make are all that is needed.
# Plain recipes only: macOS ships GNU make 3.81.

PYTHON ?= python3
# Set on make's command line, never from the environment (some systems export NAME):
PRESET = quick
NOTEBOOKS =
NAME =
ARGS =
# Notebooks at a time: quick mostly compiles, on one core; the others measure times, and may want all of a GPU.
JOBS = $(if $(filter quick,$(PRESET)),2,1)
CUDA = cuda13

# Processes for the tests (tests/conftest.py says how many); a file stays in one, for what it has compiled.
PARALLEL = -n auto --dist loadfile --no-loadscope-reorder

STAMP := .venv/.installed

# The user's own Python settings must not leak into .venv.
unexport PYTHONPATH PYTHONHOME

.PHONY: help run lab site test bench lint gpu matrix lock clean

help: ## this list
	@echo "make TARGET, where TARGET is one of"
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  %-7s %s\n", $$1, $$2 }' Makefile
	@echo "PYTHON=python3.12 picks the interpreter that .venv is made with (3.11 to 3.13; here: $(PYTHON))."

run: $(STAMP) ## run the notebooks into build/PRESET: make run PRESET=quick|class|full NOTEBOOKS="01" ARGS="--set seed=1"
	.venv/bin/mlkernels run $(NOTEBOOKS) --preset $(PRESET) --jobs $(JOBS) $(ARGS)

lab: $(STAMP) ## open JupyterLab, on a notebook if one is named: make lab NAME=01
	.venv/bin/mlkernels lab $(NAME) $(ARGS)

site: $(STAMP) ## the course as pages whose demos move without a kernel: build/site/index.html
	.venv/bin/mlkernels site $(ARGS)

test: $(STAMP) ## all tests on all cores, then lint: make test ARGS="-m 'not slow'"
	.venv/bin/python -m pytest $(PARALLEL) $(ARGS)
	@$(MAKE) --no-print-directory lint

bench: $(STAMP) ## the benchmarks, results in data/results
	.venv/bin/python -m benchmarks.run $(ARGS)

lint: $(STAMP) ## ruff on code and notebooks, and which folder may import which
	.venv/bin/python -m ruff check .
	.venv/bin/python -m ruff format --check .
	.venv/bin/python -c 'from importlinter import cli; cli.lint_imports_command()' --no-logo --no-cache

gpu: $(STAMP) ## add JAX's CUDA 13 libraries (several GB, Linux) to .venv; for older drivers: make gpu CUDA=cuda12
	.venv/bin/python -m pip install --disable-pip-version-check \
	  "jax[$(CUDA)]==$$(.venv/bin/python -c 'import importlib.metadata as m; print(m.version("jax"))')"
	.venv/bin/python -c 'import jax; print("devices:", jax.devices())'

matrix: ## the core's tests under Python 3.11 and 3.13 if found; kernels on JAX 0.11.2 with the least instructions; both graders
	bash tools/matrix.sh $(ARGS)

lock: ## renew requirements.txt after a change in pyproject.toml; make lock ARGS=--upgrade for newer versions
	sh tools/lock.sh "$(PYTHON)" $(ARGS)

clean: ## remove .venv, the matrix's environments and caches; keeps what was run (build/PRESET) and data
	rm -rf .venv build/venvs build/ci .pytest_cache .ruff_cache .hypothesis
	find mlkernels tests benchmarks tools -name __pycache__ -type d -prune -exec rm -rf {} +

$(STAMP): requirements.txt pyproject.toml tools/setup.sh
	@sh tools/setup.sh "$(PYTHON)" .venv
