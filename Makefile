# make demo: phantom cohort, guided training, report.   make test: everything that guards main.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
CONSTRAINTS := constraints.txt
RUN := OMP_NUM_THREADS=2 $(BIN)/python -m

.PHONY: demo test install test-exact test-faults test-gpu lint format study phantom-study clean

# A plain and a guided network on a phantom whose training images carry a marker, side by side.
DEMO := +debug=demo paths.root=runs/demo
demo: $(VENV)/.installed
	$(RUN) glioma_xai.train +experiment=baseline $(DEMO)
	$(RUN) glioma_xai.train +experiment=lrp_guided $(DEMO)
	$(RUN) glioma_xai.compare runs/demo --output runs/demo

test: $(VENV)/.installed lint
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 -m "not exact and not faults and not gpu"

test-exact: $(VENV)/.installed
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 -m exact -s

test-faults: $(VENV)/.installed
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m faults

# On a machine with CUDA devices; prints how the time of a step grows.
test-gpu: $(VENV)/.installed
	$(BIN)/python -m pytest -n 0 -m gpu -s

# What guidance changes, recipe by recipe; goes on where it stopped. python -m benchmarks.guidance_study --price first.
study: $(VENV)/.installed
	OMP_NUM_THREADS=1 $(BIN)/python -m benchmarks.guidance_study --launcher joblib hydra.launcher.n_jobs=2
	$(BIN)/python -m benchmarks.guidance_study --document
	$(BIN)/python docs/figures/make_guidance_figures.py

# What a plain network learns on the phantom, with and without shortcuts; goes on where it stopped.
phantom-study: $(VENV)/.installed
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/phantom_study.py
	OMP_NUM_THREADS=1 $(BIN)/python benchmarks/phantom_study.py --spacing 2 --conditions head_tilt

lint: $(VENV)/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(VENV)/.installed
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

install: $(VENV)/.installed

$(VENV)/.installed: pyproject.toml $(CONSTRAINTS)
	$(PYTHON) -c "import sys; v = sys.version_info[:2]; sys.exit(None if (3, 11) <= v < (3, 14) else f'glioma_xai needs Python 3.11 to 3.13, found {v[0]}.{v[1]}: make PYTHON=python3.12 ...')"
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint $(CONSTRAINTS) --editable '.[dev]'
	touch $@

clean:
	rm -rf .mypy_cache .ruff_cache .pytest_cache build dist
