# Two commands do all the set-up: `make demo` and `make test`. Both build .venv on first use.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt
RUN := demo-run

.PHONY: demo test test-recbole lint install dev clean

install: $(VENV)/.installed
dev: $(VENV)/.dev

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

# torch goes first and pinned: an unpinned torch would pull the CUDA build.
$(VENV)/.installed: setup.cfg pyproject.toml constraints.txt | $(VENV)/bin/python
	$(PIP) torch
	$(PIP) -e .
	touch $@

$(VENV)/.dev: $(VENV)/.installed
	$(PIP) -e '.[dev]'
	touch $@

# The package recbole ships the MovieLens-100k file; it is installed without its dependencies and never imported.
$(VENV)/.demo-data: $(VENV)/.installed
	$(PIP) --no-deps recbole==1.2.1
	touch $@

demo: $(VENV)/.demo-data
	$(BIN)/graphcl train sasrec --data ml-100k --out $(RUN) --epochs 40 --overwrite
	$(BIN)/graphcl report $(RUN)

# Two workers of one thread each: two of two threads would wait for each other.
test: $(VENV)/.dev
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile

# RecBole 1.2.1 needs older numpy, pandas and setuptools than we do: an environment of its own.
RECBOLE_VENV := .venv-recbole
RECBOLE_PIP := $(RECBOLE_VENV)/bin/python -m pip install --quiet --disable-pip-version-check

$(RECBOLE_VENV)/.installed: setup.cfg pyproject.toml
	$(PYTHON) -m venv $(RECBOLE_VENV)
	$(RECBOLE_PIP) torch "numpy<2" "pandas<3" "setuptools<81" scipy tqdm pyyaml colorlog colorama tensorboard texttable \
		tabulate plotly psutil scikit-learn thop pytest
	$(RECBOLE_PIP) --no-deps recbole==1.2.1
	$(RECBOLE_PIP) -e . "numpy<2" "pandas<3" "setuptools<81"
	touch $@

test-recbole: $(RECBOLE_VENV)/.installed
	OMP_NUM_THREADS=1 $(RECBOLE_VENV)/bin/python -m pytest tests/integrations

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy --strict graphcl tests
	$(BIN)/lint-imports

clean:
	rm -rf $(VENV) $(RECBOLE_VENV) $(RUN) build *.egg-info
