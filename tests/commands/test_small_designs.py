"""Few runs, and runs that cannot tell N from D, by the command line: honest intervals or a refusal with its cure."""

import io
import json
import math

import numpy as np
import pandas as pd
import pytest
import yaml

from skillscale.cli import COMMANDS, main
from skillscale.laws.forms.catalogue import CHINCHILLA

THETA = [1.8, 480.0, 2100.0, 0.35, 0.37]
QUICK = ("--study.resamples", "200")
SIZES = np.array([7e7, 1.6e8, 4.1e8, 1e9, 1.4e9, 2.8e9, 6.9e9])
SPREAD = {3: [20, 40, 10], 4: [20, 40, 10, 30], 5: [20, 40, 10, 30, 14]}  # D / N of each run


def table_of(N, D, *, noise=0.005, seed=0, theta=THETA):
    N, D = np.asarray(N, dtype=float), np.asarray(D, dtype=float)
    rng = np.random.default_rng(seed)
    loss = CHINCHILLA.loss(theta, N, D) * np.exp(noise * rng.normal(size=len(N)))
    return pd.DataFrame({"params": N, "tokens": D, "loss": loss})


def near_confounded(n=7, *, off=0.05, seed=0, noise=0.001):
    """D = 20 N give or take 5 %."""
    N = np.geomspace(7e7, 6.9e9, n)
    return table_of(N, 20 * N * np.exp(off * np.random.default_rng(seed).uniform(-1, 1, n)), noise=noise)


def true_optimum(C, theta=THETA):
    return float(np.exp(CHINCHILLA.log_optimum(np.array([theta]), [C])[0, 0]))


@pytest.fixture
def run(tmp_path, capsys):
    """Call a command on a frame; returns exit code, answer and what else was printed."""

    def call(frame, entry, *words, columns=None):
        frame.to_csv(tmp_path / "t.csv", index=False)
        mapping = {"n_params": "params", "n_tokens": "tokens", "skills": {"all": "loss"}} | (columns or {})
        (tmp_path / "map.yaml").write_text(yaml.safe_dump(mapping))
        answer = io.StringIO()
        table = ["--table", str(tmp_path / "t.csv"), "--columns", str(tmp_path / "map.yaml")]
        code = main([entry, *table, *words, *QUICK], COMMANDS, answer)
        return code, answer.getvalue(), capsys.readouterr().err

    return call


def as_json(run, *args, **options):
    code, answer, _ = run(*args, "--json", **options)
    assert code == 0, answer
    return json.loads(answer)


@pytest.mark.parametrize("n", [3, 4, 5])
def test_few_runs_get_intervals_that_hold_the_truth(run, n):
    N = SIZES[:n]
    frame = table_of(N, N * SPREAD[n])
    fitted = as_json(run, frame, "fit", "--flops", "1e20,1e21,1e22")["skills"]["all"]
    for optimum in fitted["optima"]:
        low, high = optimum["interval"]
        assert low < true_optimum(optimum["flops"]) < high
        assert math.log(high / low) > 0.5
    assert fitted["noise"] > 0.001, "few runs say little about the noise, so it is never next to 0"


@pytest.mark.parametrize("n", [3, 4])
def test_no_plan_is_printed_that_the_priors_decide(run, n):
    frame = table_of(SIZES[:n], SIZES[:n] * SPREAD[n])
    code, answer, printed = run(frame, "plan", "--flops", "1e22")
    assert (code, answer) == (2, "")
    assert "is not identified" in printed
    assert "three runs would: N = " in printed
    assert "--force" in printed


def test_force_prints_the_plan_with_its_label(run):
    frame = near_confounded()
    code, text, _ = run(frame, "plan", "--flops", "1e22", "--force")
    assert code == 0
    assert "decided by weak priors, not by the runs" in text
    assert "confidence" not in text.partition("not determined")[0]
    answer = as_json(run, frame, "plan", "--flops", "1e22", "--force")["plans"][0]
    assert answer["identified"] is False
    assert answer["status"] == "not identified"
    assert answer["cheap"]["sure"] == [None, None]
    assert answer["prior_share"] > 0.3


@pytest.mark.parametrize("law", [(), ("--law", "chinchilla"), ("--law", "coupled")])
@pytest.mark.parametrize("n", [7, 12])
def test_runs_at_one_ratio_are_told_to_be_confounded(run, law, n):
    frame = near_confounded(n)
    code, _, printed = run(frame, "plan", "--flops", "1e22", *law)
    assert code in (1, 2)
    assert "cannot tell N from D" in printed or "confounded" in printed
    assert "differ in N," not in printed


def test_many_runs_at_one_ratio_are_confounded_too(run):
    """40 runs, so that the bootstrap is used: the default law has priors, and these decide."""
    frame = near_confounded(40, off=0.02, noise=0.005)
    code, _, printed = run(frame, "plan", "--flops", "1e22")
    assert code == 2
    assert "these runs cannot tell N from D" in printed


def test_the_further_runs_cure_it(run):
    frame = near_confounded()
    first = as_json(run, frame, "fit", "--flops", "1e22")["skills"]["all"]["optima"][0]
    N, D = (np.array([further[key] for further in first["further_runs"]]) for key in ("n_params", "n_tokens"))
    assert len(N) == 3
    assert (1.1 * (6 * frame["params"] * frame["tokens"]).max() >= 6 * N * D).all(), "they are affordable"
    cured = pd.concat([frame, table_of(N, D, noise=0.001, seed=5)])
    second = as_json(run, cured, "fit", "--flops", "1e22")["skills"]["all"]["optima"][0]
    assert second["identified"] is True
    low, high = second["interval"]
    assert low < true_optimum(1e22) < high


def test_a_mix_of_each_size_does_not_identify_it(run):
    """Three sizes with one D each: the shares differ, and would otherwise stand in for tokens."""
    N = np.repeat([7e7, 4e8, 1.5e9], 4)
    share = np.tile([0.9, 0.6, 0.3, 0.1], 3)
    tokens = 20 * N
    effective = tokens * (1.3 * share + 0.7 * (1 - share))
    frame = table_of(N, effective).assign(tokens=tokens, a=share, b=1 - share)
    columns = {"mix": {"a": "a", "b": "b"}}
    for law in ((), ("--law", "effective_data")):
        code, _, printed = run(frame, "plan", "--flops", "1e21", *law, columns=columns)
        assert code == 2, printed
        assert "cannot tell N from D" in printed


def test_named_data_sets_of_five_runs_each(run):
    N = np.array([2e7, 6e7, 1.5e8, 5e8, 1e9])
    parts = [table_of(N, N * [100, 20, 60, 100, 40], seed=seed).assign(data=name) for seed, name in enumerate("xyz")]
    skills = as_json(run, pd.concat(parts), "fit", columns={"mix": "data"})["skills"]
    assert set(skills) == {"x/all", "y/all", "z/all"}
    optima = [optimum for fitted in skills.values() for optimum in fitted["optima"]]
    held = [low < true_optimum(at["flops"]) < high for at in optima for low, high in [at["interval"]]]
    assert np.mean(held) > 0.6
    assert all(math.log(high / low) > 0.5 for low, high in (at["interval"] for at in optima))


@pytest.mark.parametrize("law", [(), ("--law", "chinchilla"), ("--law", "drifting")])
def test_nine_well_spread_runs_get_a_plan(run, law):
    N, D = (grid.ravel() for grid in np.meshgrid([7e7, 4e8, 2.5e9], [5e9, 2e10, 8e10]))
    frame = table_of(N, D)
    answer = as_json(run, frame, "plan", "--flops", "5e21", *law)["plans"][0]
    assert answer["identified"] is True
    assert answer["interval"][0] < true_optimum(5e21) < answer["interval"][1]


def test_laws_of_a_file_know_that_priors_decide(run, tmp_path, capsys):
    frame = near_confounded()
    path = tmp_path / "law.json"
    assert run(frame, "export", "--file", str(path))[0] == 0
    assert main(["plan", "--from", str(path), "--flops", "1e22"], COMMANDS, io.StringIO()) == 2
    assert "these runs cannot tell N from D" in capsys.readouterr().err
    document = json.loads(path.read_text())
    for part in (document["skills"]["all"], *document["skills"]["all"]["rivals"]):
        del part["information"]
    path.write_text(json.dumps(document))
    assert main(["plan", "--from", str(path), "--flops", "1e22"], COMMANDS, io.StringIO()) == 2
    assert "earlier version" in capsys.readouterr().err


@pytest.mark.parametrize("bootstrap", ["wild", "laplace"])
def test_a_floor_of_zero_has_a_bound_and_no_value(run, bootstrap):
    N, D = (grid.ravel() for grid in np.meshgrid(np.geomspace(7e7, 6.9e9, 5), np.geomspace(2e9, 1e11, 5)))
    frame = table_of(N, D, theta=[1e-4, 480.0, 900.0, 0.28, 0.28])
    words = ("--law", "chinchilla", "--laws.bootstrap", bootstrap)
    fitted = as_json(run, frame, "fit", "--flops", "1e21", *words)["skills"]["all"]
    assert fitted["theta"]["E"] is None
    low, high = fitted["intervals"]["E"]
    assert low == 0
    assert 0 < high < frame["loss"].min()
    assert "below" in fitted["unidentified"]["E"]
    _, text, _ = run(frame, "fit", "--flops", "1e21", *words)
    assert "below 0." in text
    assert "e-" not in text
    planned = as_json(run, frame, "plan", "--flops", "1e21", *words)["plans"][0]
    assert planned["loss_interval"][1] < 2 * planned["loss"]


def test_every_unknown_optimum_has_a_reason(run):
    frame = near_confounded(16, off=0.12, noise=0.01, seed=3)
    answer = as_json(run, frame, "fit", "--law", "chinchilla", "--flops", "1e20,1e22")
    for optimum in answer["skills"]["all"]["optima"]:
        if optimum["n_params"] is None or optimum["interval"][0] is None or not optimum["identified"]:
            assert optimum["reason"]
    assert not answer["skills"]["all"]["optima"][0]["identified"]


def test_every_command_says_that_n_and_d_are_confounded(run, tmp_path):
    frame, page, law = near_confounded(off=0), tmp_path / "page.html", tmp_path / "law.json"
    calls = {
        "suggest": ("--count", "1"), "backtest": ("--max_params", "1e9"), "report": ("--page", str(page)),
        "export": ("--file", str(law)), "fit": (),
    }  # fmt: skip
    for entry, words in calls.items():
        code, text, printed = run(frame, entry, *words)
        assert code == 0
        said = page.read_text() if entry == "report" else text + printed
        assert "cannot tell N from D" in said, entry
    assert as_json(run, frame, "suggest", "--count", "1")["notes"]
    assert as_json(run, frame, "backtest", "--max_params", "1e9")["notes"]
    assert json.loads(law.read_text())["skills"]["all"]["information"]["confounded"] is True


def test_mixes_that_follow_size_do_not_identify_it(run):
    """Each size has its own mix, so that the effect of one is that of the other."""
    share = np.repeat([0.2, 0.5, 0.8], 4)
    frame = table_of(np.repeat([7e7, 4e8, 1.5e9], 4), np.tile([2e9, 8e9, 3e10, 1e10], 3)).assign(a=share, b=1 - share)
    code, _, printed = run(frame, "plan", "--flops", "1e21", columns={"mix": {"a": "a", "b": "b"}})
    assert code == 2
    assert "is not identified" in printed


def test_one_budget_identifies_its_own_optimum_and_no_other(run):
    N = np.geomspace(7e7, 1e9, 9)
    frame = table_of(N, 1e20 / (6 * N))
    optima = as_json(run, frame, "fit", "--flops", "1e20,1e22")["skills"]["all"]["optima"]
    assert [optimum["identified"] for optimum in optima] == [True, False]
    low, high = optima[0]["interval"]
    assert low < true_optimum(1e20) < high
    further = optima[1]["further_runs"]
    assert len({6 * at["n_params"] * at["n_tokens"] for at in further}) > 1, "another budget"


def test_two_sizes_are_not_enough(run):
    frame = table_of(np.repeat([1e8, 1e9], 4), np.geomspace(1e9, 1e11, 8))
    code, _, printed = run(frame, "plan", "--flops", "1e22")
    assert code == 2
    assert "is not identified" in printed


def test_fixed_exponents_tell_n_from_d(run):
    frame = near_confounded(9, off=0, noise=0.002)
    for fixed, code in (("alpha=0.35", 2), ("alpha=0.35,beta=0.37", 0)):
        words = ("--law", "chinchilla", "--laws.fix", fixed)
        assert run(frame, "plan", "--flops", "1e22", *words)[0] == code
    planned = as_json(run, frame, "plan", "--flops", "1e22", *words)["plans"][0]
    assert planned["interval"][0] < true_optimum(1e22) < planned["interval"][1]


def test_seeds_of_confounded_runs_are_confounded(run):
    frame = pd.concat([near_confounded(5, off=0, noise=0.004, seed=seed).assign(seed=seed) for seed in range(4)])
    code, _, printed = run(frame, "plan", "--flops", "1e22", columns={"seed": "seed"})
    assert code == 2
    assert "these runs cannot tell N from D" in printed


@pytest.mark.parametrize(
    "matrix",
    [
        np.full((5, 5), 1e300), -np.eye(5), np.eye(5) + np.tri(5), np.full((5, 5), 3.0) - 2.5 * np.eye(5),
        np.eye(4), np.eye(5) * 1e13,
    ],
)  # fmt: skip
def test_information_of_a_file_that_is_no_covariance_is_refused(run, tmp_path, capsys, matrix):
    path = tmp_path / "law.json"
    run(table_of(SIZES, SIZES * [20, 40, 10, 30, 14, 60, 25]), "export", "--file", str(path))
    document = json.loads(path.read_text())
    document["skills"]["all"]["information"]["data"] = matrix.tolist()
    path.write_text(json.dumps(document))
    capsys.readouterr()
    assert main(["plan", "--from", str(path), "--flops", "1e21"], COMMANDS, io.StringIO()) == 2
    assert "information" in capsys.readouterr().err
