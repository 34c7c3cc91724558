"""Doubts about laws: contradictions that no weighted mean allows, splits far apart, and a command for each."""

import math
import shlex
from dataclasses import replace

import numpy as np
import pytest
from simulated_studies import Grid, NoiseModel, PlantedLaw, simulate_study

from skillscale import cli
from skillscale.cli.command import Command
from skillscale.laws.fit.data import RunData
from skillscale.laws.fit.fit import fit_law
from skillscale.laws.fit.skill_law import FittedLaw
from skillscale.laws.forms.catalogue import CHINCHILLA
from skillscale.laws.isoflop.study import fit_study
from skillscale.laws.results import Interval, SizeGap, Status, StudyResults, Verdict
from skillscale.laws.skills.doubts import doubts_by_skill
from skillscale.laws.skills.verdicts import Confirmation, ConfirmedVerdict, SkillColumns, confirmed_verdicts
from skillscale.laws.uncertainty.bootstrap import ResamplingMethod, draw_parameters
from skillscale.laws.uncertainty.diagnostics import Cure

N, D = (axis.ravel() for axis in np.meshgrid(np.geomspace(1e7, 1e9, 5), np.geomspace(5e8, 5e10, 5)))
C = 1e20


def fits_of(gaps: dict[str, float], noise: float = 0.003) -> StudyResults:
    """IsoFLOP curves of skills whose N* differ from 4e4 by the gaps in ln N."""
    truths = {
        name: PlantedLaw.at_optimum(N=4e4 * math.exp(gap), C=1.6e11, L=3, reducible=0.5, alpha=0.4, beta=0.4)
        for name, gap in (gaps | {"aggregate": 0.0}).items()
    }
    rng = np.random.default_rng(0)
    runs = simulate_study(truths, rng, grid=Grid(seeds=2), noise=NoiseModel(run=noise, seed_level=0))
    return fit_study(runs, skills=list(gaps), aggregates=["aggregate"], resamples=200, laws={})


def law_of(name: str, A: float, *, bend: float = 0.0) -> FittedLaw:
    """A law whose N* grows with A; ``bend`` adds (ln N)^2 ln D, which the law can't follow."""
    x, y = (np.log(axis) - np.log(axis).mean() for axis in (N, D))
    noise = 0.002 * np.random.default_rng(1).normal(size=len(N))
    L = CHINCHILLA.loss([1.8, A, 900.0, 0.36, 0.36], N, D) * np.exp(noise + bend * x**2 * y)
    runs = RunData(N=N, D=D, L=L)
    fit = fit_law(runs, law=CHINCHILLA, objective=None, starts=2)
    return FittedLaw(
        skill=name, fit=fit, runs=runs, q=draw_parameters(fit, runs, method=ResamplingMethod.LAPLACE, count=100),
        level=0.9, status=Status.OK, reason="",
    )  # fmt: skip


@pytest.fixture(scope="module")
def laws() -> dict[str, FittedLaw]:
    """By A: two skills, an aggregate between them, and one beyond both."""
    return {name: law_of(name, A) for name, A in (("code", 300), ("prose", 600), ("between", 450), ("beyond", 1200))}


def test_an_aggregate_outside_its_skills_is_doubted_and_one_between_is_not(laws):
    parts = {"between": ("code", "prose"), "beyond": ("code", "prose")}
    doubts = doubts_by_skill(laws, [C], parts=parts)
    (doubt, *_) = doubts["beyond"]
    assert doubt.text.startswith("N* of beyond at 1e20 FLOP, ")
    assert "by its law, lies above the N* of all its skills" in doubt.text
    assert doubt.command.startswith("backtest --max_flops ")
    assert not any("of all its skills" in doubt.text for doubt in doubts.get("between", ()))
    without = doubts_by_skill(laws, [C]).get("beyond", ())
    assert not any("of all its skills" in doubt.text for doubt in without)


def test_the_curves_of_an_aggregate_are_compared_with_those_of_its_skills(laws):
    curves = fits_of({"hungry": 0.3, "none": -0.3})
    shifted = tuple(
        replace(minimum, N=Interval(value=9e4, lo=8e4, hi=1e5)) if minimum.skill == "aggregate" else minimum
        for minimum in curves.minima
    )
    same = {"hungry": laws["code"], "none": laws["code"], "aggregate": laws["code"]}
    parts = {"aggregate": ("hungry", "none")}
    (doubt, *_) = doubts_by_skill(same, [C], parts=parts, curves=replace(curves, minima=shifted))["aggregate"]
    assert "by its isoFLOP curve, lies above the N* of all its skills" in doubt.text
    named = {f"web/{name}": law for name, law in same.items()}
    of_mix = replace(curves, minima=tuple(replace(minimum, mix="web") for minimum in shifted))
    (doubt, *_) = doubts_by_skill(
        named,
        [C],
        parts={"web/aggregate": ("web/hungry", "web/none")},
        curves=of_mix,
        mixes=dict.fromkeys(named, "web"),
    )["web/aggregate"]
    assert "lies above" in doubt.text
    unmoved = doubts_by_skill(same, [C], parts={"aggregate": ("hungry", "none")}, curves=curves)
    assert not any("of all its skills" in doubt.text for doubt in unmoved.get("aggregate", ()))


def gap(value: float, width: float) -> SizeGap:
    return SizeGap(
        mix="base", skill="code", aggregate="aggregate", C=math.nan, status=Status.OK, reason="", n_budgets=3,
        value=Interval(value=value, lo=value - width, hi=value + width), p=0.01, p_holm=0.01, verdict=Verdict.CAPACITY,
    )  # fmt: skip


def test_splits_that_agree_in_sign_alone_are_doubted():
    verdict = ConfirmedVerdict(
        skill="code", mix="base", aggregate="aggregate", verdict=Verdict.CAPACITY,
        confirmation=Confirmation.SIGN_CONFIRMED, hypothesis=gap(0.2, 0.05), held_out=gap(0.6, 0.05),
    )  # fmt: skip
    (doubt,) = doubts_by_skill({}, [], verdicts=[verdict])["code"]
    assert "+22 % [+16 %, +28 %] on one split, +82 % [+73 %, +92 %] on the other" in doubt.text
    assert doubts_by_skill({}, [], verdicts=[replace(verdict, confirmation=Confirmation.CONFIRMED)]) == {}


def test_intervals_of_splits_that_do_not_touch_confirm_the_sign_alone():
    """Gaps of 0.3 and 0.7 in ln N*, with little noise."""
    fits = fits_of({"hungry": 0.3, "hungry_out": 0.7}, noise=0.0005)
    (verdict,) = confirmed_verdicts(fits, [SkillColumns(skill="hungry", hypothesis="hungry", held_out="hungry_out")])
    assert verdict.hypothesis.value.hi < verdict.held_out.value.lo
    assert (verdict.confirmation, verdict.splits_are_disjoint) == (Confirmation.SIGN_CONFIRMED, True)


def test_a_law_with_a_trend_in_its_residuals_is_doubted_although_its_status_is_ok():
    bent = law_of("code", 300, bend=0.002)
    assert bent.status is Status.OK
    (doubt, *_) = doubts_by_skill({"code": bent}, [C])["code"]
    assert "Residuals depend on N and D" in doubt.text


def test_a_refused_law_is_doubted_and_its_cure_names_the_mix(laws):
    refused = replace(laws["code"], status=Status.NOT_IDENTIFIED, reason="the runs can't separate E from 0.")
    (doubt, *_) = doubts_by_skill({"web 2/code": refused}, [C], mixes={"web 2/code": "web 2"})["web 2/code"]
    assert (doubt.text, doubt.command) == ("the runs can't separate E from 0.", "suggest --mix 'web 2'")


@pytest.mark.parametrize("source", ["--table t.csv --columns m.yaml", "--study main --tracking sqlite:///m.db"])
@pytest.mark.parametrize("cure", [*Cure, "suggest --mix 'web 2'", "backtest --max_flops 1e20"])
def test_commands_that_remove_doubts_are_taken(cure, source, monkeypatch, tmp_path):
    """Up to the command's function."""
    monkeypatch.chdir(tmp_path)
    reached = []
    monkeypatch.setattr(Command, "function", lambda self: lambda *_: reached.append(self.name) or {})
    assert cli.main(shlex.split(f"{cure} {source}")) == 0
    assert reached == [cure.split()[0]]
