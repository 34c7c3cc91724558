"""Studies for the report's tests: runs under a planted law, and fitted values set by hand to check the wording."""

import math
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from skillscale.laws.results import (
    CurveVersusLaw,
    Interval,
    IsoflopCurve,
    IsoflopMinimum,
    LawSummary,
    MultiStart,
    PowerLaw,
    SizeGap,
    Status,
    StudyResults,
    Verdict,
)
from skillscale.point import DesignPoint, Mix
from skillscale.record import Measurement, ModelSize, RunCost, RunRecord, RunState

MIX = "code=0.5,knowledge=0.5"
BUDGETS = (5e10, 1.6e11, 5e11)
NOT_BRACKETED = "the smallest loss is at the largest size, 96k; train sizes above it"


def planted_runs(
    optima: Mapping[str, float], *, budgets: Sequence[float] = BUDGETS, sizes: int = 7, seeds: int = 2, span: float = 8
) -> pd.DataFrame:
    """Runs whose loss is a parabola in ln N with its minimum at ``optima[skill]`` times .1 C^.5, plus noise."""
    rng = np.random.default_rng(1)
    rows = []
    for C in budgets:
        middle = 0.1 * C**0.5
        for N in np.geomspace(middle / span, middle * span, sizes):
            for seed in range(seeds):
                row = {
                    "run_id": f"run{len(rows):03d}",
                    "C": C,
                    "N": round(N),
                    "D": C / 6 / round(N),
                    "mix": MIX,
                    "seed": seed,
                }
                for place, (skill, ratio) in enumerate(optima.items()):
                    x = math.log(N / (middle * ratio))
                    floor = (2.6 + 0.3 * place) * (C / 5e10) ** -0.06
                    row[skill] = floor * math.exp(0.012 * x * x + 0.006 * rng.normal())
                rows.append(row)
    return pd.DataFrame(rows)


def minimum(runs: pd.DataFrame, skill: str, C: float, *, refused: str = "", spread: float = 0.15) -> IsoflopMinimum:
    """Least-squares parabola; the interval is a plain factor e^spread either way."""
    mine = runs[runs["C"] == C]
    x = np.log(mine["N"].to_numpy(dtype=float))
    centre = float(x.mean())
    c, b, a = np.polyfit(x - centre, np.log(mine[skill]), 2)
    curve = IsoflopCurve(
        centre=centre, coefficients=(a, b, c), N_min=float(mine["N"].min()), N_max=float(mine["N"].max()), noise=0.006
    )
    common = {"mix": MIX, "skill": skill, "C": C, "n_runs": len(mine), "n_sizes": mine["N"].nunique(), "curve": curve}
    if refused:
        return IsoflopMinimum(**common, status=Status.NOT_BRACKETED, reason=refused)
    N = math.exp(centre - b / (2 * c))
    return IsoflopMinimum(
        **common, status=Status.OK, reason="", loss=float(curve.loss(N)),
        N=Interval(value=N, lo=N * math.exp(-spread), hi=N * math.exp(spread)),
        curvature=Interval(value=2 * c, lo=1.5 * c, hi=2.5 * c),
    )  # fmt: skip


def residual(
    skill: str, value: Interval, *, C: float = math.nan, reason: str = "", n_budgets: int = 3, p_holm: float = 0.01
):
    """A residual whose verdict follows from its interval; ``reason`` refuses it."""
    verdict = Verdict.UNRESOLVED
    if value.excludes_zero:
        verdict = Verdict.CAPACITY if value.value > 0 else Verdict.DATA
    return SizeGap(
        mix=MIX, skill=skill, aggregate="aggregate", C=C, status=Status.NOT_BRACKETED if reason else Status.OK,
        reason=reason, n_budgets=n_budgets, value=value, p=0.01, p_holm=p_holm if math.isnan(C) else math.nan,
        verdict=verdict,
    )  # fmt: skip


def fits(
    residuals: Mapping[str, Interval], *, budgets: Sequence[float] = BUDGETS, refused: Sequence[tuple[str, float]] = (),
    seeds: int = 2, p_holm: float = 0.01,
) -> StudyResults:  # fmt: skip
    """A study with one pooled residual a skill; ``refused``: (skill, budget) whose minimum is refused."""
    ratios = {skill: math.exp(value.value) if value.is_finite else 1.0 for skill, value in residuals.items()}
    runs = planted_runs({**ratios, "aggregate": 1.0}, budgets=budgets, seeds=seeds)
    names = (*residuals, "aggregate")
    minima = tuple(
        minimum(runs, name, C, refused=NOT_BRACKETED if (name, C) in refused else "") for name in names for C in budgets
    )
    found = [one for one in minima if one.status is Status.OK]
    per_budget = []
    for skill, pooled in residuals.items():
        for C in budgets:
            out = (skill, C) in refused
            wide = (
                Interval(value=pooled.value, lo=pooled.lo - 0.1, hi=pooled.hi + 0.1) if pooled.is_finite else Interval()
            )
            per_budget.append(
                residual(skill, Interval() if out else wide, C=C, reason=NOT_BRACKETED if out else "", n_budgets=1)
            )
        whole = Interval() if all((skill, C) in refused for C in budgets) else pooled
        reason = "" if whole.is_finite else "no budget has an optimum for both; widen the sizes"
        per_budget.append(residual(skill, whole, reason=reason, n_budgets=len(budgets), p_holm=p_holm))
    return StudyResults(
        skills=tuple(residuals), aggregates=("aggregate",), level=0.9, resamples=200, runs=runs, minima=minima,
        power_laws=tuple(_power_law(name, found, len(budgets)) for name in names), size_gaps=tuple(per_budget),
        laws=tuple(_law(name, len(runs)) for name in names),
        curve_versus_law=tuple(
            CurveVersusLaw(
                mix=MIX, skill=one.skill, C=one.C, parabola=one.N, law=Interval(value=one.N.value * 0.93),
                disagreement=Interval(value=math.log(0.93)),
            )
            for one in found
        ),
        excluded=(),
    )  # fmt: skip


def _power_law(name: str, found: Sequence[IsoflopMinimum], n_budgets: int) -> PowerLaw:
    mine = [(math.log(one.C), math.log(one.N.value)) for one in found if one.skill == name]
    if len(mine) < 2:
        return PowerLaw(
            mix=MIX, skill=name, status=Status.TOO_FEW_BUDGETS, n_budgets=len(mine), a=Interval(), intercept=math.nan,
            reason="a power law takes optima at two budgets or more; train another budget", centre=0.0, level=0.9,
            draws=np.empty((0, 2)),
        )  # fmt: skip
    x, y = np.array(mine).T
    centre = float(x.mean())
    a, intercept = np.polyfit(x - centre, y, 1)
    draws = np.column_stack([np.linspace(-0.1, 0.1, 50) + intercept, np.linspace(-0.04, 0.04, 50) + a])
    return PowerLaw(
        mix=MIX, skill=name, status=Status.OK, reason="", n_budgets=n_budgets, intercept=float(intercept),
        centre=centre,
        a=Interval(value=float(a), lo=float(a) - 0.04, hi=float(a) + 0.04), level=0.9, draws=draws,
    )  # fmt: skip


def _law(name: str, n_runs: int) -> LawSummary:
    theta = {key: Interval(value=value, lo=0.9 * value, hi=1.1 * value) for key, value in
             {"E": 1.7, "A": 406.4, "B": 410.7, "alpha": 0.34, "beta": 0.28}.items()}  # fmt: skip
    return LawSummary(
        mix=MIX, skill=name, law="chinchilla", status=Status.OK, reason="", n_runs=n_runs,
        objective="Huber, 1e-3, on ln L", F=1e-4, starts=MultiStart(tried=64, agree=12, gap=0.3), theta=theta,
        a=Interval(value=0.45, lo=0.4, hi=0.5), noise=0.006,
    )  # fmt: skip


def records(runs: pd.DataFrame, skills: Sequence[str], *, imported: bool = False) -> list[RunRecord]:
    """The registry's view of the runs; ``imported``: without size, spending and optimisation."""
    made = []
    for row in runs.to_dict("records"):
        point = DesignPoint(
            n_params=int(row["N"]), n_tokens=max(1, round(row["D"])), mix=Mix.parse(row["mix"]), seed=row["seed"]
        )
        size = ModelSize(
            n_params=point.n_params, n_params_nonembed=point.n_params // 2,
            n_params_embed=point.n_params - point.n_params // 2,
            depth=3, width=32, n_heads=2, vocab_size=512, context=256,
        )  # fmt: skip
        cost = RunCost(flops_exact=1.2 * point.flops, tokens_per_s=5e4, matmul_share=0.3, train_s=9.0, eval_s=2.0)
        measured = {
            skill: Measurement(loss=row[skill], sem=0.02, bpb=1.1, count=300, tokens=9000)
            for skill in skills
            if math.isfinite(row[skill])
        }
        made.append(
            RunRecord(
                run_id=row["run_id"],
                study="demo",
                state=RunState.FINISHED,
                reason="",
                point=point,
                size=None if imported else size,
                cost=None if imported else cost,
                skills=measured,
            )
        )
    return made


__all__ = ["BUDGETS", "MIX", "NOT_BRACKETED", "fits", "minimum", "planted_runs", "records", "residual"]
