# Every target makes the environment it needs: on a new machine `make demo` and `make test` are enough.
# Without a GPU, PIP_ARGS="--extra-index-url https://download.pytorch.org/whl/cpu" saves gigabytes of CUDA libraries.
PYTHON ?= python3
PIP_ARGS ?=
VENV ?= .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: demo test test-all lint docs bench clean

demo: $(READY)  ## a synthetic corpus, a study on it, its table
	$(BIN)/raysd quickstart --folder quickstart

test: $(READY)  ## all tests but the slow ones
	$(BIN)/python -m pytest -m "not slow"

test-all: $(READY)  ## the slow ones too
	$(BIN)/python -m pytest

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright --pythonpath $(BIN)/python

docs: $(READY)  ## what is generated from the settings' classes and the schema of results
	$(BIN)/python -m raysd.results.schema > docs/parquet-schema.md
	$(BIN)/python -m raysd.study.reference > docs/study-file.md
	$(BIN)/raysd schema study > studies/study.schema.json
	$(BIN)/raysd schema recipe > studies/recipe.schema.json
	$(BIN)/raysd schema pretraining > studies/pretraining.schema.json

bench: $(READY)  ## each prints a ratio measured side by side; the README's table is made of them
	$(BIN)/python bench/run.py
	$(BIN)/python bench/table.py README.md

clean:
	rm -rf $(VENV) quickstart .pytest_cache .ruff_cache .hypothesis

$(READY): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13) and "raysd needs Python 3.11 to 3.13; set PYTHON=")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt $(PIP_ARGS) --editable ".[dev]"
	touch $@
