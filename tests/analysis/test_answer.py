"""One answer: `fit`, the page and `plan` say the same numbers, and a size that priors decide is not named."""

import io
import json
import re

import numpy as np
import pandas as pd
import pytest

from skillscale.cli import COMMANDS, main
from skillscale.laws.forms.catalogue import CHINCHILLA
from skillscale.laws.results import Interval, SizeGap, Status, Verdict
from skillscale.report.plan import _verdict

THETA = {"code": [0.9, 250.0, 900.0, 0.38, 0.36], "prose": [1.8, 480.0, 2100.0, 0.35, 0.37]}
LAW = ("--law", "chinchilla", "--laws.bootstrap", "laplace", "--study.resamples", "100")


def table(folder, *, ratio=None):
    """Write runs of five sizes; with a ratio, D follows N in them."""
    sizes, spans = np.geomspace(1e7, 1e9, 5), np.geomspace(5e8, 5e10, 5)
    N, D = (grid.ravel() for grid in np.meshgrid(sizes, spans))
    if ratio:
        D = ratio * N
    rng = np.random.default_rng(0)
    losses = {
        f"loss_{name}": CHINCHILLA.loss(theta, N, D) * np.exp(0.004 * rng.normal(size=len(N)))
        for name, theta in THETA.items()
    }
    path = folder / "t.csv"
    pd.DataFrame({"params": N, "tokens": D, **losses}).to_csv(path, index=False)
    return "--table", str(path)


def call(*words):
    answer = io.StringIO()
    code = main([*words, "--json"], COMMANDS, answer)
    assert code == 0
    return json.loads(answer.getvalue())


@pytest.mark.parametrize("budget", [("--flops", "2e22"), ()])
def test_fit_gives_the_numbers_of_plan_to_the_last_digit(budget, tmp_path):
    source = table(tmp_path)
    (answer,) = call("fit", *source, *LAW, *budget)["answers"]
    (planned,) = call("plan", *source, *LAW, "--flops", repr(answer["flops"]))["plans"]
    for name in ("n_params", "interval", "n_tokens", "tokens_interval", "extrapolation"):
        assert answer[name] == planned[name], name
    for skill, loss in answer["losses"].items():
        assert loss == {name: planned["losses"][skill][name] for name in loss}
    assert answer["named_budget"] is bool(budget)
    assert answer["flops"] == (2e22 if budget else 3e21)


def test_the_terminal_ends_with_the_answer(tmp_path):
    source = table(tmp_path)
    (answer,) = call("fit", *source, *LAW)["answers"]
    text = io.StringIO()
    assert main(["fit", *source, *LAW], COMMANDS, text) == 0
    assert text.getvalue().rstrip().endswith("\n".join(answer["text"]))
    first, intervals, losses, reach, following = answer["text"]
    assert re.fullmatch(r"For 3e21 FLOP, train \S+ parameters on \S+ tokens \(D/N \S+\)\.", first)
    assert intervals.startswith("90 % intervals: N* ")
    assert losses.startswith("Expected loss: code ")
    assert "10 times the largest run" in reach
    assert "skillscale backtest --table" in reach  # a named law is not tested on held-out runs
    assert following.startswith("Next runs: skillscale suggest --table")


def test_a_size_that_the_runs_do_not_decide_is_not_named(tmp_path):
    (answer,) = call("fit", *table(tmp_path, ratio=20), "--study.resamples", "100")["answers"]
    assert answer["refusal"].startswith("these runs cannot tell N from D")
    first = answer["text"][0]
    assert first.startswith("For 1.2e21 FLOP, no size can be named: these runs cannot tell N from D")
    assert "runs would: N = " in first or "Begin with these" in first
    assert not any("train" in line for line in answer["text"])


def test_the_page_begins_with_the_answer_and_the_next_runs(tmp_path):
    page = tmp_path / "page.html"
    (answer,) = call("report", *table(tmp_path), *LAW, "--page", str(page))["answers"]
    html = page.read_text(encoding="utf-8")
    assert len(answer["next_runs"]) == 3
    shown = re.sub(
        r"<style>.*?</style>|<details>.*?</details>|<[^>]+>", " ", html[: html.index('id="what-if"')], flags=re.S
    )
    shown = " ".join(shown.replace("\u00a0", " ").split())
    for line in answer["text"]:
        if not line.startswith("Expected loss"):
            assert line in shown
    assert len(shown.split()) < 120
    assert len(html) < 1.5e6


@pytest.mark.parametrize(("verdict", "words"), [(Verdict.CAPACITY, "larger"), (Verdict.DATA, "smaller")])
def test_a_plan_compares_skills_with_the_plan(verdict, words):
    gap = SizeGap(
        mix="", skill="code", aggregate="all", C=1e20, status=Status.OK, reason="", n_budgets=1,
        value=Interval(value=0.3, lo=0.1, hi=0.5), p=0.01, p_holm=0.2, verdict=verdict,
    )  # fmt: skip
    assert _verdict(gap, 0.9) == f"hint: {words} than the plan"
