"""`plan` by the command line: budgets and what is refused, the fields of the answer, and laws fitted earlier."""

import io
import json
import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml

from skillscale.cli import COMMANDS, main
from skillscale.laws.forms.catalogue import CHINCHILLA

THETA = {"code": [0.9, 250.0, 900.0, 0.38, 0.36], "prose": [1.8, 480.0, 2100.0, 0.35, 0.37]}
COLUMNS = {"n_params": "params", "n_tokens": "tokens", "skills": {name: f"loss_{name}" for name in THETA}}
LAW = ("--law", "chinchilla", "--study.resamples", "200")


def runs(noise=0.003, theta=THETA) -> pd.DataFrame:
    """Five sizes on five numbers of tokens."""
    N, D = (grid.ravel() for grid in np.meshgrid(np.geomspace(1e7, 1e9, 5), np.geomspace(5e8, 5e10, 5)))
    rng = np.random.default_rng(0)
    losses = {
        f"loss_{name}": CHINCHILLA.loss(one, N, D) * np.exp(noise * rng.normal(size=len(N)))
        for name, one in theta.items()
    }
    return pd.DataFrame({"params": N, "tokens": D, **losses})


@pytest.fixture
def words(tmp_path):
    """A table in a folder of its own: the words that name it, with other columns where they are given."""

    def name(frame=None, **more):
        (runs() if frame is None else frame).to_csv(tmp_path / "t.csv", index=False)
        (tmp_path / "map.yaml").write_text(yaml.safe_dump(COLUMNS | more))
        return ["--table", str(tmp_path / "t.csv"), "--columns", str(tmp_path / "map.yaml")]

    return name


def run(*words, entry="plan"):
    answer = io.StringIO()
    code = main([entry, *words], COMMANDS, answer)
    return code, answer.getvalue()


def told(*words):
    code, text = run(*words, "--json")
    assert code == 0
    return json.loads(text)


def true_optimum(C, weights):
    N = np.exp(np.linspace(math.log(1e6), math.log(1e12), 60_001))
    loss = sum(w * CHINCHILLA.loss(THETA[k], N, C / 6 / N) for k, w in weights.items())
    return float(N[loss.argmin()]), float(loss.min())


@pytest.mark.parametrize(
    ("more", "says"),
    [
        ([], "plan needs a budget. Give --flops C, or --gpu_hours H with --gpu_flops PEAK"),
        (["--flops", "1e20", "--gpu_hours", "8"], "a budget is given twice, by --flops and by --gpu_hours"),
        (["--gpu_hours", "8"], "lacks --gpu_flops and --mfu. Give"),
        (["--gpu_flops", "1e15", "--mfu", ".4"], "lacks --gpu_hours"),
        (["--gpu_hours", "8", "--gpu_flops", "1e15", "--mfu", "40"], "--mfu: must be a share above 0 and up to 1"),
        (
            ["--flops", "1e20", "--skill_weights", "cod=1"],
            "--skill_weights names cod, which t lacks (did you mean code?)",
        ),
        (["--flops", "1e20", "--skill_weights", "code=0"], "--skill_weights sums to 0"),
        (["--flops", "1e20", "--validation", "wiki=1"], "--validation names wiki, which t lacks. There is code, prose"),
        (["--flops", "1e20", "--bounds", "web=0:.5"], "--bounds names web, which t lacks. There is none"),
        (["--flops", "1e20", "--mix", "web=.5,books=.5"], "sets a mix, but chinchilla does not depend on the mix"),
        (["--flops", "1e20", "--figure", "plan.pdf"], "--figure: must end in .svg or .png"),
        (["--flops", "1e20", "--from", "law.json"], "--from takes laws as they were fitted, so --table has no"),
    ],
)
def test_what_can_not_be_asked_is_refused_with_the_cure(words, capsys, more, says):
    code, _ = run(*words(), *LAW, *more)
    assert (code, says in (text := capsys.readouterr().err)) == (2, True), text


def test_the_plan_is_that_of_the_planted_law(words):
    weights = {"code": 0.25, "prose": 0.75}
    answer = told(*words(runs(noise=0.0)), *LAW, "--flops", "1e20,1e22", "--skill_weights", "code=1,prose=3")
    assert [one["flops"] for one in answer["plans"]] == [1e20, 1e22]
    for one in answer["plans"]:
        N, least = true_optimum(one["flops"], weights)
        assert one["n_params"] == pytest.approx(N, rel=5e-4)
        assert one["loss"] == pytest.approx(least, rel=1e-6)
        assert one["worth"] == pytest.approx(weights)
        assert 6 * one["n_params"] * one["n_tokens"] == pytest.approx(one["flops"])
        for price in one["prices"]:
            assert 6 * price["n_params"] * price["n_tokens"] == pytest.approx(one["flops"])
            grown = one["flops"] * (1 + price["compute"]["value"])
            had = sum(
                w * CHINCHILLA.loss(THETA[k], price["n_params"], grown / 6 / price["n_params"])[0]
                for k, w in weights.items()
            )
            assert had == pytest.approx(least, rel=1e-6)
    assert answer["plans"][1]["extrapolation"] == pytest.approx(1e22 / 3e20)
    assert any("33.3 times" in said for said in answer["plans"][1]["not_told"])


def test_the_answer_has_what_is_promised(words):
    answer = told(*words(), *LAW, "--flops", "1e20", "--validation", "prose=1", "--n_params", "1e9,123456789")
    assert answer["level"] == 0.9
    assert answer["laws"] == {"code": "chinchilla", "prose": "chinchilla"}
    (one,) = answer["plans"]
    assert one["interval"][0] < one["n_params"] < one["interval"][1]
    assert one["tokens_interval"][0] < one["n_tokens"] < one["tokens_interval"][1]
    assert one["worth"] == {"code": 0.5, "prose": 0.5}
    assert set(one["losses"]["code"]) == {"loss", "interval", "scatter", "own_n_params"}
    assert {price["n_params"] for price in one["prices"] if price["asked"]} == {1e9, 123456789}
    assert one["cheap"]["n_params"][0] < one["n_params"] < one["cheap"]["n_params"][1]
    assert 0 <= one["cheap"]["chance"] <= 1
    assert [len(frontier["steps"]) for frontier in one["frontiers"]] == [11]
    assert one["best_mix"] is None
    assert "The effect of another mix: the runs have no shares, and at most one name." in one["not_told"]
    validation = one["validation"]
    assert validation["shift"]["value"] == pytest.approx(math.log(validation["n_params"] / one["n_params"]))
    assert validation["cost"]["value"] > 0
    assert {*validation["extremes"]} == {"code", "prose"}


def test_gpu_hours_become_flops_and_the_answer_says_how(words):
    gpu = ["--gpu_hours", "100", "--gpu_flops", "989e12", "--mfu", "0.4"]
    (one,) = told(*words(), *LAW, *gpu)["plans"]
    assert one["flops"] == pytest.approx(100 * 3600 * 989e12 * 0.4)
    assert one["budget"] == "100 GPU-hours x 3600 s x 9.89e14 FLOP/s x 0.4 of the peak = 1.424e20 FLOP"
    _, text = run(*words(), *LAW, *gpu)
    assert text.startswith("plan for 100 GPU-hours x 3600 s")
    for part in (
        "N*  ",
        "loss above the minimum",
        "weight in the plan",
        "(prose: the reverse)",
        "not determined by the runs:",
        "Brackets: 90 %",
    ):
        assert part in text


def test_where_there_is_no_optimum_the_answer_says_so(words):
    steep = {name: [1.0, 4e4, 40.0, 0.6, 0.15] for name in THETA}  # N* falls behind the middle of what is looked at
    table = words(runs(theta=steep))
    (one,) = told(*table, *LAW, "--flops", "1e60", "--validation", "prose=1", "--n_params", "1e9")["plans"]
    assert (one["n_params"], one["loss"], one["frontiers"]) == (None, None, [])
    assert one["status"] == "no interior minimum"
    assert any("No interior minimum" in said for said in one["not_told"])
    _, text = run(*table, *LAW, "--flops", "1e60", "--validation", "prose=1")
    assert "N*    none" in text
    assert "nan" not in text


@pytest.mark.parametrize(("name", "begins"), [("plan.svg", b"<?xml"), ("plan.png", b"\x89PNG")])
def test_the_figure_is_written_where_it_is_asked_for(words, tmp_path, name, begins):
    answer = told(*words(), *LAW, "--flops", "1e20", "--figure", str(tmp_path / name))
    assert answer["figure"] == str(tmp_path / name)
    assert (tmp_path / name).read_bytes().startswith(begins)


def test_skills_that_can_not_be_fitted_are_named_and_worth_nothing(words, capsys):
    frame = runs().assign(loss_code=np.nan)
    frame.loc[:3, "loss_code"] = 3.0
    answer = told(*words(frame), *LAW, "--flops", "1e20")
    assert set(answer["refused"]) == {"code"}
    assert answer["plans"][0]["worth"] == {"prose": 1.0}
    code, _ = run(*words(frame), *LAW, "--flops", "1e20", "--skill_weights", "code=1")
    assert (code, "--skill_weights names code, which has no law" in capsys.readouterr().err) == (1, True)


def test_why_nothing_is_told_of_other_mixes(words):
    shares = {"mix": {"web": "web", "books": "books"}}
    at = np.arange(len(runs())) % 2
    several, one = runs().assign(web=0.25 + 0.5 * at, books=0.75 - 0.5 * at), runs().assign(web=0.25, books=0.75)
    (plan,) = told(*words(several, **shares), *LAW, "--flops", "1e20")["plans"]
    assert any("the runs had several, but none enters chinchilla; it does with" in said for said in plan["not_told"])
    (plan,) = told(*words(one, **shares), *LAW, "--flops", "1e20")["plans"]
    assert "The effect of another mix: all runs had one." in plan["not_told"]


def test_of_several_named_mixes_one_has_to_be_named(words, capsys):
    frame = pd.concat([runs().assign(corpus="web"), runs().assign(corpus="books")])
    frame.loc[frame["corpus"] == "books", "loss_code"] *= 1.1
    table = words(frame, mix="corpus")
    code, _ = run(*table, *LAW, "--flops", "1e20")
    assert (code, "each has laws of its own. Give --mix, one of books, web" in capsys.readouterr().err) == (2, True)
    books, web = (told(*table, *LAW, "--flops", "1e20", "--mix", mix)["plans"][0] for mix in ("books", "web"))
    assert any("names without shares, and each has laws of its own" in said for said in web["not_told"])
    assert books["losses"]["code"]["loss"] == pytest.approx(1.1 * web["losses"]["code"]["loss"], rel=1e-3)


def plan_without(answer, *names):
    return {name: value for name, value in answer.items() if name not in names}


def test_a_law_that_was_registered_plans_as_the_study_does_and_both_are_recorded(words, tmp_path):
    import mlflow

    store = ["--tracking", f"sqlite:///{tmp_path}/m.db"]
    study = ["--study", "theirs", *store]
    table = words()
    assert run(*table, *study, entry="import")[0] == 0
    assert run(*study, *LAW, "--register", "their-law", entry="fit")[0] == 0
    ask = ["--flops", "1e21", "--skill_weights", "code=2,prose=1", "--validation", "code=1"]
    fresh = told(*study, *LAW, *ask)
    (tmp_path / "law.json").write_text(law_of(store[1]))
    kept = [told("--from", name, *store, *ask) for name in ("models:/their-law@champion", "models:/their-law/1")]
    kept.append(told("--from", str(tmp_path / "law.json"), *ask))
    # A document has no runs, of which only the study can tell what mixes they had
    assert fresh["plans"][0]["not_told"].pop() == (
        "The effect of another mix: the runs have no shares, and at most one name."
    )
    assert [one["plans"][0]["not_told"].pop() for one in kept] == [
        "The effect of another mix: no mix enters chinchilla."
    ] * 3
    for one in kept:
        assert plan_without(one, "source") == plan_without(kept[0], "source")
        # As many draws as the document keeps, which are all here
        assert one["plans"] == approximately(fresh["plans"])
    client = mlflow.MlflowClient(store[1])
    found = {}
    for experiment in client.search_experiments():
        for each in client.search_runs([experiment.experiment_id]):
            if each.data.tags.get("skillscale.kind") == "plan" and "N_star" in each.data.metrics:
                found.setdefault(experiment.name, []).append(each)
    assert {name: len(several) for name, several in found.items()} == {"theirs-study": 1, "their-law-laws": 2}
    (recorded,) = found["theirs-study"]
    assert recorded.data.metrics["N_star"] == pytest.approx(fresh["plans"][0]["n_params"])
    files = {one.path for one in client.list_artifacts(recorded.info.run_id)}
    files |= {one.path for one in client.list_artifacts(recorded.info.run_id, "figures")}
    assert files >= {"plan.json", "plan.txt", "figures/plan.svg", "figures/plan.png"}


def law_of(store):
    """The document that the fit logged."""
    import mlflow

    client = mlflow.MlflowClient(store)
    version = client.get_model_version_by_alias("their-law", "champion")
    return Path(client.download_artifacts(version.run_id, "law.json")).read_text()


def approximately(value):
    """Nested plain values, with numbers about equal."""
    if isinstance(value, dict):
        return {name: approximately(one) for name, one in value.items()}
    if isinstance(value, list):
        return [approximately(one) for one in value]
    return pytest.approx(value, rel=1e-6, abs=1e-9) if isinstance(value, float) else value


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """An empty store."""
    uri = f"sqlite:///{tmp_path_factory.mktemp('store')}/m.db"
    assert main(["fit", "--study", "none", "--tracking", uri], COMMANDS, io.StringIO()) == 1
    return uri


@pytest.mark.parametrize(
    ("address", "code", "says"),
    [
        ("nowhere.json", 2, "there is no such file. Registered laws are named models:/NAME@champion"),
        ("models:/none", 2, "names no registered law. Write models:/NAME@champion"),
        ("models:/none@champion", 1, "there is no law models:/none@champion to read"),
    ],
)
def test_laws_that_are_not_there_are_refused(store, capsys, address, code, says):
    done, _ = run("--from", address, "--tracking", store, "--flops", "1e20")
    assert (done, says in (text := capsys.readouterr().err)) == (code, True), text
