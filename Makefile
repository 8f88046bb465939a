# `make run` and `make test` are all that a user needs. Each target installs what it needs, and is quick the second time.

PYTHON ?= python3
PIP = .venv/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt
# One more process than cores, up to five, because tests also wait for the services that they start.
PYTEST = .venv/bin/python -m pytest -n $$(n=$$(getconf _NPROCESSORS_ONLN); [ $$n -lt 4 ] || n=4; echo $$((n + 1))) --dist loadfile --no-loadscope-reorder
# Files without a service. Those that take longest are left out: together they need more than half of the time.
LONG = sequences|divergence|comparison_of_errors|card_statistics|architecture|inheritance|parent|factor_error|conventions|downdate|thresholds|gradient_descent|descent_rows
ALONE = $$(grep -rLwE --include='test_*.py' '[Ss]ervice' tests | grep -vE '/test_($(LONG))\.py' | sort)
# Each process imports every file, and these packages take seconds to load.
FAST = $$(grep -LE '^(import|from) (scipy import stats|sklearn|statsmodels|torch)\b' $(ALONE))
# Floors of the coverage by these tests without a service, in percent of lines and branches. Most of the last five rooms needs a service.
FLOORS = registry:92 regression:80 storage:85 data:82 training:60 web:35 jobs:30 prediction:30 server:10
CHAOS = PYTHONPATH=.:tests .venv/bin/python -m chaos
# Known vulnerabilities that do not concern this service, each with the reason.
IGNORED_VULNERABILITIES =
# pysimdjson does not declare its licences: MIT, and Apache-2.0 for simdjson. Nor does axe-playwright-python: MIT, and
# MPL-2.0 for axe-core. CUDA builds of torch bring NVIDIA's packages.
UNDECLARED = pysimdjson axe-playwright-python $$(.venv/bin/python -m pip freeze | sed -nE 's/^((nvidia|cuda|triton)[^=]*)==.*/\1/p')

.PHONY: help run test test-fast test-slow test-failed coverage check prose audit pins licences sbom protocols fuzz chaos chaos-proof bench bench-cluster docs model install hooks clean

help: ## list all targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "make %-13s %s\n", $$1, $$2}' Makefile

run: .venv/.service ## serve on http://127.0.0.1:8000
	exec .venv/bin/linserve-server

test: .venv/.development ## run the tests, except the slow ones
	$(PYTEST) -m 'not slow and not protocols'

test-fast: .venv/.development ## run the tests that need no running service, in less than a minute
	.venv/bin/python -m pytest -q -n 2 --dist loadfile -m 'not slow and not protocols' $(FAST)

test-slow: .venv/.development ## run the slow tests
	@failed=0; $(PYTEST) -m 'slow and not alone' || failed=1; \
	.venv/bin/python -m pytest -m 'slow and alone' || failed=1; exit $$failed

test-failed: .venv/.development ## run the tests again that failed last time, one after the other
	.venv/bin/python -m pytest --last-failed --last-failed-no-failures none --exitfirst

protocols: .venv/.development ## run the clients of other servers against the service, each in an environment of its own
	.venv/bin/python -m pytest -n 2 -m protocols tests/protocols

coverage: .venv/.development ## run the tests with coverage, which has a floor for each package
	.venv/bin/python -m coverage erase
	.venv/bin/python -m coverage run -m pytest -q -n 2 --dist loadfile -m 'not slow and not protocols' $(ALONE)
	.venv/bin/python -m coverage combine --quiet
	@failed=0; for floor in $(FLOORS); do \
	    .venv/bin/python -m coverage report --format total --include "app/$${floor%:*}/*" --fail-under "$${floor#*:}" >/dev/null \
	        || { echo "app/$${floor%:*} is covered below its floor of $${floor#*:} %"; failed=1; }; \
	done; exit $$failed

check: .venv/.development prose audit ## lint, types, import contracts, prose, licences, secrets, known vulnerabilities
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy
	.venv/bin/lint-imports
	.venv/bin/pip-licenses --ignore-packages $(UNDECLARED) >/dev/null
	git ls-files -z | xargs -0 .venv/bin/detect-secrets-hook --no-verify

prose: .venv/bin/python ## count phrases that need a second reading; LIST=1 prints each place
	.venv/bin/python scripts/prose.py $(if $(LIST),--list)

audit: .venv/.development ## look for known vulnerabilities, if their database can be reached
	@if curl --silent --head --max-time 5 --output /dev/null https://api.osv.dev; then \
	    .venv/bin/pip-audit --requirement constraints.txt --no-deps --disable-pip --vulnerability-service osv \
	        --progress-spinner off $(IGNORED_VULNERABILITIES:%=--ignore-vuln %); \
	else echo "pip-audit not run: the database of vulnerabilities cannot be reached"; fi

pins: .venv/.development ## list installed packages whose version constraints.txt does not pin
	@! .venv/bin/python -m pip freeze --exclude-editable | sed 's/+.*//' | grep -vE '^(nvidia|cuda|triton)' | grep -vixFf constraints.txt

licences: .venv/.development ## list the licence of each package
	.venv/bin/pip-licenses --ignore-packages $(UNDECLARED)

sbom: .venv/.development ## write sbom.cdx.json, a bill of materials of what runs with the service
	$(PYTHON) -m venv --clear --without-pip .sbom
	.venv/bin/python -m pip --python .sbom/bin/python install --quiet --no-compile -c constraints.txt .
	.venv/bin/cyclonedx-py environment --pyproject pyproject.toml --output-file sbom.cdx.json .sbom/bin/python
	rm -rf .sbom

fuzz: .venv/.development ## send 100,000 requests made from the OpenAPI document, for 15 minutes or more
	PYTHONPATH=tests .venv/bin/python tests/fuzz.py

# MINUTES=30 or HOURS=2 for longer; PHASE=kills for one phase; PHASE=three_trainers UPDATES=1000 until 1,000 updates are made.
chaos: .venv/.development ## kill, stop and fill up a real service for 5 minutes
	$(CHAOS) $(if $(MINUTES),--minutes $(MINUTES)) $(if $(HOURS),--hours $(HOURS)) $(if $(PHASE),--phase $(PHASE)) $(if $(UPDATES),--updates $(UPDATES))

chaos-proof: .venv/.development ## plant bugs in the service, each of which the chaos harness must notice
	$(CHAOS) --prove

bench: .venv/.development ## compare the speed with other servers and libraries, in half an hour
	.venv/bin/python benchmarks/run.py

bench-cluster: .venv/.development ## measure trainings from files with 1, 2, 4 and 8 processes of this machine
	.venv/bin/python benchmarks/cluster.py

docs: .venv/.docs ## build the documentation into site/
	NO_MKDOCS_2_WARNING=1 .venv/bin/python -m mkdocs build --quiet

model: .venv/.service ## rebuild the shipped model from its 15 rows
	rm -f models/crop-yield/000001.safetensors models/crop-yield/current
	.venv/bin/python models/rebuild.py models

install: .venv/.development ## install for development

hooks: .venv/.development ## run the quick checks before each commit
	.venv/bin/pre-commit install

clean: ## remove everything that these targets make
	rm -rf .venv .protocols .sbom sbom.cdx.json site .bench build *.egg-info client/build client/*.egg-info .coverage* .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache .schemathesis

.venv/bin/python:
	$(PYTHON) -m venv .venv
	$(PIP) --upgrade pip

.venv/.service: .venv/bin/python pyproject.toml constraints.txt
	$(PIP) -e .
	touch $@

.venv/.development: .venv/.service client/pyproject.toml
	$(PIP) -e '.[dev]' -e ./client
	touch $@

.venv/.docs: .venv/.service client/pyproject.toml
	$(PIP) -e '.[docs]' -e ./client
	touch $@
