# Everything happens in .venv; `make demo` and `make test` set it up by themselves.
# LOCKED=1 installs what constraints-hashes.txt lists and nothing else: every file is fetched once against its hash,
# wheels only, and from then on no index is asked, by this file's targets either. CI does so; it needs CPython 3.11 on
# Linux x86-64 and a CPU build of torch in reach, and other machines do not, so that it is asked for and never assumed.
PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin
EXTRAS = export,openvino,ncnn-export,bench,pillow
NATIVE = cpp/build_library.py cpp/library/labels.cpp cpp/include/edgeseg/postprocess.hpp
STAMP = $(VENV)/.installed
SBOM = build/sbom
PIP = $(BIN)/python -m pip
INSTALL = $(PIP) install --quiet --constraint constraints.txt
LOCKED ?=

ifneq ($(LOCKED),)
WHEELS = $(CURDIR)/build/wheels
FETCHED = PIP_NO_INDEX=1 PIP_FIND_LINKS="$(WHEELS)"
endif

.PHONY: help venv demo test test-all test-matrix test-readme test-fuzz lint types wheel sbom lock check clean

help:
	@echo "make demo   a person cut out of a photograph: export, ONNX Runtime, Predictor"
	@echo "make test   the test suite;  make test-all  also the slow tests"
	@echo "make test-matrix test-readme test-fuzz   what CI runs besides: every system on every engine;  the README's"
	@echo "            commands, as they stand;  fuzzing for minutes"
	@echo "make lint types wheel   ruff;  mypy and pyright;  build the wheel and probe it outside the checkout"
	@echo "make sbom   what a device and an exporting machine install, as CycloneDX, in $(SBOM)/"
	@echo "make lock   fetch the hashes of constraints.txt anew, after a change there"

venv: $(STAMP)

ifeq ($(LOCKED),)
$(STAMP): pyproject.toml constraints.txt $(NATIVE)
	$(PYTHON) -m venv $(VENV)
	$(INSTALL) pip
	$(INSTALL) torch
	$(INSTALL) --build-constraint constraints.txt --editable '.[$(EXTRAS)]' --group test --group lint
	@touch $(STAMP)
else
$(STAMP): pyproject.toml constraints-hashes.txt $(NATIVE)
	rm -rf "$(WHEELS)"
	$(PYTHON) -m venv $(VENV)
	$(PIP) download --quiet --require-hashes --no-deps --only-binary :all: --requirement constraints-hashes.txt --dest "$(WHEELS)"
	$(FETCHED) $(PIP) install --quiet --require-hashes --no-deps --requirement constraints-hashes.txt
	$(FETCHED) $(PIP) install --quiet --no-deps --no-build-isolation --editable .
	$(PIP) check
	@touch $(STAMP)
endif

demo: $(STAMP)
	$(BIN)/python examples/demo.py

test: $(STAMP)
	$(BIN)/python -m pytest -n auto --dist worksteal -m "not slow and not gpu"

test-all: $(STAMP)
	$(BIN)/python -m pytest -n auto --dist worksteal

test-matrix: $(STAMP)
	$(BIN)/python -m pytest -n auto --dist worksteal -m "not gpu" -k "one_network_of_each_system" tests/test_matrix.py

test-readme: $(STAMP)
	$(BIN)/python -m pytest -s -m "slow and not gpu" tests/test_readme_commands.py

test-fuzz: $(STAMP)
	$(BIN)/python -m pytest -n auto --dist worksteal -m "slow and not gpu" tests/fuzz

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(STAMP)
	$(BIN)/mypy
	$(BIN)/pyright --pythonpath $(BIN)/python

wheel: $(STAMP)
	$(FETCHED) PIP_CONSTRAINT="$(CURDIR)/constraints.txt" $(BIN)/python tests/probe_wheel.py

sbom: $(STAMP)
	$(FETCHED) $(BIN)/python -m tests.make_sbom $(SBOM)

lock: $(STAMP)
	$(BIN)/python -m tests.lock_hashes

check: test lint types wheel sbom

clean:
	rm -rf $(VENV) build dist out .pytest_cache .mypy_cache .ruff_cache .hypothesis
