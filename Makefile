# `make run` and `make test` are all a user needs; both install what they need, and are quick the second time.

PYTHON ?= python3
PIP = .venv/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt

# One more process than cores, up to five: tests also wait for the services that they start.
PYTEST = .venv/bin/python -m pytest -n $$(n=$$(getconf _NPROCESSORS_ONLN); [ $$n -lt 4 ] || n=4; echo $$((n + 1))) --dist loadfile
CHAOS = PYTHONPATH=.:tests .venv/bin/python -m chaos

.PHONY: run test test-slow install check fuzz chaos chaos-proof licences sbom bench model clean

run: .venv/.service
	exec .venv/bin/linserve-server

test: .venv/.development
	$(PYTEST) -m 'not slow'

test-slow: .venv/.development
	$(PYTEST) -m slow

install: .venv/.development

check: .venv/.development
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy
	.venv/bin/lint-imports
	.venv/bin/python supply/licences.py --check
	git ls-files -z | xargs -0 .venv/bin/detect-secrets-hook --no-verify
	.venv/bin/python supply/audit.py

fuzz: .venv/.development
	PYTHONPATH=tests .venv/bin/python tests/fuzz.py

licences: .venv/.development
	.venv/bin/python supply/licences.py

sbom: .venv/.development
	.venv/bin/python supply/sbom.py >sbom.cdx.json

bench: .venv/.development
	.venv/bin/python benchmarks/run.py

# make chaos MINUTES=30, or HOURS=2; 5 minutes otherwise. PHASE=kills plays that one alone.
# make chaos PHASE=three_trainers UPDATES=1000 goes on until 1,000 updates are made.
chaos: .venv/.development
	$(CHAOS) $(if $(MINUTES),--minutes $(MINUTES)) $(if $(HOURS),--hours $(HOURS)) $(if $(PHASE),--phase $(PHASE)) $(if $(UPDATES),--updates $(UPDATES))

chaos-proof: .venv/.development
	$(CHAOS) --prove

model: .venv/.service
	rm -f models/crop-yield/000001.safetensors models/crop-yield/current
	.venv/bin/python models/rebuild.py models

.venv/bin/python:
	$(PYTHON) -m venv .venv
	$(PIP) --upgrade pip

.venv/.service: .venv/bin/python pyproject.toml constraints.txt
	$(PIP) -e .
	touch $@

.venv/.development: .venv/.service
	$(PIP) -e '.[dev]'
	touch $@

clean:
	rm -rf .venv sbom.cdx.json .bench build *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache .schemathesis
