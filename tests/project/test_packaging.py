"""What a user installs: wheel and sdist, the sampler as a module of OptunaHub's layout, the citation."""

import os
import re
import subprocess
import sys
import tarfile
import venv
import zipfile
from pathlib import Path

import optunahub
import pytest
import yaml
from optuna.distributions import FloatDistribution

import skillscale
from skillscale.sampler import SkillLawSampler

ROOT = Path(__file__).parents[2]
REGISTRY = ROOT / "hub" / "package"


def build(source, folder, *targets):
    """Wheel or sdist of a checkout, by the build backend itself."""
    command = [sys.executable, "-m", "hatchling", "build", "-d", folder, *(f"-t{target}" for target in targets)]
    subprocess.run(command, cwd=source, check=True, capture_output=True)


def wheel_names(folder):
    (wheel,) = folder.glob("*.whl")
    return wheel, {name for name in zipfile.ZipFile(wheel).namelist() if not name.endswith("RECORD")}


def test_the_citation_is_of_this_version_and_licence():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert citation["version"] == skillscale.__version__
    assert citation["license"] == "Apache-2.0"
    assert citation["authors"] == [{"name": "The skillscale authors"}]


def test_the_version_is_semantic_and_the_changelog_has_its_section_below_what_comes_next():
    assert re.fullmatch(r"\d+\.\d+\.\d+(-[0-9A-Za-z.-]+)?", skillscale.__version__)
    headings = re.findall(r"^## (.*)$", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert headings[0] == "[Unreleased]"
    assert re.fullmatch(rf"\[{re.escape(skillscale.__version__)}\] - \d{{4}}-\d\d-\d\d", headings[1])


def test_the_sampler_is_loaded_as_a_module_of_optunahub():
    module = optunahub.load_local_module("samplers/skill_law", registry_root=str(REGISTRY))
    assert module.SkillLawSampler is SkillLawSampler
    assert all(hasattr(module, name) for name in module.__all__)


def test_the_modules_readme_opens_as_optunahub_wants_it():
    opening, text = (REGISTRY / "samplers" / "skill_law" / "README.md").read_text().removeprefix("---\n").split("---\n")
    front = yaml.safe_load(opening)
    assert set(front) == {"author", "title", "description", "tags", "optuna_versions", "license"}
    assert "sampler" in front["tags"]
    assert re.findall(r"^## (.*)$", text, re.MULTILINE) == ["Abstract", "APIs", "Installation", "Example", "Others"]


def test_no_page_takes_the_package_from_an_index_that_lacks_it():
    pages = [ROOT / "README.md", *(ROOT / "docs").rglob("*.md"), *REGISTRY.rglob("*.md"), *REGISTRY.rglob("*.py")]
    named = re.compile(r"pip install (?:\S+ )*[\"']?skillscale(?![\w.-]*\.whl)|load_module\(")
    assert [path.name for path in pages if named.search(path.read_text())] == []


def test_the_modules_example_asks_for_losses_of_skills(monkeypatch):
    monkeypatch.syspath_prepend(str(REGISTRY / "samplers" / "skill_law"))
    import example
    import optuna

    study = optuna.create_study(sampler=SkillLawSampler(search_space=example.SPACE, seed=0))
    study.optimize(example.objective, n_trials=2)
    assert all({"loss/code", "loss/prose", "skillscale/why"} <= set(trial.user_attrs) for trial in study.trials)
    assert all(isinstance(axis, FloatDistribution) for axis in study.trials[0].distributions.values())


def test_the_sampler_needs_optuna_numpy_and_scipy_alone():
    """None of the package's other requirements is imported with it."""
    others = ("torch", "lightning", "datasets", "tokenizers", "mlflow", "pandas", "pydantic", "yaml", "matplotlib")
    code = f"import sys, skillscale.sampler; print(*(name for name in {others} if name in sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT / "src")
    assert (done.returncode, done.stdout.strip(), done.stderr) == (0, "", "")


def test_the_wheel_is_typed_and_has_the_settings(tmp_path):
    build(ROOT, tmp_path, "wheel")
    _, names = wheel_names(tmp_path)
    conf = {path.relative_to(ROOT).as_posix() for path in (ROOT / "conf").rglob("*") if path.is_file()}
    assert {f"skillscale/{name}" for name in conf} | {"skillscale/py.typed", "skillscale/report/page.html"} <= names
    assert {f"skillscale/tables/bundled/openlm.{ending}" for ending in ("csv", "txt")} <= names
    inside = f"skillscale-{skillscale.__version__}.dist-info"
    assert {f"{inside}/licenses/LICENSE", f"{inside}/licenses/NOTICE"} <= names
    assert {name.split("/")[0] for name in names} == {"skillscale", inside}


def test_the_sdist_has_what_runs_and_nothing_that_cannot(tmp_path):
    """Tests would need the rest of the checkout."""
    build(ROOT, tmp_path, "sdist")
    (sdist,) = tmp_path.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        parts = [Path(name).parts[1:] for name in archive.getnames()]
    assert {part[0] for part in parts} == {
        "src", "conf", "docker", "MLproject", "python_env.yaml", "constraints.txt", "pyproject.toml", "PKG-INFO",
        "README.md", "CHANGELOG.md", "CITATION.cff", "LICENSE", "NOTICE", ".gitignore",
    }  # fmt: skip
    assert [part for part in parts if part[-1].startswith("test_")] == []


@pytest.mark.slow
def test_sdist_and_wheel_install_into_a_fresh_environment_and_work_outside_the_checkout(tmp_path):
    """The sdist has all that makes the wheel; that wheel, installed, fits a table and takes settings of one's own."""
    build(ROOT, tmp_path / "of_checkout", "sdist", "wheel")
    (sdist,) = (tmp_path / "of_checkout").glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        archive.extractall(tmp_path, filter="data")
    build(tmp_path / sdist.name.removesuffix(".tar.gz"), tmp_path / "of_sdist", "wheel")
    wheel, names = wheel_names(tmp_path / "of_sdist")
    assert names == wheel_names(tmp_path / "of_checkout")[1]

    venv.create(tmp_path / "venv", with_pip=True)
    python, command = (tmp_path / "venv" / "bin" / name for name in ("python", "skillscale"))
    pip = [python, "-m", "pip", "install", "-q", "-c", ROOT / "constraints.txt", wheel]
    subprocess.run(pip, check=True)
    work = tmp_path / "work"
    (work / "mine" / "study").mkdir(parents=True)
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}

    def run(*words, **more):
        return subprocess.run(
            words, cwd=work, env=environment | more, capture_output=True, text=True, check=True
        ).stdout  # fmt: skip

    assert run(python, "-m", "pip", "check").strip() == "No broken requirements found."
    assert run(command, "--version") == f"skillscale {skillscale.__version__}\n"
    run(python, "-c", _TABLE)
    printed = run(command, "fit", "--table", "runs.csv", "--columns", "map.yaml", "--law", "chinchilla", "--json")
    assert '"alpha"' in printed
    show = "import skillscale.config as c; print(c.conf_file('study', 'smoke').read_text())"
    shipped = run(python, "-c", show)
    (work / "mine" / "study" / "own.yaml").write_text(shipped.replace("name: smoke", "name: own"))
    assert '"points"' in run(command, "grid", "--study", "own", "--dry_run", "--json", SKILLSCALE_CONF="mine")


_TABLE = """
import numpy, pandas
N, D = (grid.ravel() for grid in numpy.meshgrid(10 ** numpy.linspace(6, 9, 6), 10 ** numpy.linspace(8, 11, 6)))
noise = 1 + 0.003 * numpy.random.default_rng(0).normal(size=N.size)
pandas.DataFrame({"N": N, "D": D, "loss": (1.8 + 400 * N**-0.34 + 900 * D**-0.33) * noise}).to_csv("runs.csv")
open("map.yaml", "w").write("n_params: N\\nn_tokens: D\\nskills: {text: loss}\\n")
"""
