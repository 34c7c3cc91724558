"""`fit` on tables and imported studies, by the command line as scripts call it: its contract, and what it refuses."""

import io
import json
import math
import os
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import yaml

from skillscale.cli import COMMANDS, main
from skillscale.laws.forms.catalogue import CHINCHILLA

THETA = {"code": [0.9, 250.0, 900.0, 0.38, 0.36], "prose": [1.8, 480.0, 2100.0, 0.35, 0.37]}
COLUMNS = {"n_params": "params", "n_tokens": "tokens", "skills": {name: f"loss_{name}" for name in THETA}}


def runs(seed=0, noise=0.004) -> pd.DataFrame:
    """Five sizes on five numbers of tokens."""
    N, D = (grid.ravel() for grid in np.meshgrid(np.geomspace(1e7, 1e9, 5), np.geomspace(5e8, 5e10, 5)))
    rng = np.random.default_rng(seed)
    losses = {
        f"loss_{name}": CHINCHILLA.loss(theta, N, D) * np.exp(noise * rng.normal(size=len(N)))
        for name, theta in THETA.items()
    }
    return pd.DataFrame({"params": N, "tokens": D, **losses})


@pytest.fixture
def fit(tmp_path, capsys):
    """Call ``fit`` on a frame; returns the answer of ``--json`` and what was told beside it."""

    def call(frame, *words, columns=COLUMNS, entry="fit"):
        frame.to_csv(tmp_path / "t.csv", index=False)
        (tmp_path / "map.yaml").write_text(yaml.safe_dump(dict(columns)))
        answer = io.StringIO()
        table = ["--table", str(tmp_path / "t.csv"), "--columns", str(tmp_path / "map.yaml")]
        code = main([entry, *table, *words, "--study.resamples", "200", "--json"], COMMANDS, answer)
        told = capsys.readouterr().err
        return code, json.loads(answer.getvalue() or "{}"), told

    return call


def test_the_contract(fit):
    code, answer, _ = fit(runs(), "--law", "chinchilla", "--laws.objective", "huber", "--laws.huber_delta", "1e-3")
    assert code == 0
    assert list(answer["skills"]) == ["code", "prose"]
    one = answer["skills"]["code"]
    assert {"law", "n_runs", "objective", "theta", "intervals", "starts", "status", "optima"} <= set(one)
    assert one["law"] == "chinchilla"
    assert one["n_runs"] == 25
    assert one["objective"] == "sum of Huber(0.001) on ln L"
    assert set(one["theta"]) == set(one["intervals"]) == {"E", "A", "B", "alpha", "beta"}
    assert one["starts"]["agree"] == one["starts"]["tried"]
    assert one["status"] == "ok"
    for value, (lo, hi) in ((one["theta"][name], one["intervals"][name]) for name in one["theta"]):
        assert lo < value < hi
    first = one["optima"][0]
    assert {"flops", "n_params", "n_tokens", "interval", "reason", "identified", "prior_share"} <= set(first)
    assert (first["reason"], first["identified"], first["further_runs"]) == ("", True, [])
    assert 6 * first["n_params"] * first["n_tokens"] == pytest.approx(first["flops"])
    assert first["interval"][0] < first["n_params"] < first["interval"][1]
    assert [optimum["flops"] for optimum in one["optima"]] == pytest.approx([3e20, 3e21, 3e22])


def test_without_a_law_those_that_predict_about_as_well_are_averaged(fit):
    code, answer, told = fit(runs(noise=0.01))
    assert code == 0
    assert "by its error on held-out larger runs" in told
    one = answer["skills"]["code"]
    assert one["law"] == "chinchilla"
    assert f": {one['setting']}, by its error" in told
    assert "weak priors" in one["setting"]
    assert set(one["believed"]) <= {"ln E", "ln A'", "ln B'", "alpha", "beta"}
    over = one["over_laws"]
    assert sum(over["weights"].values()) == pytest.approx(1)
    assert len(over["weights"]) > 1
    for own, mixed in zip(one["optima"], over["optima"], strict=True):
        assert mixed["flops"] == own["flops"]
        assert mixed["interval"][0] < own["n_params"] < mixed["interval"][1]


def test_a_skill_whose_loss_rises_with_D_is_refused_where_the_law_is_chosen(fit):
    frame = runs()
    frame["loss_code"] = frame["loss_code"].max() + frame["loss_code"].min() - frame["loss_code"]
    code, answer, _ = fit(frame)
    assert code == 0
    assert "rises with D" in answer["skills"]["code"]["reason"]
    assert answer["skills"]["prose"]["status"] == "ok"


def test_what_is_shared_keeps_the_law_that_was_chosen_and_says_how_it_is_fitted(fit):
    code, answer, told = fit(runs(), "--laws.tie", "alpha")
    assert code == 0
    assert "without weak priors, with the parameters fixed, tied or pooled as the settings say" in told
    theta = [one["theta"]["alpha"] for one in answer["skills"].values()]
    assert theta[0] == theta[1]
    assert not any("setting" in one for one in answer["skills"].values())


def test_planted_parameters_come_back_from_a_table_without_noise(fit):
    _, answer, _ = fit(runs(noise=0.0), "--law", "chinchilla", "--flops", "1e20")
    for name, theta in THETA.items():
        assert list(answer["skills"][name]["theta"].values()) == pytest.approx(theta, rel=1e-6)
    N = answer["skills"]["code"]["optima"][0]["n_params"]
    assert np.exp(CHINCHILLA.log_optimum(np.array([THETA["code"]]), 1e20))[0, 0] == pytest.approx(N, rel=1e-6)


@pytest.mark.parametrize(
    ("objective", "name"),
    [
        ("least_squares", "sum of squares / 2 on ln L"),
        ("least_absolute", "sum of absolute values on ln L"),
        ("least_squares_raw", "sum of squares / 2 on L"),
    ],
)
def test_the_objective_is_named(fit, objective, name):
    _, answer, _ = fit(runs(), "--law", "chinchilla", "--laws.objective", objective)
    assert answer["skills"]["code"]["objective"] == name


def test_parameters_can_be_pinned_and_shared(fit):
    _, answer, _ = fit(runs(), "--law", "chinchilla", "--laws.fix", "E=.9", "--laws.tie", "alpha")
    theta = {name: one["theta"] for name, one in answer["skills"].items()}
    assert theta["code"]["E"] == theta["prose"]["E"] == pytest.approx(0.9)
    assert theta["code"]["alpha"] == theta["prose"]["alpha"]
    assert theta["code"]["beta"] != theta["prose"]["beta"]


def test_a_loss_that_was_measured_badly_weighs_less(fit):
    frame = runs(noise=0.0)
    frame["sem"] = 1e-4
    frame.loc[3, ["loss_code", "sem"]] = [frame.loc[3, "loss_code"] * 1.2, 1.0]
    columns = COLUMNS | {"skills": {"code": {"loss": "loss_code", "sem": "sem"}}}
    words = ("--law", "chinchilla", "--laws.objective", "least_squares")
    _, equal, _ = fit(frame, *words, columns=columns)
    _, by_sem, _ = fit(frame, *words, "--laws.weights", "sem", columns=columns)
    off = [abs(one["skills"]["code"]["theta"]["alpha"] - 0.38) for one in (equal, by_sem)]
    assert off[1] < 0.05 * off[0]


def test_standard_errors_that_no_run_has_cant_weigh(fit):
    code, _, told = fit(runs(), "--law", "chinchilla", "--laws.weights", "sem")
    assert code == 2
    assert "--laws.weights sem needs standard errors, and no run has any. Name their columns as `sem:`" in told


def isoflop_runs() -> pd.DataFrame:
    """Six sizes at each of four budgets, with an error that a budget's runs share."""
    C, N = np.repeat([1e18, 3e18, 1e19, 3e19], 6), 0.1 * np.sqrt(np.repeat([1e18, 3e18, 1e19, 3e19], 6))
    N = N * np.tile(np.geomspace(1 / 4, 4, 6), 4)
    common = np.repeat([0.01, -0.012, 0.008, -0.006], 6)
    rng = np.random.default_rng(0)
    losses = {
        f"loss_{name}": CHINCHILLA.loss(theta, N, C / (6 * N)) * np.exp(common + 0.001 * rng.normal(size=24))
        for name, theta in THETA.items()
    }
    return pd.DataFrame({"params": N, "tokens": C / (6 * N), "budget": C, **losses})


@pytest.mark.parametrize("how", [(), ("--laws.tie", "exponents")])
def test_budgets_are_resampled_whole(fit, how):
    """Told or found. Errors that a budget shares blur no difference within it, so that alpha is known better."""
    frame, words = isoflop_runs(), ("--law", "chinchilla", "--laws.fix", "E=.9", *how)
    answers = {}
    for name, columns in (("found", COLUMNS), ("told", COLUMNS | {"budget": "budget"})):
        _, answer, _ = fit(frame, *words, "--laws.bootstrap", "budget", columns=columns)
        answers[name] = answer["skills"]["code"]["intervals"]
    assert answers["found"]["beta"] == pytest.approx(answers["told"]["beta"], rel=1e-6)
    _, answer, _ = fit(frame, *words, "--laws.bootstrap", "run")
    by_run = answer["skills"]["code"]["intervals"]
    assert np.diff(answers["found"]["alpha"])[0] < 0.97 * np.diff(by_run["alpha"])[0]


def test_budgets_that_cant_be_told_are_refused(fit):
    frame = runs()
    frame["tokens"] = np.geomspace(1e17, 1e18, len(frame)) / (6 * frame["params"])
    code, _, told = fit(frame, "--law", "chinchilla", "--laws.bootstrap", "budget")
    assert code == 2
    assert "budgets overlap" in told
    assert "or resample by run" in told


def test_the_curve_of_budgets_is_chosen(fit):
    answers = [
        fit(isoflop_runs(), "--law", "chinchilla", "--laws.isoflop_curve", one)[1] for one in ("quadratic", "cubic")
    ]
    sizes = [[one["N_star"] if "N_star" in one else one["N"] for one in answer["minima"]] for answer in answers]
    assert len(sizes[0]) == len(sizes[1]) == 8
    assert sizes[0] != sizes[1]


def test_a_missing_cell_costs_that_skill_of_that_run_alone(fit):
    frame = runs()
    frame.loc[[2, 7], "loss_code"] = [np.nan, -1.0]
    code, answer, told = fit(frame, "--law", "chinchilla")
    assert (code, answer["skills"]["code"]["n_runs"], answer["skills"]["prose"]["n_runs"]) == (0, 23, 25)
    assert "excluded: 1 (row 3" in told
    assert "code" in told


def test_a_skill_that_cant_be_fitted_costs_no_other(fit):
    frame = runs()
    frame.loc[frame["params"] > 2e7, "loss_code"] = np.nan
    _, answer, _ = fit(frame, "--law", "chinchilla")
    assert answer["skills"]["prose"]["status"] == "ok"
    assert answer["skills"]["code"]["status"] == "refused"
    assert (
        "can't determine a law" in answer["skills"]["code"]["reason"]
        or "distinct N" in answer["skills"]["code"]["reason"]
    )
    assert answer["skills"]["code"]["optima"] == []


def test_one_size_only_says_what_to_add(fit):
    frame = pd.concat([runs(seed)[lambda one: one["params"] < 2e7] for seed in range(3)])
    code, _, told = fit(frame, "--law", "chinchilla")
    assert code == 1
    assert "no skill can be fitted. code, prose: 1 distinct N" in told
    assert "or fix an exponent" in told


def test_a_skill_without_a_usable_loss_is_refused_by_name(fit):
    code, answer, told = fit(runs().assign(loss_code=-3.1), "--law", "chinchilla")
    assert code == 0
    assert answer["skills"]["code"]["status"] == "refused"
    assert "loss is -3.1, not a positive number in row 1, and none of 25 is" in answer["skills"]["code"]["reason"]
    assert "1 (every row): code: no usable row has a loss" in told
    assert answer["skills"]["prose"]["status"] == "ok"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--law", "chinchila"), "no law 'chinchila' (did you mean chinchilla?)"),
        (
            ("--law", "separable"),
            "the law separable needs a mix, but the runs have none, or all the same. Map `mix:` in",
        ),
        (
            ("--law", "chinchilla", "--laws.fix", "alpha=5"),
            "alpha of chinchilla must be between 0.02 and 2, but it is 5.0. Fix it at a value inside.",
        ),
        (("--law", "chinchilla", "--laws.tie", "foo"), "foo of chinchilla can't be tied or pooled over skills"),
        (("--law", "farseer", "--laws.tie", "exponents"), "exponents of farseer can't be tied or pooled over skills"),
        (("--law", "chinchilla", "--laws.fix", "A=3"), "A of chinchilla can't be fixed. Fix one of: E, alpha, beta"),
        (
            ("--law", "chinchilla", "--laws.fix", "E=1", "--laws.tie", "E"),
            "E can be fixed, tied or pooled, but not several",
        ),
        (("--laws.objective", "hubert"), "laws.objective must be one of huber, least_squares"),
        (("--law", "chinchilla", "--laws.fix", "alpha"), "must read NAME=VALUE"),
    ],
)
def test_what_cant_be_asked_is_refused_with_the_cure(fit, words, message):
    code, _, told = fit(runs(), *words)
    assert code == 2
    assert message in told


def test_columns_are_guessed_by_their_names_or_must_be_named(tmp_path, capsys):
    path = tmp_path / "t.csv"
    runs().to_csv(path, index=False)
    words = ["fit", "--table", str(path), "--law", "chinchilla", "--laws.bootstrap", "laplace"]
    assert main(words, COMMANDS, io.StringIO()) == 0
    assert "note: columns by their names: n_params params, n_tokens tokens" in capsys.readouterr().err
    runs().rename(columns={"tokens": "amount"}).to_csv(path, index=False)
    assert main(words, COMMANDS, io.StringIO()) == 2
    assert "no column of t.csv is D (tokens) by its name" in capsys.readouterr().err
    assert main(["fit", "--columns", "map.yaml"], COMMANDS, io.StringIO()) == 2
    assert "--columns needs --table FILE" in capsys.readouterr().err


def test_an_empty_registry_says_how_to_fill_it(tmp_path, capsys):
    code = main(["fit", "--study", "theirs", "--tracking", f"sqlite:///{tmp_path}/new.db"], COMMANDS, io.StringIO())
    told = capsys.readouterr().err
    assert code == 1
    assert "no study 'theirs'" in told


def loaded_elsewhere(folder, address) -> pd.DataFrame:
    """What a registered law tells in a process where this package is not installed."""
    code = (
        "import sys, mlflow, pandas as pd; mlflow.set_tracking_uri(sys.argv[1]); "
        "model = mlflow.pyfunc.load_model(sys.argv[2]); "
        "told = model.predict(pd.DataFrame({'n_params': [1e9], 'n_tokens': [2e10]})); "
        "import skillscale; assert 'artifacts' in skillscale.__file__; assert 'torch' not in sys.modules; "
        "example = model.predict(model.input_example); assert len(example) == 2 and example.notna().all(None); "
        "print(told.to_json())"
    )
    words = [sys.executable, "-c", code, f"sqlite:///{folder}/m.db", address]
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(words, cwd=folder, env=kept, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return pd.read_json(io.StringIO(done.stdout.splitlines()[-1]))


def test_an_imported_study_fits_as_its_table_does_and_can_be_registered(fit, tmp_path):
    frame = runs()
    frame["params"] += 0.25  # others' tables are not always whole
    words = ("--law", "chinchilla")
    _, direct, _ = fit(frame, *words)
    store = ("--study", "theirs", "--tracking", f"sqlite:///{tmp_path}/m.db")
    table = ("--table", str(tmp_path / "t.csv"), "--columns", str(tmp_path / "map.yaml"))
    assert main(["import", *table, *store, "--json"], COMMANDS, io.StringIO()) == 0
    answer = io.StringIO()
    register = ("--register", "their-law", "--study.resamples", "200", "--json")
    assert main(["fit", *store, *words, *register], COMMANDS, answer) == 0
    read = json.loads(answer.getvalue())
    assert read["skills"] == direct["skills"]
    assert read["registered"] == "models:/their-law/1"
    told = loaded_elsewhere(tmp_path, "models:/their-law@champion")
    expected = CHINCHILLA.loss(np.array(list(direct["skills"]["code"]["theta"].values())), 1e9, 2e10)
    assert told["loss"][0] == pytest.approx(expected[0], rel=1e-9)
    assert list(told["skill"]) == ["code", "prose"]
    assert told["new_lo"][0] < told["lo"][0] < told["loss"][0] < told["hi"][0] < told["new_hi"][0]


def sweep(noise=0.003) -> pd.DataFrame:
    """Three budgets of eight sizes, where every fourth run has a third more tokens than its budget pays for."""
    budgets = np.repeat([1e18, 1e19, 1e20], 8)
    N = np.sqrt(budgets / 120) * np.tile(np.geomspace(1 / 8, 8, 8), 3)
    D = budgets / 6 / N * np.where(np.arange(24) % 4 == 3, 1.33, 1)
    rng = np.random.default_rng(0)
    losses = {
        f"loss_{name}": CHINCHILLA.loss(theta, N, D) * np.exp(noise * rng.normal(size=24))
        for name, theta in THETA.items()
    }
    return pd.DataFrame({"params": N, "tokens": D, "budget": budgets, **losses})


def test_a_skill_has_one_law_and_every_run_that_is_left_out_is_named(fit, tmp_path):
    frame = sweep()
    frame.loc[0, "loss_prose"] = -3.1
    columns = COLUMNS | {"budget": "budget"}
    code, answer, told = fit(frame, "--law", "chinchilla", columns=columns)
    assert code == 0
    for row in answer["laws"]:
        own = answer["skills"][row["skill"]]
        assert {name: row[name] for name in own["theta"]} == own["theta"]
        assert {name: [row[f"{name}_lo"], row[f"{name}_hi"]] for name in own["theta"]} == own["intervals"]
        assert [row[name] for name in ("n_runs", "status", "F")] == [own[name] for name in ("n_runs", "status", "F")]
    assert answer["skills"]["code"]["n_runs"] == 24  # a law needs no budget
    assert [len(answer[name]) for name in ("laws", "minima", "power_laws")] == [2, 6, 2]
    assert all(row["law_lo"] < row["law"] < row["law_hi"] for row in answer["frontier"])
    assert all(row["disagreement_lo"] < row["disagreement"] < row["disagreement_hi"] for row in answer["frontier"])
    left_out = {(one["run"], one["skill"]): one["reason"] for one in answer["unusable"]}
    off = {(f"row {row}", ""): "6 N D is 1.33 times its budget, so it fits no isoFLOP curve"
           for row in range(4, 25, 4)}  # fmt: skip
    assert left_out == off | {("row 1", "prose"): "loss is -3.1, not a positive number"}
    assert "excluded: 6 (row 4, row 8, row 12 and 3 more): 6 N D is 1.33 times its budget" in told
    assert "excluded: 1 (row 1): prose: loss is -3.1, not a positive number" in told
    page = tmp_path / "page.html"
    fit(frame, "--law", "chinchilla", "--page", str(page), columns=columns, entry="report")
    assert "6 excluded: 6 N D is 1.33 times its budget" in page.read_text()
    assert "1 excluded from prose: loss is -3.1, not a positive number" in page.read_text()


@pytest.fixture(scope="module")
def mixed_law(tmp_path_factory):
    """A registered law of a mix, loaded, and the store's address."""
    import mlflow

    folder = tmp_path_factory.mktemp("mixed")
    rng = np.random.default_rng(0)
    frame = pd.concat([runs(seed) for seed in range(3)], ignore_index=True)
    share = frame["mix_a"] = rng.uniform(0.1, 0.9, len(frame))
    frame["mix_b"] = 1 - share
    for name in THETA:
        frame[f"loss_{name}"] *= np.exp(0.1 * (share - 0.5))
    frame.to_csv(folder / "t.csv", index=False)
    (folder / "map.yaml").write_text(yaml.safe_dump(COLUMNS | {"mix": {"a": "mix_a", "b": "mix_b"}}))
    store = f"sqlite:///{folder}/m.db"
    words = ("--table", f"{folder}/t.csv", "--columns", f"{folder}/map.yaml", "--tracking", store)
    how = ("--law", "separable", "--register", "mixed", "--study.resamples", "100")
    before = mlflow.get_registry_uri()
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert main(["fit", *words, *how], COMMANDS, io.StringIO()) == 0
        patch.setattr(sys, "path", [*sys.path])  # loading puts the model's code first
        mlflow.set_registry_uri(store)
        yield mlflow.pyfunc.load_model("models:/mixed@champion")
    mlflow.set_registry_uri(before)


def test_a_registered_law_tells_its_runs_and_has_an_example(mixed_law):
    law = mixed_law.unwrap_python_model().laws["code"]
    assert law.run_ids[:2] == ("row 1", "row 2")
    assert len(law.run_ids) == law.n_runs == 75
    assert len(law.digest) == 64
    example = mixed_law.input_example
    assert list(example.columns) == ["n_params", "n_tokens", "mix/a", "mix/b"]
    told = mixed_law.predict(example)
    assert list(told.columns) == ["skill", "n_params", "n_tokens", "loss", "lo", "hi", "new_lo", "new_hi"]
    np.testing.assert_allclose(mixed_law.predict(example[["n_params", "n_tokens"]])["loss"], told["loss"], rtol=1e-12)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"n_params": -1.0}, "N must be parameters above 0, but row 0 has -1.0"),
        ({"n_tokens": math.nan}, "D must be tokens above 0, but row 0 has nan"),
        ({"mix/a": 0.9}, "which sum to 1.4"),
        ({"mix/a": None}, "give a share of every category or of none, but mix/a is missing"),
        ({"skill": "coed"}, "there is no law of 'coed'. There are code, prose"),
    ],
)
def test_a_registered_law_refuses_what_it_cant_predict(mixed_law, change, message):
    row = {"n_params": 1e8, "n_tokens": 1e10, "mix/a": 0.5, "mix/b": 0.5} | change
    frame = pd.DataFrame([{name: value for name, value in row.items() if value is not None}])
    with pytest.raises(ValueError, match=message):
        mixed_law.predict(frame)


def test_runs_that_are_no_isoflop_study_begin_with_their_laws_and_no_empty_line_first(root, capsys):
    table = ["--table", str(root / "examples" / "planted.csv"), "--columns", str(root / "examples" / "planted.yaml")]
    assert main(["fit", *table, "--law", "separable", "--study.resamples", "100"], COMMANDS) == 0
    out = capsys.readouterr().out
    assert out.splitlines()[0].strip() != ""
