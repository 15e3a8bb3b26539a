# One command from a fresh checkout: `make demo`, or `make test`. `make` alone lists them all.

PYTHON ?= python3
BIN := .venv/bin
INSTALLED := .venv/.installed
# Without the compiled files, every process that the tests start would compile all modules again.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help demo test test-slow smoke docs lint format dist clean

help: ## list what there is to make
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/\1 \2/p' $(MAKEFILE_LIST) | while read -r name about; do printf 'make %-9s %s\n' "$$name" "$$about"; done

demo: $(INSTALLED) ## find wrong labels in bundled images; the report is runs/demo/report.html
	$(BIN)/labelsieve demo --out runs/demo --overwrite

test: lint ## ruff, mypy and the tests but for the slow ones, some minutes
	$(BIN)/pytest

test-slow: $(INSTALLED) ## the slow tests: several processes, kills, a compiler; some minutes
	$(BIN)/pytest -m slow

smoke: $(INSTALLED) ## every shipped experiment on next to nothing, some minutes
	$(BIN)/labelsieve bench --smoke

docs: $(INSTALLED) ## the documentation as a site, build/docs/index.html; offline, warnings are errors
	$(BIN)/pip install --quiet -c constraints.txt -e '.[docs]'
	rm -rf docs/reference/generated
	$(BIN)/sphinx-build --quiet --nitpicky --fail-on-warning --fresh-env docs build/docs

lint: $(INSTALLED) ## ruff and mypy
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	MYPY_NUM_WORKERS=2 $(BIN)/mypy

format: $(INSTALLED) ## let ruff fix what it can
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

dist: $(INSTALLED) ## build and check what is uploaded to PyPI, in dist/
	$(BIN)/pip install --quiet -c constraints.txt -e '.[release]'
	rm -rf dist
	$(BIN)/python -m build
	$(BIN)/twine check --strict dist/*

clean: ## remove runs, builds and caches
	rm -rf runs build dist docs/reference/generated .mypy_cache .pytest_cache .ruff_cache .hypothesis src/*.egg-info
	find src tests tools -name __pycache__ -type d -exec rm -rf {} +

# Installed again when a dependency changes.
$(INSTALLED): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet -c constraints.txt -e '.[dev]'
	touch $@
