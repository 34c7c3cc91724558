"""Fit a study: per skill the isoFLOP minima, the power law through them, the residual, and the parametric law.

All intervals of a mix come from one set of resampled errors, shared by its skills, by the parabolas and by the law, so
that every difference (skill against aggregate, law against parabola) is a difference of pairs.
"""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import pandas as pd

from skillscale.errors import FitError, InputError
from skillscale.laws.catalogue import CHINCHILLA
from skillscale.laws.fit import Fit, fit_law, refit
from skillscale.laws.forms import Array, Law
from skillscale.laws.isoflop import check_curve, distinct_sizes, find_minima, fit_isoflops, min_sizes
from skillscale.laws.objective import HUBER
from skillscale.laws.points import Points
from skillscale.laws.results import (
    Frontier,
    Interval,
    LawFit,
    Minimum,
    PowerLaw,
    Residual,
    Starts,
    Status,
    StudyFits,
    Unusable,
    Verdict,
)  # fmt: skip
from skillscale.laws.uncertainty import Resamples, holm, interval, spread, two_sided_p

COLUMNS = ("run_id", "C", "N", "D", "mix", "seed")
BUDGET_GAP = (
    0.1  # in ln C: runs without a nominal budget are one budget up to here, and no run may miss its own by more
)
FLAT_E = 0.01  # E below this share of the lowest loss can't be told from 0
EXPONENTS = (0.02, 2.0)  # an interval that leaves this range says that the exponent can't be told


@dataclass(frozen=True, kw_only=True)
class _Column:
    """One skill of one mix: its fits, and ln N* by budget with its draws, (n_budgets,) and (K, n_budgets)."""

    skill: str
    minima: list[Minimum]
    budgets: tuple[float, ...]
    optima: Array
    draws: Array
    law: LawFit
    law_optima: Array
    law_draws: Array

    def ok(self, C: float) -> bool:
        return any(m.C == C and m.status is Status.OK for m in self.minima)

    def at(self, C: float) -> tuple[float, Array]:
        b = self.budgets.index(C)
        return float(self.optima[b]), self.draws[:, b]


def fit_study(
    runs: pd.DataFrame, *, skills: Sequence[str], aggregates: Sequence[str], level: float = 0.9, resamples: int = 1000,
    seed: int = 0, law: Law = CHINCHILLA, curve: str = "shared",
) -> StudyFits:  # fmt: skip
    """Fit every skill and aggregate of a study, mix by mix.

    Args:
        runs: one row a run; columns run_id, C (nominal budget in FLOP, or NaN: found from 6 N D), N, D, mix (a name),
            seed, and one loss column (nats per token, NaN where missing) for each of ``skills`` and ``aggregates``.
        skills: columns to compare with the aggregates.
        aggregates: columns to compare with, the main one first.
        level: of all intervals, two-sided.
        resamples: draws behind the intervals.
        seed: of the resampling.
        law: the parametric law to fit beside the parabolas.
        curve: the isoFLOP method, one of ``skillscale.laws.isoflop.CURVES``.

    Raises:
        InputError: a column is missing or named twice, level or resamples are out of range, there is no such curve.
        FitError: no usable run is left.
    """
    check_curve(curve)
    names = _check_request(runs, [*skills, *aggregates], level, resamples)
    usable, unusable = usable_runs(runs, names)
    if usable.empty:
        raise FitError(
            f"none of the {len(runs)} runs is usable ({_counts(unusable)}); finish at least 4 sizes at one budget"
        )
    minima, power_laws, residuals, laws, frontier = [], [], [], [], []
    for number, (mix, rows) in enumerate(usable.groupby("mix", sort=True)):
        rng = np.random.default_rng([seed, number])
        draws = Resamples.draw(rows["C"].to_numpy(), resamples, rng)
        columns = {
            name: _fit_column(rows, name, draws, rng, mix=str(mix), level=level, law=law, curve=curve) for name in names
        }
        for column in columns.values():
            minima += column.minima
            power_laws.append(_power_law(column, mix=str(mix), level=level))
            laws.append(column.law)
            frontier += _frontier(column, mix=str(mix), level=level)
        for aggregate in aggregates:
            residuals += _residuals([columns[s] for s in skills], columns[aggregate], mix=str(mix), level=level)
    return StudyFits(
        skills=tuple(skills), aggregates=tuple(aggregates), level=level, resamples=resamples, runs=usable,
        minima=tuple(minima), power_laws=tuple(power_laws), residuals=tuple(residuals), laws=tuple(laws),
        frontier=tuple(frontier), unusable=tuple(unusable), curve=curve,
    )  # fmt: skip


def _check_request(runs: pd.DataFrame, names: list[str], level: float, resamples: int) -> list[str]:
    missing = [column for column in (*COLUMNS, *names) if column not in runs.columns]
    if missing:
        raise InputError(f"the table of runs lacks {', '.join(missing)}; it has {', '.join(map(str, runs.columns))}")
    if len(set(names)) < len(names):
        raise InputError(f"skills and aggregates must differ, but they are {', '.join(names)}; name each once")
    if not 0 < level < 1:
        raise InputError(f"level must be between 0 and 1, but it is {level}; .9 is usual")
    if resamples < 100:
        raise InputError(f"resamples must be 100 or more, but it is {resamples}; 1000 is usual")
    return names


def usable_runs(runs: pd.DataFrame, names: Sequence[str]) -> tuple[pd.DataFrame, list[Unusable]]:
    """The runs that can be fitted, their budgets filled in, and what was left out and why.

    A loss that is missing or not positive costs that skill of that run alone (NaN in the result).
    """
    left_out: list[Unusable] = []
    frame = runs.reset_index(drop=True).copy()
    frame["run_id"], frame["mix"] = frame["run_id"].astype(str), frame["mix"].astype(str)
    for letter in ("N", "D", "C", *names):
        frame[letter] = pd.to_numeric(frame[letter], errors="coerce").astype(float)
    twice = frame.duplicated("run_id")
    left_out += [Unusable(run_id=run, skill="", reason="listed twice") for run in frame.loc[twice, "run_id"]]
    frame = frame[~twice]
    for letter in ("N", "D"):
        good = np.isfinite(frame[letter]) & (frame[letter] > 0)
        for run, value in frame.loc[~good, ["run_id", letter]].itertuples(index=False):
            left_out.append(Unusable(run_id=run, skill="", reason=f"{letter} is {value}, not a positive number"))
        frame = frame[good]
    frame = _with_budgets(frame, left_out)
    for name in names:
        bad = ~(np.isfinite(frame[name]) & (frame[name] > 0))
        for run, value in frame.loc[bad, ["run_id", name]].itertuples(index=False):
            reason = "no loss" if math.isnan(value) else f"loss is {value}, not a positive number"
            left_out.append(Unusable(run_id=run, skill=name, reason=reason))
        frame.loc[bad, name] = np.nan
    return frame.reset_index(drop=True), left_out


def _with_budgets(frame: pd.DataFrame, left_out: list[Unusable]) -> pd.DataFrame:
    """Fill in missing budgets from 6 N D, and leave out the runs that miss their own."""
    frame = frame.copy()
    log_C = pd.Series(np.log(6 * frame["N"] * frame["D"]))
    for _, rows in frame[~(frame["C"] > 0)].groupby("mix"):
        ordered = log_C.loc[rows.index].sort_values()
        group = (ordered.diff() > BUDGET_GAP).cumsum()
        frame.loc[ordered.index, "C"] = np.exp(ordered.groupby(group).transform("mean"))
    off = np.abs(log_C - np.log(frame["C"])) > BUDGET_GAP
    for run, ratio in zip(frame.loc[off, "run_id"], np.exp(log_C - np.log(frame["C"]))[off], strict=True):
        left_out.append(Unusable(run_id=run, skill="", reason=f"6 N D is {ratio:.3g} times its budget"))
    kept: pd.DataFrame = frame[~off]
    return kept


def _counts(unusable: list[Unusable]) -> str:
    return ", ".join(f"{count} {reason}" for reason, count in Counter(u.reason for u in unusable).items()) or "no rows"


def _fit_column(
    rows: pd.DataFrame, name: str, resamples: Resamples, rng: np.random.Generator, *, mix: str, level: float, law: Law,
    curve: str,
) -> _Column:  # fmt: skip
    """Everything about one skill of one mix."""
    form = rng.normal(size=(len(resamples.donors), 2))  # drawn first, so that one skill's trouble can't shift another's
    present = rows[name].notna().to_numpy()
    N, D, C, L = (rows[column].to_numpy()[present] for column in ("N", "D", "C", name))
    budgets = np.unique(C)
    summary, fit, theta = _fit_parametric(
        N, D, L, present=present, resamples=resamples, mix=mix, skill=name, level=level, law=law
    )  # fmt: skip
    blank = np.full((len(resamples.donors), len(budgets)), np.nan)
    if fit is None:
        law_optima, law_draws = np.full(len(budgets), np.nan), blank
    else:
        law_optima, law_draws = fit.law.log_optimum(fit.theta[None], budgets)[0], fit.law.log_optimum(theta, budgets)
        # A run's D is a whole number of batches, so 6 N D misses the budget a little: move the loss onto the budget.
        L = L * fit.law.loss(fit.theta, N, C / (6 * N)) / fit.law.loss(fit.theta, N, D)
    curves = fit_isoflops(C, N, L, seeds=rows["seed"].to_numpy()[present], curve=curve) if len(L) else None
    if curves is None:
        minima = [
            Minimum(
                mix=mix, skill=name, C=float(b), status=Status.TOO_FEW, n_runs=int(np.equal(C, b).sum()),
                n_sizes=distinct_sizes(N[np.equal(C, b)]),
                reason=f"a curve needs {min_sizes(curve)} distinct sizes, better 7 over +-8x",
            )
            for b in budgets
        ]  # fmt: skip
        return _Column(skill=name, minima=minima, budgets=(), optima=np.empty(0), draws=blank[:, :0], law=summary,
                       law_optima=law_optima, law_draws=law_draws)  # fmt: skip
    used = present.copy()
    used[present] = curves.used
    drawn = curves.drawn_minima(resamples.errors(curves.residuals, curves.leverage, used), form)
    kept = np.isin(budgets, curves.budgets)
    return _Column(
        skill=name, minima=find_minima(curves, drawn, level=level, mix=mix, skill=name), budgets=curves.budgets,
        optima=curves.minima()[0], draws=drawn.optima, law=summary, law_optima=law_optima[kept],
        law_draws=law_draws[:, kept],
    )  # fmt: skip


def _fit_parametric(
    N: Array, D: Array, L: Array, *, present: npt.NDArray[np.bool_], resamples: Resamples, mix: str, skill: str,
    level: float, law: Law,
) -> tuple[LawFit, Fit | None, Array]:  # fmt: skip
    """The law over all budgets with its intervals; the fit and (K, p) resampled parameters, where there are any."""
    try:
        points = Points(N=N, D=D, L=L)
        fit = fit_law(points, law=law, objective=None)
    except FitError as error:
        unknown = {parameter: Interval() for parameter in law.parameters}
        nothing = LawFit(
            mix=mix, skill=skill, law=law.name, status=Status.NOT_IDENTIFIED, reason=str(error), n_runs=len(N),
            objective=HUBER.name, F=math.nan, starts=Starts(tried=0, agree=0, gap=math.nan), theta=unknown,
            a=Interval(), noise=math.nan,
        )  # fmt: skip
        return nothing, None, np.empty((0, len(law.parameters)))
    theta = fit.law.theta(refit(fit, points, _resampled(fit, points, present, resamples))[0])
    intervals = {
        parameter: interval(float(fit.theta[j]), theta[:, j], level) for j, parameter in enumerate(law.parameters)
    }
    reason = _unidentified(intervals, fit, float(L.min()))
    summary = LawFit(
        mix=mix, skill=skill, law=law.name, status=Status.NOT_IDENTIFIED if reason else Status.OK, reason=reason,
        n_runs=len(N), objective=fit.objective.name, F=fit.F, starts=fit.starts, theta=intervals,
        a=interval(float(fit.law.optimum_exponent(fit.theta[None])[0]), fit.law.optimum_exponent(theta), level),
        noise=fit.noise,
    )  # fmt: skip
    return summary, fit, theta


def _resampled(fit: Fit, points: Points, present: npt.NDArray[np.bool_], resamples: Resamples) -> Array:
    """Ln L of the law with resampled errors, (K, n); leverage from the Jacobian at the optimum."""
    jac = fit.law.jacobian(fit.q[None], points.covariates(fit.law))[0]
    leverage = np.einsum("np,pn->n", jac, np.linalg.pinv(jac))
    # A run that is an outlier to the Huber loss is one to the resamples as well: its error may be drawn like any other.
    return np.log(points.L) - fit.residuals + resamples.errors(fit.residuals, leverage, present)


def _unidentified(theta: dict[str, Interval], fit: Fit, lowest_loss: float) -> str:
    """Why the runs can't tell the law's parameters; empty where they can."""
    if not fit.converged:
        return "the fit did not converge; look for absurd losses"
    if "E" in theta and not theta["E"].lo > FLAT_E * lowest_loss:
        return "E can't be told from 0; add runs at a larger budget (its N* may still be good)"
    for name in ("alpha", "beta"):
        if name in theta and not (EXPONENTS[0] < theta[name].lo and theta[name].hi < EXPONENTS[1]):
            what = "sizes" if name == "alpha" else "numbers of tokens"
            return f"{name} can't be told: {theta[name].lo:.3g} to {theta[name].hi:.3g}; spread the {what} further"
    return ""


def _power_law(column: _Column, *, mix: str, level: float) -> PowerLaw:
    """Line through ln N* against ln C, each budget weighed by its precision."""
    kept = [b for b, C in enumerate(column.budgets) if column.ok(C)]
    if len(kept) < 2:
        return PowerLaw(
            mix=mix, skill=column.skill, status=Status.TOO_FEW_BUDGETS, n_budgets=len(kept), a=Interval(),
            reason=f"{len(kept)} of {len(column.budgets)} budgets with a minimum; a power law needs 2, better 3",
            intercept=math.nan, centre=math.nan, level=level, draws=np.empty((0, 2)),
        )  # fmt: skip
    log_C, draws = np.log(np.array(column.budgets)[kept]), column.draws[:, kept]
    weights = 1 / np.maximum(spread(draws), 1e-9) ** 2
    centre = float(np.average(log_C, weights=weights))
    share = weights / weights.sum()
    slope = share * (log_C - centre) / (share @ (log_C - centre) ** 2)
    line = np.column_stack([share, slope])
    value, drawn = column.optima[kept] @ line, draws @ line
    return PowerLaw(
        mix=mix, skill=column.skill, status=Status.OK, reason="", n_budgets=len(kept),
        a=interval(float(value[1]), drawn[:, 1], level), intercept=float(value[0]), centre=centre, level=level,
        draws=drawn,
    )  # fmt: skip


def _residuals(skills: list[_Column], aggregate: _Column, *, mix: str, level: float) -> list[Residual]:
    """Residuals of every skill against one aggregate; Holm's correction is over the pooled ones."""
    found, pooled = [], []
    for skill in skills:
        pairs = []
        for C in sorted({m.C for m in skill.minima} | {m.C for m in aggregate.minima}):
            blame = _blame(skill, aggregate, C)
            if blame:
                found.append(_residual(skill, aggregate, mix, C=C, reason=blame[1], status=blame[0]))
                continue
            (own, own_draws), (common, common_draws) = skill.at(C), aggregate.at(C)
            pairs.append((own - common, own_draws - common_draws))
            found.append(_residual(skill, aggregate, mix, C=C, pairs=pairs[-1:], level=level))
        pooled.append(_residual(skill, aggregate, mix, C=math.nan, pairs=pairs, level=level))
    known = [i for i, r in enumerate(pooled) if math.isfinite(r.p)]
    for i, p in zip(known, holm(np.array([pooled[i].p for i in known])), strict=True):
        pooled[i] = replace(pooled[i], p_holm=float(p))
    return found + pooled


def _residual(
    skill: _Column, aggregate: _Column, mix: str, *, C: float, pairs: Sequence[tuple[float, Array]] = (),
    level: float = math.nan, status: Status = Status.TOO_FEW_BUDGETS, reason: str = "no budget has both minima",
) -> Residual:  # fmt: skip
    """The residual of one budget, or the mean of several."""
    value, p, verdict = Interval(), math.nan, Verdict.UNRESOLVED
    if pairs:
        status, reason = Status.OK, ""
        draws = np.column_stack([drawn for _, drawn in pairs])
        pooled = draws.mean(axis=1)
        value, p = interval(float(np.mean([estimate for estimate, _ in pairs])), pooled, level), two_sided_p(pooled)
        if value.excludes_zero:
            verdict = Verdict.CAPACITY if value.value > 0 else Verdict.DATA
    return Residual(
        mix=mix, skill=skill.skill, aggregate=aggregate.skill, C=C, status=status, reason=reason, n_budgets=len(pairs),
        value=value, p=p, p_holm=math.nan, verdict=verdict,
    )  # fmt: skip


def _blame(skill: _Column, aggregate: _Column, C: float) -> tuple[Status, str] | None:
    """Whose minimum is missing at a budget, and why; None where both are there."""
    for column in (skill, aggregate):
        minimum = next((m for m in column.minima if m.C == C), None)
        if minimum is None:
            return Status.TOO_FEW, f"{column.skill}: no runs at this budget"
        if minimum.status is not Status.OK:
            return minimum.status, f"{column.skill}: {minimum.reason}"
    return None


def _frontier(column: _Column, *, mix: str, level: float) -> list[Frontier]:
    """N*(C) of the parabola beside the law's, wherever the parabola has one."""
    found = []
    for minimum in column.minima:
        if minimum.status is not Status.OK:
            continue
        b = column.budgets.index(minimum.C)
        law, draws = float(column.law_optima[b]), column.law_draws[:, b]
        found.append(
            Frontier(
                mix=mix, skill=column.skill, C=minimum.C, parabola=minimum.N,
                law=interval(law, draws, level).map(math.exp),
                disagreement=interval(law - float(column.optima[b]), draws - column.draws[:, b], level),
            )
        )  # fmt: skip
    return found
