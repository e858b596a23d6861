# A clean clone on a fresh machine needs Python 3.11 or newer and nothing else: `make demo`, `make test`.
VENV ?= .venv
PYTHON ?= $(shell for p in python3 python3.14 python3.13 python3.12 python3.11; do \
	"$$p" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo "$$p" && break; done)
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed

.PHONY: demo test check lint types format install clean

demo: install  ## phantom archive to segmentation model and review page, in a few minutes
	$(BIN)/medssl demo

test: install  ## the whole test suite
	$(BIN)/python -m pytest $(PYTEST_ARGS)

check: lint types test  ## everything that must hold before a change lands

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: install
	$(BIN)/mypy

format: install
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

install: $(INSTALLED)

# Editable, so that only a change of the dependencies or entry points installs again.
$(INSTALLED): pyproject.toml
	@test -n "$(PYTHON)" || { echo "medssl needs Python 3.11 or newer, and none was found. Install one, or name it: make PYTHON=/path/to/python3.12 $(MAKECMDGOALS)"; exit 1; }
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "medssl needs Python 3.11 or newer; $(PYTHON) is `$(PYTHON) --version 2>&1`. Name another: make PYTHON=/path/to/python3.12 $(MAKECMDGOALS)"; exit 1; }
	@"$(PYTHON)" -c 'import ensurepip, venv' 2>/dev/null || { echo "$(PYTHON) cannot make virtual environments. On Debian or Ubuntu: apt install python3-venv"; exit 1; }
	"$(PYTHON)" -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[test]'
	@touch $@

clean:  ## removes the environment and the demo's output
	rm -rf $(VENV) demo
