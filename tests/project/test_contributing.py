"""The contributor files name what there is: Makefile, CI, pre-commit and the page that explains them."""

import os
import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
CONTRIBUTING = (ROOT / "CONTRIBUTING.md").read_text()
MAKEFILE = (ROOT / "Makefile").read_text()
PRE_COMMIT = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())
CI = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text())


def targets():
    return re.findall(r"^(\w+):", MAKEFILE, re.MULTILINE)


def test_the_page_names_targets_that_the_makefile_has():
    assert set(re.findall(r"make (\w+)`", CONTRIBUTING)) <= set(targets())
    assert set(re.match(r"\.PHONY: (.*)", MAKEFILE)[1].split()) == set(targets())


@pytest.mark.skipif(shutil.which("make") is None, reason="no make")
def test_every_target_can_be_read_by_make():
    done = subprocess.run(["make", "-n", *targets()], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def test_make_sets_up_and_tests_as_the_readme_does():
    assert '.venv/bin/pip install -c constraints.txt -e ".[dev]"' in MAKEFILE
    assert "\t.venv/bin/pytest\n" in MAKEFILE


def test_ci_runs_the_script_on_every_supported_python():
    assert CI["jobs"]["test"]["strategy"]["matrix"]["python"] == ["3.11", "3.12", "3.13"]
    assert [step["run"] for step in CI["jobs"]["test"]["steps"] if "run" in step] == [".ci/run"]
    assert "PYTHON" in (ROOT / ".ci" / "run").read_text()
    assert os.access(ROOT / ".ci" / "run", os.X_OK)


def test_the_slow_tests_run_weekly():
    assert CI[True]["schedule"], "YAML reads the key `on` as true"
    assert any("slow" in step.get("run", "") for step in CI["jobs"]["slow"]["steps"])


def test_hooks_need_no_other_host_than_the_package_index():
    assert [repo["repo"] for repo in PRE_COMMIT["repos"]] == ["local"]
    hooks = {hook["id"]: hook for repo in PRE_COMMIT["repos"] for hook in repo["hooks"]}
    assert {"ruff-check", "ruff-format", "mypy", "codespell", "trailing-whitespace"} <= set(hooks)
    pins = [pin for hook in hooks.values() for pin in hook.get("additional_dependencies", [])]
    assert all(re.fullmatch(r"[\w-]+==[\d.]+", pin) for pin in pins)


def test_the_contributor_files_name_no_machine():
    files = [ROOT / name for name in ("CONTRIBUTING.md", "SECURITY.md", "Makefile", ".pre-commit-config.yaml")]
    files += [path for path in (ROOT / ".github").rglob("*") if path.is_file()]
    named = re.compile(r"(?:^|[\s\"'=(])/(?:work|home|root|tmp|opt)/|--index-url|--extra-index")
    assert [path.name for path in files if named.search(path.read_text())] == []


def test_every_extra_of_the_makefile_exists():
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert set(re.findall(r"\.\[(\w+)\]", MAKEFILE)) <= set(extras)
