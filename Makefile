.PHONY: setup test slow fuzz lint docs reference mlproject
setup:
	python3.11 -m venv .venv && .venv/bin/pip install -c constraints.txt -e ".[dev]"
test:
	.venv/bin/pytest
slow:
	.venv/bin/pytest -m slow
fuzz:
	SKILLSCALE_FUZZ=10000 .venv/bin/pytest -n 0 tests/fuzz
lint:
	.venv/bin/ruff check . && .venv/bin/ruff format --check . && .venv/bin/mypy
docs:
	.venv/bin/mkdocs build
reference:
	.venv/bin/python docs/make/reference.py build/reference
mlproject:
	.venv/bin/python -m skillscale.cli.mlproject > MLproject
