# One command from a fresh checkout: `make demo`, or `make test`.

PYTHON ?= python3
BIN := .venv/bin
INSTALLED := .venv/.installed

.PHONY: demo test smoke docs lint format clean

demo: $(INSTALLED)
	$(BIN)/labelsieve demo --out runs/demo --overwrite

test: lint
	$(BIN)/pytest

# Every shipped experiment on next to nothing, in a few minutes.
smoke: $(INSTALLED)
	$(BIN)/labelsieve bench --smoke

# The documentation as a site, build/docs/index.html. The tutorial runs; nothing is downloaded; warnings are errors.
docs: $(INSTALLED)
	$(BIN)/pip install --quiet -c constraints.txt -e '.[docs]'
	$(BIN)/sphinx-build --quiet --nitpicky --fail-on-warning --fresh-env docs build/docs

lint: $(INSTALLED)
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

format: $(INSTALLED)
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

clean:
	rm -rf runs build dist docs/reference/generated .mypy_cache .pytest_cache .ruff_cache .hypothesis src/*.egg-info
	find src tests tools -name __pycache__ -type d -exec rm -rf {} +

# Installed again when a dependency changes.
$(INSTALLED): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet -c constraints.txt -e '.[dev]'
	touch $@
