# Everything happens in .venv; `make demo` and `make test` set it up by themselves.
PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
EXTRAS = export,openvino,numba,bench,pillow
STAMP = $(VENV)/.installed

.PHONY: help venv demo test test-all lint types wheel check clean

help:
	@echo "make demo   a person cut out of a photograph: export, ONNX Runtime, Predictor"
	@echo "make test   the test suite;  make test-all  also the slow tests"
	@echo "make lint types wheel   ruff;  mypy and pyright;  build the wheel and probe it outside the checkout"

venv: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --constraint constraints.txt torch
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[$(EXTRAS)]' --group test --group lint
	@touch $(STAMP)

demo: $(STAMP)
	$(BIN)/python examples/demo.py

test: $(STAMP)
	$(BIN)/python -m pytest -n auto --dist worksteal -m "not slow and not gpu"

test-all: $(STAMP)
	$(BIN)/python -m pytest -n auto --dist worksteal

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(STAMP)
	$(BIN)/mypy
	$(BIN)/pyright

wheel: $(STAMP)
	$(BIN)/python tests/probe_wheel.py

check: test lint types wheel

clean:
	rm -rf $(VENV) build dist out .pytest_cache .mypy_cache .ruff_cache .hypothesis
