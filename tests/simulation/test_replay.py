"""Replays keep their settings, baselines are what they claim, and ``simulate`` reports the right errors."""

import json
import math
from io import StringIO

import numpy as np
import pytest

from skillscale import cli
from skillscale.design.propose import DesignGoal
from skillscale.design.space import DesignSpace, RunHistory
from skillscale.design.targets import Quantity, Target, default_targets
from skillscale.errors import InputError
from skillscale.simulation.baselines import DESIGNS, SHAPES, FixedDesign, IsoflopGridShape, isoflop_grid, largest
from skillscale.simulation.random_truths import FLOPS, SKILLS, TruthFamily, random_truth
from skillscale.simulation.replay import ReplaySettings, run_design
from skillscale.simulation.scores import TargetScore

UNIT = FLOPS[1]
SPACE = DesignSpace(flops=FLOPS)
MIXES = np.array([[0.5, 0.5], [0.8, 0.2]])
MIXED = DesignSpace(flops=FLOPS, categories=("a", "b"), mixes=MIXES)
FILE = """
import random
def losses(n_params, n_tokens, mix, seed):
    noise = random.Random(f"{n_params} {n_tokens} {seed}").gauss(0, NOISE)
    loss = 1.69 + 406.4 / n_params**0.34 + 410.7 / n_tokens**0.28
    return {"code": loss * (1 + noise), "prose": (loss * (1 + noise), 0.004 * loss)}
"""


def goal_of(budget, space=SPACE):
    mixes = () if space.mixes is None else [tuple(mix) for mix in space.mixes]
    return DesignGoal(
        targets=default_targets(SKILLS, largest=UNIT, computes=[1e21], mixes=mixes), budget=budget * UNIT, max_runs=24
    )


def replay(name, budget, space=SPACE, **settings):
    return run_design(
        random_truth(TruthFamily.CHINCHILLA, 3, space.categories), DESIGNS[name](space, goal_of(budget, space), 0),
        space, RunHistory.empty(SKILLS, len(space.categories)), ReplaySettings(budget=budget * UNIT, **settings),
        noise_rng=np.random.default_rng(1), design_rng=np.random.default_rng(2),
    )  # fmt: skip


@pytest.mark.parametrize("name", list(DESIGNS))
@pytest.mark.parametrize("space", [SPACE, MIXED], ids=["plain", "mixed"])
def test_designs_spend_their_budget_and_no_more(name, space):
    history = replay(name, 2.55, space)
    spent = space.cost(history.N, history.D).sum() / UNIT
    least = 0.7 if name == "bayes" else 0.9  # a plan for few runs may end with less than another expensive run costs
    assert least * 2.55 < spent <= 2.55 * (1 + 1e-9)
    assert space.allows(history.N, history.D).all()
    assert all(np.isfinite(log_L).all() for log_L in history.log_L.values())
    if space is MIXED:
        assert {tuple(row) for row in history.h} == {tuple(row) for row in MIXES}


def test_no_more_runs_than_allowed():
    assert len(replay("sobol", 10.2, max_runs=7, batch=4)) == 7


@pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: shape.name)
def test_a_grid_has_its_sizes_at_each_of_its_budgets(shape):
    grid = isoflop_grid(SPACE, 2.55 * UNIT, shape)
    C, counts = np.unique(np.round(np.log(6 * grid.N * grid.D), 6), return_counts=True)
    assert (len(C), set(counts)) == (shape.budgets, {shape.sizes})
    assert np.diff(C) == pytest.approx(np.diff(C)[0], abs=1e-5)
    at_last = np.isclose(np.log(6 * grid.N * grid.D), C[-1], atol=1e-4)
    at_top = np.log(grid.N[at_last])
    widest = min(2 * math.log(shape.span), math.log(math.sqrt(SPACE.ratio[1] / SPACE.ratio[0])))
    assert 0.85 * widest <= np.ptp(at_top) <= 2 * math.log(shape.span) + 1e-9


def test_a_larger_budget_buys_copies_of_the_largest_grid():
    single = isoflop_grid(SPACE, SPACE.cost(*grid_at_the_top()).sum())
    triple = isoflop_grid(SPACE, 3 * SPACE.cost(*grid_at_the_top()).sum())
    assert np.sort(triple.N) == pytest.approx(np.repeat(np.sort(single.N), 3))


def grid_at_the_top():
    C = np.repeat(np.geomspace(1e17, 1e19, 5), 7)
    N = np.sqrt(C / 120) * np.tile(np.geomspace(1 / 4, 4, 7), 5)
    return N, C / (6 * N)


def test_a_small_budget_buys_fewer_rungs_and_a_tiny_one_no_grid():
    rungs = np.unique(np.round(np.log(np.prod([(g := isoflop_grid(SPACE, 0.16 * UNIT)).N, g.D], axis=0)), 4))
    assert len(rungs) < IsoflopGridShape().budgets
    with pytest.raises(InputError, match="Raise the budget"):
        isoflop_grid(SPACE, 0.05 * UNIT)


def test_a_grid_takes_the_sizes_that_there_are():
    sizes = tuple(np.geomspace(1e6, 1e10, 30))
    grid = isoflop_grid(DesignSpace(flops=FLOPS, sizes=sizes), 2.55 * UNIT)
    assert set(grid.N) <= set(sizes)


def test_a_small_budget_lowers_the_largest_of_spread_runs():
    assert largest(SPACE, 100 * UNIT) == UNIT
    assert 2 * FLOPS[0] < largest(SPACE, 0.64 * UNIT) < UNIT / 4


class Watcher:
    """A design that counts how many of the runs in its history are finished."""

    def __init__(self):
        self.seen = []

    def next_runs(self, history, budget, count, rng):
        self.seen.append((len(history), int(history.measured("code").sum())))
        N = np.full(count, 3e7)
        return N, 1e18 / (6 * N), None


@pytest.mark.parametrize(
    ("workers", "batch", "pending"), [(1, 4, {0}), (4, 1, {0, 1, 2, 3}), (3, 3, {0, 1, 2}), (2, 1, {0, 1})]
)
def test_runs_under_way_are_shown_without_their_losses(workers, batch, pending):
    watcher = Watcher()
    history = run_design(
        random_truth(TruthFamily.CHINCHILLA, 0), watcher, SPACE, RunHistory.empty(SKILLS),
        ReplaySettings(budget=2 * UNIT, workers=workers, batch=batch),
        noise_rng=np.random.default_rng(0), design_rng=np.random.default_rng(0),
    )  # fmt: skip
    assert {made - finished for made, finished in watcher.seen} == pending
    assert history.measured("code").all()
    assert SPACE.cost(history.N, history.D).sum() <= 2 * UNIT


def test_a_run_outside_the_space_is_refused():
    outside = FixedDesign(N=np.array([1e9]), D=np.array([1e9]))
    with pytest.raises(InputError, match="outside the space"):
        run_design(
            random_truth(TruthFamily.CHINCHILLA, 0), outside, DesignSpace(flops=(1e16, 1e17)),
            RunHistory.empty(SKILLS), ReplaySettings(budget=1e20),
            noise_rng=np.random.default_rng(0), design_rng=np.random.default_rng(0),
        )  # fmt: skip


def test_scores_are_those_of_the_errors():
    target = Target(quantity=Quantity.OPTIMUM, skill="code", C=1e21)
    score = TargetScore.of(target, [(1.1, 0.9, 1.3), (2.3, 2.1, 2.5), (0.0, math.nan, math.nan)], [1.0, 2.0, math.nan])
    assert score.n == 2
    assert score.bias[0] == pytest.approx(0.2)
    assert score.rmse[0] == pytest.approx(math.sqrt(0.05))
    assert score.coverage[0] == pytest.approx(0.5)
    assert score.half_width == pytest.approx(0.2)


# The entry


def simulated(*words):
    answer = StringIO()
    code = cli.main(["simulate", *words, "--json"], answer=answer)
    assert code == 0
    return json.loads(answer.getvalue())


def truth_file(tmp_path, text, noise="0.0"):
    path = tmp_path / "truth.py"
    path.write_text(text.replace("NOISE", noise))
    return str(path)


def test_without_noise_errors_against_the_searched_reference_vanish(tmp_path):
    answer = simulated("--truth", truth_file(tmp_path, FILE), "--design", "grid", "--seeds", "1")
    rows = answer["designs"]["grid"]["optima"]
    assert {(row["skill"], row["flops"]) for row in rows} == {(s, C) for s in ("code", "prose") for C in (1e20, 1e21)}
    assert max(row["rmse"] for row in rows) < 0.02
    assert max(row["rmse"] for row in answer["designs"]["grid"]["losses"]) < 1e-3
    assert answer["designs"]["grid"]["flops_spent"] == pytest.approx(2.55e19)


def test_the_optimum_of_the_file_is_the_reference(tmp_path):
    text = FILE + "\ndef optimum(skill, flops, mix):\n    return 1e9\n"
    rows = simulated("--truth", truth_file(tmp_path, text), "--design", "grid", "--seeds", "1")
    biases = {row["flops"]: row["bias"] for row in rows["designs"]["grid"]["optima"] if row["skill"] == "code"}
    # N* = G (C/6)^a of this law, less ln 1e9
    G = (0.34 * 406.4 / (0.28 * 410.7)) ** (1 / 0.62)
    for C, bias in biases.items():
        assert bias == pytest.approx(math.log(G * (C / 6) ** (0.28 / 0.62)) - math.log(1e9), abs=0.02)


def test_a_noisy_file_is_searched_with_many_seeds(tmp_path, capfd):
    simulated(
        "--truth", truth_file(tmp_path, FILE, "0.002"), "--design", "grid", "--seeds", "1", "--target_flops", "1e20"
    )
    line = next(line for line in capfd.readouterr().err.splitlines() if "optima by search" in line)
    N = float(line.split("code ")[1].split()[0])
    G = (0.34 * 406.4 / (0.28 * 410.7)) ** (1 / 0.62)
    assert math.log(N) == pytest.approx(math.log(G * (1e20 / 6) ** (0.28 / 0.62)), abs=0.05)


def test_errors_are_unknown_where_losses_differ_for_equal_arguments(tmp_path):
    text = FILE.replace('random.Random(f"{n_params} {n_tokens} {seed}")', "random")
    answer = simulated("--truth", truth_file(tmp_path, text, "0.002"), "--design", "grid", "--seeds", "2")
    assert "define optimum" in answer["left_out"]
    assert {row["rmse"] for row in answer["designs"]["grid"]["optima"]} == {None}
    assert answer["designs"]["grid"]["runs"] == 35


def test_mixes_reach_the_file_by_name(tmp_path):
    text = """
def losses(n_params, n_tokens, mix, seed):
    assert set(mix) == {"a", "b"}
    return {"s": 1.69 + 406.4 / n_params**0.34 + 410.7 / (n_tokens * (mix["a"] + .3 * mix["b"]))**0.28}
"""
    path = truth_file(tmp_path, text)
    answer = simulated("--truth", path, "--design", "sobol", "--seeds", "1", "--mixes", "a=.5,b=.5;a=.8,b=.2")
    assert {tuple(row["mix"]) for row in answer["designs"]["sobol"]["optima"]} == {(0.5, 0.5), (0.8, 0.2)}
    simulated("--truth", path, "--design", "sobol", "--seeds", "1", "--mixes", "a=.5,b=.5")


def test_a_family_gives_another_truth_for_each_seed():
    limits = ("--seeds", "2", "--workers", "2", "--batch", "2", "--runs", "12")
    answer = simulated("--truth", "coupled_drifting", "--design", "bayes,sobol", *limits)
    assert set(answer["designs"]) == {"bayes", "sobol"}
    for design in answer["designs"].values():
        assert {row["tries"] for row in design["optima"]} == {2}
        assert design["all"]["optima"]["rmse"] > 0


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x = 1", "no function losses"),
        ("1 / 0", "ZeroDivisionError"),
        ("def losses(n, d, m, s): raise RuntimeError('no GPU')", "raised RuntimeError: no GPU"),
        ("def losses(n, d, m, s): return {'code': float('nan')}", "returned a loss of nan for code"),
        ("def losses(n, d, m, s): return {'code': -1.0}", "returned a loss of -1.0 for code"),
        ("def losses(n, d, m, s): return 2.0", "Return {skill: loss}"),
        ("def losses(n, d, m, s): return {}", "Return {skill: loss}"),
        (
            "def losses(n, d, m, s): return {'code': 2.0} | ({'prose': 2.0} if s < 2 else {})",
            "returned no loss of prose",
        ),
        (
            "def losses(n, d, m, s): return {'code': 2.0} | ({'prose': 2.0} if s > 2 else {})",
            "returned a loss of prose, which is not among the skills",
        ),
        ("def losses(n, d, m, s): return {'code': 2.0}\ndef optimum(s, f, m): return -1", "optimum"),
        ("def losses(n, d, m, s): return {'code': 2.0}\noptimum = 3", "is no function"),
    ],
)
def test_bad_files_are_refused_with_a_cure(tmp_path, capsys, text, message):
    assert cli.main(["simulate", "--truth", truth_file(tmp_path, text), "--design", "grid", "--seeds", "1"]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--truth", "nothing.py"], "no file"),
        (["--truth", "farser"], "did you mean farseer?"),
        (["--truth", "chinchilla", "--design", "sobal"], "did you mean sobol?"),
        (["--truth", "chinchilla", "--budget", ".001"], "buys no run"),
        (["--truth", "chinchilla", "--ratio", "3"], "smallest and the largest"),
        (["--truth", "chinchilla", "--flops_min", "1e20"], "flops"),
        (["--truth", "chinchilla", "--mixes", "a=.5,b=.5;a=1", "--target_mixes", "c=1"], "names c"),
    ],
)
def test_bad_options_are_refused_with_a_cure(capsys, words, message):
    assert cli.main(["simulate", *words]) == 2
    assert message in capsys.readouterr().err
