"""Runs and laws go out, and what comes back from the files is the same to the last digit."""

import errno
import io
import json
import math
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml

from skillscale import config
from skillscale.cli import COMMANDS, main
from skillscale.laws.forms.catalogue import CHINCHILLA
from skillscale.laws.io.document import read_document
from skillscale.point import DesignPoint
from skillscale.record import Measurement, ModelSize, ProposalReason
from skillscale.tables.write import write_whole
from skillscale.tracking import StudyStore

# MLflow 3.17 on SQLAlchemy 2.1
pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy:DeprecationWarning")

THETA = {
    "knowledge": [1.5, 60.0, 700.0, 0.35, 0.36], "code": [0.9, 50.0, 400.0, 0.38, 0.36],
    "reasoning": [1.1, 40.0, 500.0, 0.3, 0.33], "prose": [1.8, 45.0, 600.0, 0.32, 0.35],
}  # fmt: skip
FAST = ("--study.resamples", "100", "--json")


def run(*words):
    answer = io.StringIO()
    code = main(list(words), COMMANDS, answer)
    return code, answer.getvalue()


def told(*words):
    code, text = run(*words)
    assert code == 0
    return json.loads(text)


@pytest.fixture(scope="session")
def trained(tmp_path_factory):
    """A study as training leaves it: isoFLOPs, some runs of another mix, one that a sampler chose, one that failed."""
    path = tmp_path_factory.mktemp("trained") / "mlflow.db"
    settings = config.load()
    study = StudyStore.open(f"sqlite:///{path}", cache=path.parent / "cache").open_study("main", settings)
    first = settings.study.mix_values[0]
    points = [
        DesignPoint(n_params=n, n_tokens=round(C / 6 / n), mix=mix, seed=seed)
        for mix, budgets in ((first, settings.study.budgets), (first.multiply("code", 3), settings.study.budgets[:1]))
        for C in budgets
        for seed, n in enumerate((7_001, 15_003, 32_007, 71_013))
    ]
    study.add_points(points)
    # At a budget of the study, so that a curve would have it
    chosen = DesignPoint(n_params=33_333, n_tokens=round(settings.study.budgets[0] / 6 / 33_333), mix=first, seed=9)
    study.add_points([chosen], {chosen.key: ProposalReason(purpose="plan", cost=1e11)})
    study.add_points([DesignPoint(n_params=9_999, n_tokens=10**6, mix=first, seed=1)])
    rng = np.random.default_rng(0)
    while (writer := study.claim()) is not None:
        with writer:
            N, D, share = writer.point.n_params, writer.point.n_tokens, writer.point.mix.shares
            writer.begin(size=ModelSize(n_params=N, n_params_nonembed=N - 2_048, n_params_embed=2_048, depth=1,
                                   width=16,
                                   n_heads=1, vocab_size=512, context=256))  # fmt: skip
            if N == 9_999:
                writer.fail("DivergedError: loss is nan")
                continue

            def measured(skill, N=N, D=D, share=share):
                loss = float(CHINCHILLA.loss(THETA[skill], N, D)[0]) * share.get(skill, 0.1) ** -0.03
                loss *= math.exp(0.003 * rng.normal())
                return Measurement(loss=loss, sem=loss / 97, bpb=loss / 3, count=9, tokens=90)

            writer.finish(
                skills={name: measured(name) for name in THETA},
                skills_held_out={name: measured(name) for name in THETA},
                sets={name: measured(name.removeprefix("val/")) for name in (f"val/{one}" for one in THETA)},
            )
    return path


@pytest.fixture
def store(trained, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SKILLSCALE_CACHE", str(tmp_path / "cache"))
    shutil.copy(trained, tmp_path / "mlflow.db")
    return ["--tracking", f"sqlite:///{tmp_path}/mlflow.db"]


def imported():
    """Runs with numbers that are not whole, mixes that were divided by their sum, and standard errors of one skill."""
    rng = np.random.default_rng(1)
    N, D = (10.0 ** rng.uniform(*ends, 20) / 3 for ends in ((7, 9), (9, 11)))
    shares = rng.dirichlet([2, 3, 4], 20).round(4)
    losses = {
        f"L_{name}": CHINCHILLA.loss([1.2, 400.0, 900.0, 0.34, at], N, D) * (1 + shares[:, k]) ** -0.1
        for k, (name, at) in enumerate({"code": 0.35, "prose": 0.36}.items())
    }
    table = pd.DataFrame({"name": np.arange(20) // 2, "N": N, "D": D, **losses})
    table[["h_code", "h_prose", "h_web"]] = shares
    table["sem"] = np.where(np.arange(20) % 3, 0.01 / 3, math.nan)
    table.loc[[4, 11], "L_prose"] = math.nan
    return table


MAPPING = {
    "n_params": {"body": "N"}, "n_tokens": "D", "run": "name",
    "mix": {"code": "h_code", "prose": "h_prose", "web": "h_web"},
    "skills": {"code": {"loss": "L_code", "sem": "sem"}, "prose": "L_prose", "again": "L_code"},
    "validation": {"both": {"code": 1, "prose": 2}}, "sets": ["again"], "categories": {"prose": "web"},
}  # fmt: skip


def assert_fits_alike(one, other):
    """Every law's parameters and intervals, and the isoFLOP curves, to the last digit; runs bear other names."""
    assert one["skills"].keys() == other["skills"].keys()
    for name, law in one["skills"].items():
        there = other["skills"][name]
        assert (law["theta"], law["intervals"], law["optima"]) == (there["theta"], there["intervals"], there["optima"])
    rest = [{key: value for key, value in each.items() if key not in ("skills", "unusable")} for each in (one, other)]
    for each in rest:  # the text names commands on the runs' own source
        each["answers"] = [answer | {"text": None} for answer in each["answers"]]
    assert rest[0] == rest[1]


@pytest.mark.parametrize("law", ["chinchilla", pytest.param("separable", marks=pytest.mark.slow)])
@pytest.mark.parametrize("file", ["runs.csv", "runs.parquet"])
def test_a_trained_study_fits_alike_from_its_file(store, file, law):
    answer = told("export", *store, "--file", file, "--json")
    assert (answer["runs"], answer["conventions"]) == (17, ["total", "nonembed"])
    here = told("fit", *store, "--law", law, *FAST)
    there = told("fit", "--table", file, "--columns", "runs.yaml", "--law", law, *FAST)
    assert {"aggregate", *THETA} == set(here["skills"])
    assert here["minima"], "the isoFLOP curves are not compared"
    assert_fits_alike(here, there)


def test_the_other_convention_of_N_and_what_is_only_told_go_along(store):
    told("export", *store, "--file", "runs.csv", "--json")
    words = ("--n_convention", "nonembed", "--law", "chinchilla", *FAST)
    here = told("fit", *store, *words)
    there = told("fit", "--table", "runs.csv", "--columns", "runs.yaml", *words)
    assert {k: v["theta"] for k, v in here["skills"].items()} == {k: v["theta"] for k, v in there["skills"].items()}
    frame = pd.read_csv("runs.csv")
    assert list(frame["params"] - frame["params_nonembed"]) == [2_048] * 17
    assert list(frame["flops"]) == list(6.0 * frame["params"] * frame["tokens"])
    assert frame["purpose"].dropna().tolist() == ["plan"]
    np.testing.assert_allclose(frame["bpb_code"] * 3, frame["loss_code"], rtol=1e-15)
    assert "sem_code" in frame
    assert "loss_val/prose" in frame


@pytest.mark.parametrize("file", ["runs.csv", "runs.parquet"])
def test_an_imported_study_comes_back_by_fit_and_by_import(store, file):
    imported().to_csv("theirs.csv", index=False)
    Path("theirs.yaml").write_text(yaml.safe_dump(MAPPING))
    told("import", *store, "--study", "theirs", "--table", "theirs.csv", "--columns", "theirs.yaml", "--json")
    told("export", *store, "--study", "theirs", "--file", file, "--json")
    words = ("--law", "separable", "--laws.weights", "sem", *FAST)
    first = told("fit", "--table", "theirs.csv", "--columns", "theirs.yaml", *words)
    assert set(first["skills"]) == {"code", "prose", "both"}
    others = [("--table", file, "--columns", "runs.yaml")]
    if file == "runs.csv":
        told("import", *store, "--study", "again", "--table", file, "--columns", "runs.yaml", "--json")
        others += [("--study", "theirs", *store), ("--study", "again", *store)]
    for other in others:
        assert_fits_alike(first, told("fit", *other, *words))


def test_a_sampled_run_is_known_after_an_import_too(store):
    told("export", *store, "--file", "runs.csv", "--json")
    told("import", *store, "--study", "again", "--table", "runs.csv", "--columns", "runs.yaml", "--json")
    words = ("--law", "chinchilla", *FAST)
    assert_fits_alike(told("fit", *store, *words), told("fit", *store, "--study", "again", *words))
    told("export", *store, "--study", "again", "--file", "again.csv", "--json")
    assert pd.read_csv("again.csv")["purpose"].dropna().tolist() == ["sampled"]


def test_named_mixes_come_back(store):
    table = imported().assign(corpus=lambda frame: np.where(frame.index % 2, "c4", "red pajama"))
    table.to_csv("theirs.csv", index=False)
    Path("theirs.yaml").write_text(yaml.safe_dump({**MAPPING, "mix": "corpus", "categories": {}}))
    told("export", "--table", "theirs.csv", "--columns", "theirs.yaml", "--file", "runs.csv", "--json")
    words = ("--law", "chinchilla", *FAST)
    first = told("fit", "--table", "theirs.csv", "--columns", "theirs.yaml", *words)
    assert "c4/code" in first["skills"]
    assert_fits_alike(first, told("fit", "--table", "runs.csv", "--columns", "runs.yaml", *words))


def test_a_name_that_csv_would_take_for_a_number_is_refused_and_parquet_keeps_it(store, capsys):
    table = imported().assign(corpus=["007" if at % 2 else "7" for at in range(20)])
    table.to_parquet("theirs.parquet")
    Path("theirs.yaml").write_text(yaml.safe_dump({**MAPPING, "mix": "corpus", "categories": {}}))
    words = ("export", "--table", "theirs.parquet", "--columns", "theirs.yaml", "--file")
    assert run(*words, "runs.csv")[0] == 2
    assert "would not read back as it is: mix of row" in capsys.readouterr().err
    assert not list(Path().glob("*runs.csv*")) + list(Path().glob("runs.yaml"))
    assert run(*words, "runs.parquet")[0] == 0
    assert set(pd.read_parquet("runs.parquet")["mix"]) == {"007", "7"}


def test_nothing_is_written_over(store, capsys):
    Path("runs.yaml").write_text("mine")
    assert run("export", *store, "--file", "runs.csv")[0] == 2
    assert "runs.yaml would be overwritten. Give another --file, or --force true." in capsys.readouterr().err
    assert Path("runs.yaml").read_text() == "mine"
    assert run("export", *store, "--file", "runs.csv", "--force")[0] == 0
    assert "n_params" in Path("runs.yaml").read_text()


def test_a_file_of_another_kind_is_refused(store, capsys):
    assert run("export", *store, "--file", "runs.xlsx")[0] == 2
    assert "--file must end in .csv or .parquet for runs, .json or .py for laws, but it is 'runs.xlsx'" in (
        capsys.readouterr().err
    )


# Laws


def python_of(path):
    names = {}
    exec(Path(path).read_text(), names)
    return names["loss"]


def test_laws_that_are_fitted_now_go_out_as_json_and_as_python(store):
    answer = told("export", *store, "--file", "law.json", "--law", "chinchilla", *FAST)
    assert answer["laws"] == dict.fromkeys([*THETA, "aggregate"], "chinchilla")
    told("export", "--from", "law.json", "--file", "law.py", "--json")
    plain = json.loads(Path("law.json").read_text())
    assert plain["skills"]["code"]["formula"].startswith("L = E + A N^-alpha + B D^-beta (Hoffmann")
    code, loss = read_document(plain)["code"], python_of("law.py")
    assert loss("code", 2e4, 3e6) == pytest.approx(code.loss(2e4, 3e6).value[0], rel=1e-12)
    assert run("plan", "--from", "law.json", "--flops", "1e12", "--json")[0] == 0


def test_a_registered_law_goes_out_as_it_was_registered(store):
    told("fit", *store, "--law", "chinchilla", "--register", "mine", *FAST)
    told("export", *store, "--from", "models:/mine@champion", "--file", "law.json", "--json")
    told("export", *store, "--law", "chinchilla", "--file", "law.py", *FAST)
    theta = json.loads(Path("law.json").read_text())["skills"]["prose"]["theta"]
    E, A, B, alpha, beta = (theta[name] for name in ("E", "A", "B", "alpha", "beta"))
    assert python_of("law.py")("prose", 1e5, 1e7) == pytest.approx(E + A * 1e5**-alpha + B * 1e7**-beta, rel=1e-12)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--from", "law.json", "--file", "runs.csv"), "--from names laws. Give a --file that ends in .json or .py"),
        (("--from", "nothing.json", "--file", "law.py"), "--from nothing.json: there is no such file"),
        (("--from", "empty.json", "--file", "law.py"), "empty.json holds laws of schema None"),
    ],
)
def test_laws_that_are_not_there_are_told(store, capsys, words, message):
    Path("empty.json").write_text("{}")
    assert run("export", *words)[0] == 2
    assert message in capsys.readouterr().err
    assert not Path("law.py").exists()


EVIL_SKILL = 'x"""\nimport os; os.system("touch PWNED_skill")\n"""'


@pytest.mark.parametrize(
    "text",
    [
        "[1, 2]", "", "[" * 50_000, '{"schema": 2, "skills": {"prose": null}}', '{"schema": 2, "skills": {}}',
        '{"schema": 2, "aggregates": 5, "skills": {}}', '{"schema": 2, "mixes": [1], "skills": {}}',
        '{"schema": 2, "skills": {"a": {"law": "chinchilla", "x0": NaN}}}', "\ud800",
    ],
)  # fmt: skip
@pytest.mark.parametrize(
    "words", [("plan", "--flops", "1e21"), ("export", "--file", "law.py"), ("export", "--file", "law.json")]
)
def test_a_forged_document_ends_in_one_line(text, words, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("forged.json").write_bytes(text.encode("utf-8", "surrogatepass"))
    assert run(words[0], "--from", "forged.json", *words[1:]) == (2, "")
    assert capsys.readouterr().err.count("\n") == 1
    assert not Path(words[-1]).exists()


def test_a_skill_that_is_code_becomes_no_code(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    imported().to_csv("runs.csv", index=False)
    Path("map.yaml").write_text(yaml.safe_dump({"n_params": "N", "n_tokens": "D", "skills": {EVIL_SKILL: "L_code"}}))
    source = ("--table", "runs.csv", "--columns", "map.yaml", "--law", "chinchilla", "--laws.bootstrap", "laplace")
    assert run("export", *source, "--file", "law.py") == (2, "")
    assert "control character" in capsys.readouterr().err


def test_a_full_disk_leaves_the_file_that_was_there(tmp_path, monkeypatch):
    path = tmp_path / "law.json"
    path.write_text("old")

    def fill(self, text, **_):
        self.write_bytes(text[:3].encode())
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_text", fill)
    with pytest.raises(OSError, match="No space"):
        write_whole(path, "new text")
    assert (path.read_bytes(), [file.name for file in tmp_path.iterdir()]) == (b"old", ["law.json"])
