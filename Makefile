# make run | test | lab | edit | bench | race | site; PYTHON chooses the interpreter that .venv is made from, 3.10 or newer.
# FLAGS go to JupyterLab: make lab FLAGS="--no-browser --port 8899"; make lab OUTPUTS=1 shows the committed outputs
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
# What the surroundings say about where to install, or which modules to find first, is not meant for this environment.
export PIP_USER := 0
unexport PIP_TARGET PIP_PREFIX PYTHONPATH PYTHONHOME

.PHONY: run test lab edit bench race site

run: $(INSTALLED)  ## execute the whole series and print the ledger
	$(BIN)/python scripts/run_notebooks.py

test: $(INSTALLED)  ## lint, then run every test, with the coverage of the library
	$(BIN)/ruff check
	$(BIN)/python -m pip check --disable-pip-version-check
	$(BIN)/python -m pytest --cov

lab: $(INSTALLED)  ## open JupyterLab on working copies of the series, in lab/
	$(BIN)/python scripts/lab.py $(if $(OUTPUTS),--outputs) -- $(FLAGS)

edit: $(INSTALLED)  ## open JupyterLab on the sources
	$(BIN)/python scripts/lab.py --edit -- $(FLAGS)

bench: $(INSTALLED)  ## the post's way and ours side by side, with the full MNIST
	$(BIN)/python benchmarks/bench.py

race: $(INSTALLED)  ## the speed track: `fast` against the public record's recipe, with the full MNIST
	$(BIN)/python benchmarks/race.py

site: _build/playground.js  ## make the website from the notebooks as they are committed, in _build/website
	$(BIN)/python scripts/website.py $< _build/website

_build/playground.js: $(INSTALLED) scripts/playground.py $(wildcard mnist_scratch/*.py)
	mkdir -p _build
	$(BIN)/python scripts/playground.py $@

$(INSTALLED): settings.ini setup.py pyproject.toml constraints.txt
	$(PYTHON) -c "import sys; sys.exit(sys.version_info < (3, 10) and 'Python 3.10 or newer is needed: make PYTHON=python3.12 run')"
	$(PYTHON) -m venv --clear $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[notebooks,dev]'
	touch $@
