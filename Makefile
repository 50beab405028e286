# make run | test | lab | bench | site; PYTHON chooses the interpreter that .venv is made from, 3.10 or newer.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed

.PHONY: run test lab bench site

run: $(INSTALLED)  ## execute the whole series and print the ledger
	$(BIN)/python scripts/run_notebooks.py

test: $(INSTALLED)  ## lint, then run every test, with the coverage of the library
	$(BIN)/ruff check
	$(BIN)/python -m pip check --disable-pip-version-check
	$(BIN)/python -m pytest --cov

lab: $(INSTALLED)  ## open JupyterLab on the series
	$(BIN)/jupyter lab --notebook-dir nbs

bench: $(INSTALLED)  ## the post's way and ours side by side, with the full MNIST
	$(BIN)/python benchmarks/bench.py

site: run  ## execute the whole series and make the website from it, in _build/website
	$(BIN)/python scripts/website.py _build/website

$(INSTALLED): settings.ini setup.py pyproject.toml constraints.txt
	$(PYTHON) -c "import sys; sys.exit(sys.version_info < (3, 10) and 'Python 3.10 or newer is needed: make PYTHON=python3.12 run')"
	$(PYTHON) -m venv --clear $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[notebooks,dev]'
	touch $@
