# One command from a fresh checkout: `make demo`, or `make test`. `make` alone lists them all.

PYTHON ?= python3
BIN := .venv/bin
INSTALLED := .venv/.installed
# Without the compiled files, every process that the tests start would compile all modules again.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help demo test test-slow test-lowest test-newest smoke docs lint format dist clean

help: ## list what there is to make
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/\1 \2/p' $(MAKEFILE_LIST) | while read -r name about; do printf 'make %-11s %s\n' "$$name" "$$about"; done

demo: $(INSTALLED) ## find wrong labels in bundled images; the report is runs/demo/report.html
	$(BIN)/labelsieve demo --out runs/demo --overwrite

test: lint ## ruff, mypy and the tests but for the slow ones, some minutes
	$(BIN)/pytest

test-slow: $(INSTALLED) ## the slow tests: several processes, kills, a compiler; some minutes
	$(BIN)/pytest -m slow

# Each has an environment of its own. What the dependencies need in turn is as new as they allow. `make test-lowest
# TESTS=tests/unit/vlm/test_vlm.py` runs some of the tests.
test-lowest: ## all tests with the lowest versions that pyproject.toml allows
	$(PYTHON) -m venv .venv-lowest
	$(PYTHON) tools/lowest_versions.py > .venv-lowest/constraints.txt
	.venv-lowest/bin/pip install --quiet -c .venv-lowest/constraints.txt -e '.[dev]'
	.venv-lowest/bin/pytest $(TESTS)

test-newest: ## all tests with the newest versions, whatever constraints.txt says
	$(PYTHON) -m venv .venv-newest
	.venv-newest/bin/pip install --quiet --upgrade --upgrade-strategy eager -e '.[dev]'
	.venv-newest/bin/pytest $(TESTS)

smoke: $(INSTALLED) ## every shipped experiment on very small data, some minutes
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
