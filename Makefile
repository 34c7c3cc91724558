.PHONY: setup test slow lint docs reference mlproject
setup:
	python3.11 -m venv .venv && .venv/bin/pip install -c constraints.txt -e ".[dev]"
test:
	.venv/bin/pytest
slow:
	.venv/bin/pytest -m slow
lint:
	.venv/bin/ruff check . && .venv/bin/ruff format --check . && .venv/bin/mypy
docs:
	.venv/bin/mkdocs build
reference:
	.venv/bin/python docs/make/reference.py build/reference
mlproject:
	.venv/bin/python -m skillscale.cli.mlproject > MLproject
