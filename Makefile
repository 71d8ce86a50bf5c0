# make quickstart   set up, then train a small model and score it, from nothing, in a few minutes
# make test         set up, then the fast checks and every test
# make check        ruff, formatting, mypy --strict, import contracts, generated pages
# make unit         the unit tests alone, under a minute
# make docs         write the generated pages again
# make reliability  every case of docs/reliability.md, the long ones too, and the page itself
# make fuzz         every reader of foreign files for FUZZ_SECONDS each (600); findings are left in .fuzz
# make bench        every benchmark, each prints its ratios

PYTHON ?= python3
BIN := .venv/bin
export PIP_DISABLE_PIP_VERSION_CHECK = 1

.PHONY: quickstart test unit check lint docs reliability fuzz bench clean

quickstart: .venv/installed
	$(BIN)/unilmctl preprocess recipes/quickstart.yaml
	$(BIN)/unilmctl finetune recipes/quickstart.yaml
	$(BIN)/unilmctl generate data/numbers/test.jsonl --model runs/quickstart --output runs/quickstart/test.out
	$(BIN)/unilmctl evaluate runs/quickstart/test.out data/numbers/test.jsonl --metric exact_match --metric bleu --metric chrf

test: lint
	$(BIN)/python -m pytest -n 2 --durations=5

unit: .venv/installed-dev
	$(BIN)/python -m pytest tests/unit

lint: .venv/installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

check: lint
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python docs/generate.py --check

docs: .venv/installed-dev
	$(BIN)/python docs/generate.py

reliability: .venv/installed-dev
	$(BIN)/python docs/reliability.py

FUZZ_SECONDS ?= 600

fuzz: .venv/installed-dev
	$(BIN)/python -m pip install -qq -c constraints.txt -e ".[dev,fuzz]"
	$(BIN)/python tests/fuzz/fuzzing.py $(FUZZ_SECONDS)

bench: .venv/installed-dev
	$(BIN)/python -m pip install -qq -c constraints.txt -e ".[bench]"
	$(BIN)/python benchmarks/startup_speed.py
	$(BIN)/python benchmarks/preprocess_speed.py
	$(BIN)/python benchmarks/decode_speed.py --quick
	$(BIN)/python benchmarks/train_speed.py --quick

# The marks are older than what they depend on when the dependencies changed: only then does pip run again.
.venv/installed: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install -qq -c constraints.txt -e .
	touch $@

.venv/installed-dev: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install -qq -c constraints.txt -e ".[dev]"
	touch .venv/installed $@

clean:
	rm -rf .venv build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
