# `make` lists the targets. Needs make and Python 3.11 or later with venv; the rest goes into .venv.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
DEMO := build/demo

.PHONY: help install demo docs int8 baseline test test-all lint fmt bench bench-speed constraints clean
.DEFAULT_GOAL := help

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / {printf "make %-11s %s\n", $$1, $$2}' Makefile

install: $(INSTALLED) ## make .venv with ptq (editable) and the tools, at the versions of constraints.txt

$(INSTALLED): pyproject.toml constraints.txt
	@echo "installing into $(VENV) ..." >&2
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@

demo: $(INSTALLED) ## quantize a real text recognizer on real text lines and show what it costs
	@$(BIN)/python scripts/fetch_demo_model.py $(DEMO)/model.onnx
	$(BIN)/ptq quantize $(DEMO)/model.onnx --bits 8 --calib kl \
	    --calib-data calibration_data/ocr_lines.npz --eval-data calibration_data/ocr_lines_eval.npz \
	    -o $(DEMO)/model.int8.onnx --json $(DEMO)/report.json --report $(DEMO)/report.html --force
	@$(BIN)/python scripts/read_lines.py $(DEMO)/model.onnx $(DEMO)/model.int8.onnx

docs: $(INSTALLED) ## write docs/cli.md and docs/methods.md anew, from commands and from results
	$(BIN)/python scripts/write_cli_reference.py
	$(BIN)/python benchmarks/methods.py --page

int8: $(INSTALLED) ## convert and check what changed of MODELS=dir with CALIB=dir (examples/make/README.md)
	@$(MAKE) --no-print-directory -f examples/make/ptq.mk PTQ=$(BIN)/ptq $@

baseline: $(INSTALLED) ## keep the figures of these models as BASELINE=file.json
	@$(MAKE) --no-print-directory -f examples/make/ptq.mk PTQ=$(BIN)/ptq $@

test: $(INSTALLED) ## the tests, without the slow ones
	$(BIN)/pytest -n 2 --dist worksteal

test-all: $(INSTALLED) ## all tests, 1000 examples a property, then the demo
	HYPOTHESIS_PROFILE=thorough $(BIN)/pytest -n 2 --dist worksteal -m ''
	$(MAKE) demo

lint: $(INSTALLED) ## style, types, and who may import whom
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

fmt: $(INSTALLED) ## format, and fix what can be fixed
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench-speed: $(INSTALLED) ## compare the speed of what ptq and onnxruntime make (an hour)
	$(BIN)/python benchmarks/speed.py

bench: $(INSTALLED) ## compare with onnxruntime.quantization (minutes)
	$(BIN)/python benchmarks/run.py

constraints: ## write constraints.txt anew, at the newest versions that fit together
	$(PYTHON) -m venv --clear build/constraints
	build/constraints/bin/python -m pip install --quiet '.[dev]'
	sed -n '/^#/p' constraints.txt > build/constraints.txt
	build/constraints/bin/pip freeze --exclude ptq >> build/constraints.txt
	mv build/constraints.txt constraints.txt

clean: ## remove what was built, but keep .venv
	rm -rf build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -not -path './$(VENV)/*' -prune -exec rm -rf {} +
