# Everything starts here: `make` prints the targets. Needs Python 3.11 or newer, no root, no Docker.

ROOT := $(CURDIR)
VENV := $(ROOT)/.venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
GENERATED := gen/.generated
PROTOS := $(shell find protos -name '*.proto' -o -path protos/build.py)
PYTHON ?= $(shell for p in python3 python3.14 python3.13 python3.12 python3.11; do \
	if $$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then echo $$p; break; fi; done)
WORKERS ?= 2

export PYTHONDONTWRITEBYTECODE ?=
.DEFAULT_GOAL := help
.PHONY: help run env test check format proto proto-lint chaos bench demo clean clean-venv clean-data

help: ## Print the targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/\1|\2/p' $(MAKEFILE_LIST) | awk -F'|' '{printf "  make %-12s %s\n", $$1, $$2}'

run: env ## Start the whole platform here (Ctrl-C stops it)
	@exec $(BIN)/regulars up

env: $(INSTALLED) $(GENERATED) ## Make .venv from the lock and generate code

test: env ## Run all tests on real servers, with coverage
	@rm -f .coverage.txt; $(BIN)/python -m slipcover -m pytest -n $(WORKERS) $(ARGS) || exit; \
		echo "Coverage, of lines and branches, file by file: .coverage.txt"; tail -n 1 .coverage.txt; \
		if [ -z "$(ARGS)" ] && [ "$$(awk 'END {print $$NF}' .coverage.txt)" -lt 85 ]; then \
			echo "That is less than 85 %." >&2; exit 1; fi

check: env ## Lint, types, import contracts, contracts of the protos
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m protos.check

format: env ## Format the code
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

proto: $(INSTALLED) ## Generate code from the protos, needed or not
	$(BIN)/python protos/build.py
	@touch $(GENERATED)

chaos: env ## kill -9 everything over and over while all kinds of work flow, then check all of it (CHAOS_SECONDS=120)
	@CHAOS_SECONDS=$${CHAOS_SECONDS:-120} $(BIN)/pytest -s tests/chaos $(ARGS)

demo: env ## Import a real purchase history into the running stack, or one of its own
	@$(BIN)/regulars demo $(ARGS)

bench: env ## Measure speed, each figure beside its limit
	$(BIN)/python -m bench $(ARGS)

clean: ## Remove generated code and caches; data and .venv stay
	rm -rf gen gen.new gen.old .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache .coverage* htmlcov
	find . -name __pycache__ -type d -not -path './.venv/*' -prune -exec rm -rf {} +

clean-venv: ## Remove .venv; the next target makes it again
	rm -rf $(VENV)

clean-data: ## Stop the stack of this directory and remove its data
	@if [ -x $(BIN)/regulars ]; then $(BIN)/regulars down --remove-data; else rm -rf .regulars; fi

$(GENERATED): $(PROTOS) $(INSTALLED)
	@echo "Generating code from the protos …"
	@$(BIN)/python protos/build.py
	@touch $@

# uv is fast and takes its own version and hash from the lock; where it does not work, pip does the same slowly.
$(INSTALLED): requirements.lock Makefile
	@if [ -z "$(PYTHON)" ]; then echo "Python 3.11 or newer is needed, and none was found. Name one: make PYTHON=/path/to/python3 $(MAKECMDGOALS)" >&2; exit 1; fi
	@if [ ! -x $(BIN)/python ] || ! $(BIN)/python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then \
		echo "Making .venv with $$($(PYTHON) --version) …"; rm -rf $(VENV); \
		$(PYTHON) -m venv $(VENV) >$(ROOT)/.venv.log 2>&1 || { cat $(ROOT)/.venv.log >&2; rm -rf $(VENV) $(ROOT)/.venv.log; \
			echo "$(PYTHON) cannot make an environment: its modules venv and ensurepip are needed (on Debian: python3-venv)." >&2; exit 1; }; \
		rm -f $(ROOT)/.venv.log; fi
	@echo "Installing packages from requirements.lock …"
	@awk '/^uv==/ {found=1} found {print} found && !/\\$$/ {exit}' requirements.lock >$(VENV)/uv.lock
	@{ $(BIN)/python -m pip install -q --disable-pip-version-check --require-hashes --no-deps -r $(VENV)/uv.lock \
		&& UV_SYSTEM_CERTS=1 $(BIN)/uv pip sync -q --compile-bytecode --python $(BIN)/python --require-hashes requirements.lock; } \
		|| { echo "uv did not do it; trying pip …"; \
		$(BIN)/python -m pip install -q --disable-pip-version-check --require-hashes -r requirements.lock; }
	@printf '%s\n%s\n' '$(ROOT)' '$(ROOT)/gen' >"$$($(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/regulars.pth"
	@printf '#!/bin/sh\nexec "%s/python" -P -m libs.run.cli "$$@"\n' '$(BIN)' >$(BIN)/regulars
	@chmod +x $(BIN)/regulars
	@touch $@
