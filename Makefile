# Every target makes what it needs first; interrupting one leaves nothing that the next run takes for finished.
PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11; do $$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
VENV := .venv
BIN := $(VENV)/bin
CLIENTS := build/clients
ARGS ?=

.PHONY: setup serve test check docs screenshot bench divergence soak fuzz clients clean

setup: $(VENV)/.dev

serve: $(VENV)/.run
	@exec $(BIN)/python cli.py serve $(ARGS)

test: check
	$(BIN)/python -m pytest $(ARGS)

check: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python docs/generate.py --check

docs: $(VENV)/.dev
	$(BIN)/python docs/generate.py

screenshot: $(VENV)/.dev
	$(BIN)/python docs/screenshot.py

bench: $(VENV)/.run
	$(BIN)/python cli.py bench --write docs/benchmarks.md

divergence: $(VENV)/.dev
	$(BIN)/python -m tests.soak.divergence $(ARGS)

soak: $(VENV)/.dev
	$(BIN)/python -m tests.soak.parent_memory
	$(BIN)/python -m tests.soak.structure
	$(BIN)/python -m tests.soak.prefixes
	$(BIN)/python -m tests.soak.conversations
	$(BIN)/python -m tests.soak.low_memory
	$(BIN)/python -m tests.soak.lookups
	$(BIN)/python -m tests.soak.watched
	$(BIN)/python -m tests.soak.repetition

fuzz: $(VENV)/.dev
	$(BIN)/python -m tests.soak.fuzz $(ARGS)

clients: $(VENV)/.dev $(CLIENTS)/.made
	$(BIN)/python -m pytest -o python_files="agents.py libraries.py" tests/soak/clients $(ARGS)

clean:
	rm -rf $(VENV) $(CLIENTS) .cache .mypy_cache .ruff_cache .pytest_cache .import_linter_cache *.egg-info

# A stamp is written last: a half-made environment has none, and is made anew.
$(VENV)/.made:
	@test -n "$(PYTHON)" || { echo "Troupe needs Python 3.11 or later; set PYTHON=/path/to/python3.11"; exit 1; }
	$(PYTHON) -m venv --clear $(VENV)
	@touch $@

$(VENV)/.run: $(VENV)/.made pyproject.toml
	@echo "Installing Troupe into $(VENV) (about a minute) ..."
	@$(BIN)/python -m pip install --disable-pip-version-check -q -e .
	@touch $@

$(VENV)/.dev: $(VENV)/.made pyproject.toml
	@echo "Installing Troupe and its tools into $(VENV) (about a minute) ..."
	@$(BIN)/python -m pip install --disable-pip-version-check -q -e '.[dev]'
	@touch $@ $(VENV)/.run

# The agents come from npm, the libraries from the package index; neither touches Troupe's own environment.
$(CLIENTS)/.made: $(VENV)/.made tests/soak/clients/package.json tests/soak/clients/requirements.txt
	@echo "Installing the clients into $(CLIENTS) (1.5 GB) ..."
	@mkdir -p $(CLIENTS)
	@cp tests/soak/clients/package.json $(CLIENTS)
	@npm install --prefix $(CLIENTS) --no-audit --no-fund --no-update-notifier --loglevel=error
	@$(BIN)/python -m venv --clear $(CLIENTS)/venv
	@$(CLIENTS)/venv/bin/python -m pip install --disable-pip-version-check -q -r tests/soak/clients/requirements.txt
	@touch $@
