"""The files around the package say the same as the package: MLproject, README, CI, lock, image, conf."""

import os
import re
import string
import subprocess
import sys
import tomllib
import venv
from collections import Counter
from importlib import metadata
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from skillscale import cli, config
from skillscale.execution.grid import grid_points

ROOT = Path(__file__).parents[2]
MLPROJECT = yaml.safe_load((ROOT / "MLproject").read_text())["entry_points"]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
DOCKERFILE = (ROOT / "docker" / "Dockerfile").read_text()


def lines_of(text):
    return [line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]


def pins():
    pairs = (line.split("==") for line in lines_of((ROOT / "constraints.txt").read_text()))
    return {canonicalize_name(name): version for name, version in pairs}


def readme_commands():
    """The shell blocks of the README's first section of commands: the main job, and the tests."""
    return [block.strip() for block in re.findall(r"```bash\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)]


def test_mlproject_has_the_commands_and_passes_on_every_parameter():
    """All but the demo, which has no run for MLflow to show."""
    assert list(MLPROJECT) == [command.name for command in cli.COMMANDS if command.name != "demo"]
    for name, entry in MLPROJECT.items():
        fields = [field for _, field, _, _ in string.Formatter().parse(entry["command"]) if field]
        words = entry["command"].format(**{field: f"<{field}>" for field in fields}).split()
        assert words[:3] == ["PYTHONPATH=$PWD/src", "skillscale", name]
        assert words[3:] == [word for parameter in entry["parameters"] for word in (f"--{parameter}", f"<{parameter}>")]
        assert len(entry["parameters"]) <= 12


@pytest.mark.parametrize(
    "command", [command for command in cli.COMMANDS if command.project], ids=lambda command: command.name
)
def test_defaults_of_mlproject_can_be_read(command):
    """MLflow passes every default on as text; the values are those without any option."""
    required = [f"--{parameter.name}=1" for parameter in command.parameters if parameter.required]
    defaults = {
        name: value["default"]
        for name, value in MLPROJECT[command.name]["parameters"].items()
        if not isinstance(value, str)
    }
    words = [word for name, text in defaults.items() for word in (f"--{name}", text)]
    given, bare = cli.parse([*required, *words], command), cli.parse(required, command)
    assert given.options == bare.options
    assert (given.overrides, given.as_json) == (bare.overrides, False)


def test_readme_runs_the_main_job_and_the_tests_from_nothing():
    set_up = "python3.11 -m venv .venv && .venv/bin/pip install -c constraints.txt -e "
    assert readme_commands()[:2] == [
        f'{set_up}".[train]" && .venv/bin/skillscale main',
        f'{set_up}".[dev]" && .venv/bin/pytest',
    ]


def test_ci_runs_the_test_command_of_the_readme():
    assert readme_commands()[1] in (ROOT / ".ci" / "run").read_text().splitlines()


def test_lock_pins_every_requirement_within_its_range():
    extras = PYPROJECT["project"]["optional-dependencies"]
    required = [
        *PYPROJECT["project"]["dependencies"],
        *(part for name in ("mlflow", "train", "dev") for part in extras[name]),
    ]
    required = [part for part in required if not part.startswith("skillscale[")]
    pinned = pins()
    outside = [
        requirement
        for requirement in map(Requirement, required)
        if not requirement.specifier.contains(pinned[canonicalize_name(requirement.name)])
    ]
    assert outside == []
    assert pinned["torch"] == "2.13.0"


def test_lock_is_what_the_tests_run_on():
    installed = {name: metadata.version(name).split("+")[0] for name in ("torch", "mlflow", "lightning", "optuna")}
    assert installed == {name: pins()[name] for name in installed}


def test_mlflow_makes_its_environments_from_the_lock():
    environment = yaml.safe_load((ROOT / "python_env.yaml").read_text())
    assert environment["dependencies"] == ["-c constraints.txt", "-e .[train]"]
    assert re.fullmatch(r"3\.11\.\d+", environment["python"]), "pyenv wants the full version, as text"


STUDIES = sorted(path.stem for path in (ROOT / "conf" / "study").glob("*.yaml"))


@pytest.mark.parametrize("study", STUDIES)
def test_shipped_studies_have_points_on_the_data_they_name(study):
    settings = config.load(study=study)
    assert settings.study.name == study
    points = grid_points(settings)
    assert all(planned.point.flops == pytest.approx(planned.budget, rel=0.02) for planned in points)
    for budget in settings.study.budgets:
        sizes = {planned.point.n_params for planned in points if planned.budget == budget}
        assert study == "smoke" or len(sizes) >= 6, "too few for a curve"


def shares(study):
    """Shares of knowledge, code and the rest in each mix of a study."""
    mixes = [dict(mix.shares) for mix in config.load(study=study).study.mix_values]
    return [(mix.pop("knowledge"), mix.pop("code"), mix) for mix in mixes]


@pytest.mark.parametrize("study", [name for name in STUDIES if name.startswith("ratio-")])
def test_ratio_studies_run_from_an_eighth_to_eight_with_the_other_shares_fixed(study):
    base, *others = shares(study)
    ratios = [code / knowledge for knowledge, code, _ in (base, *others)]
    assert sorted(ratios)[0] == pytest.approx(1 / 8, rel=1e-4)
    assert sorted(ratios)[-1] == pytest.approx(8, rel=1e-4)
    assert all(rest == pytest.approx(base[2]) for _, _, rest in others)
    assert {0.5, 1, 2, 4} <= {round(ratio, 4) for ratio in ratios}


@pytest.mark.parametrize("scale", ["gpu", "paper"])
def test_the_papers_ablation_has_its_thirteen_mixes(scale):
    settings = config.load(study=f"mix-ablation-{scale}").study
    assert len(settings.mix_values) == 13
    assert settings.mix_values[0].shares == pytest.approx({"knowledge": 0.5844, "code": 0.1992, "web": 0.2164})
    assert settings.mix_multipliers["code"] == (0.5, 2, 3, 4, 18)
    assert len(settings.budgets) >= 2


def test_the_papers_study_has_its_budgets_and_sizes():
    points = grid_points(config.load(study="skills-paper"))
    sizes = [planned.point.n_params for planned in points]
    assert (min(sizes), max(sizes)) == (pytest.approx(4e7, rel=0.1), pytest.approx(8e9, rel=0.1))
    counts = Counter(planned.budget for planned in points)
    assert sorted(counts) == [6e18, 1e19, 3e19, 6e19, 1e20, 3e20, 6e20, 1e21, 3e21]
    assert counts[6e18] == 14
    assert 7 <= counts[3e21] <= 14


@pytest.mark.parametrize("noun", ["data", "skills"])
def test_shipped_data_and_skills_are_named_as_their_files(noun):
    for path in (ROOT / "conf" / noun).glob("*.yaml"):
        assert config.read_yaml(path)["name"] == path.stem


def test_image_installs_by_hashes_as_a_plain_user():
    locked, torch, package = [
        line for line in DOCKERFILE.splitlines() if "pip install" in line and "--index-url" not in line
    ]
    assert "--no-deps --require-hashes -r docker/requirements.txt" in locked
    assert '--no-deps --require-hashes -r "docker/requirements-$TORCH.txt"' in torch
    assert package == "RUN python -m pip install --no-deps --no-build-isolation ."
    assert re.findall(r"^USER (.*)$", DOCKERFILE, re.MULTILINE) == ["1000"]
    assert re.search(r"^FROM python:3\.11\.\d+-slim-\w+(@sha256:[0-9a-f]{64})?$", DOCKERFILE, re.MULTILINE)


def test_locks_of_the_image_have_the_tested_versions_and_hashes():
    versions = {name.lower().replace("_", "-"): version for name, _, version in
                (line.partition("==") for line in lines_of((ROOT / "constraints.txt").read_text()))}  # fmt: skip
    text = "".join((ROOT / "docker" / f"requirements{part}.txt").read_text() for part in ("", "-cuda"))
    hashes = r"((?:    --hash=sha256:[0-9a-f]{64}(?: \\)?\n)+)"
    entries = re.findall(rf"^([\w.-]+)(?:\[[\w,-]+\])?==(\S+)(?: ;[^\\]*)? \\\n{hashes}", text, re.MULTILINE)
    assert len(entries) == len(re.findall(r"^\w", text, re.MULTILINE)) > 100
    locked = {name.lower().replace("_", "-"): version for name, version, _ in entries}
    different = {name: version for name, version in locked.items() if versions.get(name, version) != version}
    assert different == {}
    needed = {"mlflow", "torch", "optuna", "psycopg2-binary", "flask-wtf", "hatchling", "pydantic"}
    assert needed <= set(locked)


def test_image_gets_what_it_copies():
    allowed = {line[1:] for line in lines_of((ROOT / ".dockerignore").read_text()) if line.startswith("!")}
    copied = re.findall(r"^COPY (.*) \S+$", DOCKERFILE, re.MULTILINE)
    names = {word.split("/")[0] for line in copied for word in line.split()} - {"."}
    assert names <= allowed
    assert {"src", "conf"} <= allowed


def test_image_definition_passes_its_linter():
    done = subprocess.run(
        [Path(sys.executable).with_name("hadolint"), ROOT / "docker" / "Dockerfile"], capture_output=True, text=True
    )
    assert (done.returncode, done.stdout) == (0, "")


COMPOSE = yaml.safe_load((ROOT / "docker" / "compose.yaml").read_text())["services"]


def test_services_are_confined_and_bound_to_loopback():
    assert {"postgres", "mlflow", "users", "driver", "worker", "worker-cuda"} == set(COMPOSE)
    for name, service in COMPOSE.items():
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", []))
        if name != "postgres":  # which gives up root by itself
            assert (service["user"], service["read_only"], service["cap_drop"]) == ("1000", True, ["ALL"])


def test_secrets_of_the_services_come_from_the_environment_alone():
    text = (ROOT / "docker" / "compose.yaml").read_text()
    assert set(re.findall(r"\$\{(\w+):\?", text)) == {
        line.partition("=")[0] for line in lines_of((ROOT / "docker" / "example.env").read_text())
    }
    assert all(line.endswith("=") for line in lines_of((ROOT / "docker" / "example.env").read_text()))
    assert "docker/.env" in (ROOT / ".gitignore").read_text().splitlines()


def test_workers_hold_no_password_of_an_admin_or_a_superuser():
    for name in ("driver", "worker", "worker-cuda"):
        environment = COMPOSE[name]["environment"]
        assert "admin" not in str(environment)
        assert set(re.findall(r"\$\{(\w+)", str(environment))) == {"WORKER_PASSWORD", "QUEUE_PASSWORD"}
        assert COMPOSE[name]["depends_on"] == {"users": {"condition": "service_completed_successfully"}}
    holders = {name for name, service in COMPOSE.items() if "POSTGRES_PASSWORD" in str(service)}
    assert holders == {"postgres"}
    assert {name for name, service in COMPOSE.items() if "${MLFLOW_PASSWORD" in str(service)} == {"mlflow", "users"}
    roles = re.findall(
        r"^CREATE ROLE (\w+) (.*?) PASSWORD", (ROOT / "docker" / "databases.sql").read_text(), re.MULTILINE
    )
    assert dict(roles) == dict.fromkeys(("queue", "mlflow"), "LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE")
    assert re.fullmatch(r"postgres:\d+\.\d+-\w+(@sha256:[0-9a-f]{64})?", COMPOSE["postgres"]["image"])


@pytest.mark.parametrize("name", ["driver", "worker", "worker-cuda"])
def test_services_start_entries_that_there_are(name):
    entry, *words = COMPOSE[name]["command"]
    (declared,) = [command for command in cli.COMMANDS if command.name == entry]
    assert cli.parse([word.replace("${STUDY:-main}", "main") for word in words], declared).files["study"] == "main"


@pytest.mark.slow
def test_install_steps_of_the_image_work_in_a_fresh_environment(tmp_path):
    """The RUN steps that install, in a folder laid out by the COPY steps; ends with the package's own answer."""
    venv.create(tmp_path / "venv", with_pip=True)
    python = tmp_path / "venv" / "bin" / "python"
    folder = tmp_path / "image"
    (folder / "docker").mkdir(parents=True)

    def copy(*names):
        subprocess.run(["cp", "-r", "--parents", *names, folder], cwd=ROOT, check=True)

    def install(line):
        words = ["bash", "-c", line.replace("python -m", f"{python} -m")]
        subprocess.run(words, cwd=folder, check=True, env={**os.environ, "TORCH": "cuda"})

    steps = re.findall(r"^RUN ((?:.*\\\n)*.*)$", DOCKERFILE, re.MULTILINE)
    first, second, third = [step for step in steps if "pip install" in step]
    copy("docker/requirements.txt", "docker/requirements-cuda.txt")
    install(first)
    install(second)
    copy("pyproject.toml", "constraints.txt", "README.md", "LICENSE", "CHANGELOG.md", "src", "conf")
    install(third)
    answer = subprocess.run(
        [python.with_name("skillscale"), "train", "--n_parms", "1"], cwd=tmp_path, capture_output=True, text=True
    )
    assert (answer.returncode, "did you mean n_params?" in answer.stderr) == (2, True)
    where = "import skillscale.config as c; print(c.conf_folder()); c.load()"
    shown = subprocess.run([python, "-c", where], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert shown.stdout.strip().endswith("site-packages/skillscale/conf")
