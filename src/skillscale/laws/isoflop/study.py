"""Fit a study: per skill the isoFLOP minima, the power law through them, the residual, and the law's optima beside.

A skill has one law, with the intervals and the status that it has everywhere. The curves' intervals come from one set
of resampled errors, shared by skills and, where mixes have runs of the same budget, size and seed, by mixes; the law is
fitted to these errors once more where the two are compared: so every difference (skill against aggregate, mix against
mix, law against curve) is a difference of pairs.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from skillscale.errors import FitError, InputError
from skillscale.laws.fit.data import RunData
from skillscale.laws.fit.fit import refit
from skillscale.laws.fit.request import FitRequest, UnfittedSkill, fit_all
from skillscale.laws.fit.skill_law import FittedLaw, split_by_skill
from skillscale.laws.forms.catalogue import CHINCHILLA
from skillscale.laws.forms.nd import Array, Law
from skillscale.laws.isoflop.curves import check_curve, distinct_sizes, find_minima, fit_isoflops, min_sizes
from skillscale.laws.results import (
    CurveVersusLaw,
    ExcludedRun,
    Interval,
    IsoflopMinimum,
    LawSummary,
    MultiStart,
    PowerLaw,
    SizeGap,
    Status,
    StudyResults,
    Verdict,
    group_by_reason,
)  # fmt: skip
from skillscale.laws.uncertainty.bootstrap import ParameterCovariance
from skillscale.laws.uncertainty.resamples import Resamples, as_family, interval, spread, two_sided_p

COLUMNS = ("run_id", "C", "N", "D", "mix", "seed")
BUDGET_GAP = (
    0.1  # in ln C: runs without a nominal budget are one budget up to here, and no run may miss its own by more
)
Laws = Mapping[tuple[str, str], FittedLaw | UnfittedSkill]  # by mix and skill; one law may be that of several mixes


@dataclass(frozen=True, kw_only=True)
class _Beside:
    """A skill's law at one mix, beside the curves; ``paired``: (K, p) log-parameters of the curves' own resamples."""

    one: FittedLaw | UnfittedSkill
    h: Array | None
    paired: Array

    def on_budget(self, N: Array, D: Array, C: Array, L: Array) -> Array:
        """Losses (n,) as they would be with D = C / 6 N: a whole number of batches misses the budget a little."""
        if isinstance(self.one, UnfittedSkill):
            return L
        law, theta = self.one.law, self.one.fit.theta
        return np.asarray(L * law.loss(theta, N, C / (6 * N), self.h) / law.loss(theta, N, D, self.h))

    def summary(self, *, mix: str, skill: str, n_runs: int, level: float) -> LawSummary:
        """What the study tells of the law."""
        one = self.one
        if isinstance(one, UnfittedSkill):
            return LawSummary(
                mix=mix, skill=skill, law="", status=Status.NOT_IDENTIFIED, reason=one.reason, n_runs=n_runs,
                objective="", F=math.nan, starts=MultiStart(tried=0, agree=0, gap=math.nan), theta={}, a=Interval(),
                noise=math.nan,
            )  # fmt: skip
        a = one.law.optimum_exponent(np.vstack([one.fit.theta, one.law.theta(one.q)]), h=self.h)
        return LawSummary(
            mix=mix, skill=skill, law=one.law.name, status=one.status, reason=one.reason, n_runs=one.n_runs,
            objective=one.fit.objective.name, F=one.fit.F, starts=one.fit.starts, theta=one.theta,
            a=interval(float(a[0]), a[1:], level), noise=one.fit.noise,
        )  # fmt: skip

    def frontier(self, minimum: IsoflopMinimum, *, optimum: float, draws: Array, level: float) -> CurveVersusLaw:
        """N* of the law beside that of a curve, whose ln N* is ``optimum`` with ``draws`` (K,)."""
        law, disagreement = Interval(), Interval()
        if isinstance(self.one, FittedLaw):
            value, drawn = (x[..., 0] for x in self.one.log_optimum([minimum.C], self.h))
            theta = self.one.law.theta(self.paired)
            paired = self.one.law.log_optimum(theta, [minimum.C], self.h)[:, 0]
            law = interval(float(value), drawn, level).map(math.exp)
            disagreement = interval(float(value) - optimum, paired - draws, level)
        return CurveVersusLaw(
            mix=minimum.mix, skill=minimum.skill, C=minimum.C, parabola=minimum.N, law=law, disagreement=disagreement
        )


@dataclass(frozen=True, kw_only=True)
class _Column:
    """One skill of one mix: its minima, and ln N* by budget with its draws, (n_budgets,) and (K, n_budgets)."""

    skill: str
    minima: list[IsoflopMinimum]
    budgets: tuple[float, ...]
    optima: Array
    draws: Array

    def ok(self, C: float) -> bool:
        return any(m.C == C and m.status is Status.OK for m in self.minima)

    def at(self, C: float) -> tuple[float, Array]:
        b = self.budgets.index(C)
        return float(self.optima[b]), self.draws[:, b]


def fit_study(
    runs: pd.DataFrame, *, skills: Sequence[str], aggregates: Sequence[str], level: float = 0.9, resamples: int = 1000,
    seed: int = 0, law: Law = CHINCHILLA, curve: str = "shared", laws: Laws | None = None,
) -> StudyResults:  # fmt: skip
    """Fit every skill and aggregate of a study, mix by mix.

    Args:
        runs: one row a run; columns run_id, C (nominal budget in FLOP, or NaN: found from 6 N D), N, D, mix (a name),
            seed, and one loss column (nats per token, NaN where missing) for each of ``skills`` and ``aggregates``;
            ``mix/CATEGORY`` where a law in ``laws`` needs the shares; ``cluster`` where runs share a trunk or are
            checkpoints of one.
        skills: columns to compare with the aggregates.
        aggregates: columns to compare with, the main one first.
        level: of all intervals, two-sided.
        resamples: draws behind the intervals.
        seed: of the resampling.
        law: to fit beside the curves, each skill and mix by itself, where ``laws`` is None.
        curve: the isoFLOP method, one of ``skillscale.laws.isoflop.curves.CURVES``.
        laws: the skills' laws, where they were fitted already; a skill without one is told as having none.

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
    parts = {str(mix): rows for mix, rows in usable.groupby("mix", sort=True)}
    rngs = {mix: np.random.default_rng([seed, number]) for number, mix in enumerate(parts)}
    luck = _luck(usable, resamples, next(iter(rngs.values())))
    if laws is None:
        laws = _laws_by_mix(parts, names, FitRequest(law=law, resamples=resamples, seed=seed, level=level))
    beside = {
        name: _beside(name, laws, parts, luck, rng=np.random.default_rng([seed, number, 1]))
        for number, name in enumerate(names)
    }
    minima, power_laws, residuals, summaries, frontier = [], [], [], [], []
    for mix, rows in parts.items():
        columns = {}
        for name in names:
            own = beside[name][mix]
            column = _fit_column(rows, name, luck[mix], rngs[mix], mix=mix, level=level, law=own, curve=curve)
            columns[name] = column
            minima += column.minima
            power_laws.append(_power_law(column, mix=mix, level=level))
            summaries.append(own.summary(mix=mix, skill=name, n_runs=int(rows[name].notna().sum()), level=level))
            frontier += _frontier(column, own, level=level)
        for aggregate in aggregates:
            residuals += _residuals([columns[s] for s in skills], columns[aggregate], mix=mix, level=level)
    return StudyResults(
        skills=tuple(skills), aggregates=tuple(aggregates), level=level, resamples=resamples, runs=usable,
        minima=tuple(minima), power_laws=tuple(power_laws), size_gaps=tuple(residuals), laws=tuple(summaries),
        curve_versus_law=tuple(frontier), excluded=tuple(unusable), curve=curve,
    )  # fmt: skip


def _luck(usable: pd.DataFrame, count: int, rng: np.random.Generator) -> dict[str, Resamples]:
    """The resamples of each mix: runs of one budget, size and seed take their errors from one such run in all mixes.

    Where runs of several budgets branch from one trunk (column ``cluster``), they take them together.
    """
    keys = ["C", "N", "seed"]
    again = usable.groupby(["mix", *keys], dropna=False).cumcount().rename("again")
    cells = usable[keys].assign(again=again)
    codes = cells.groupby([*keys, "again"], sort=False, dropna=False).ngroup().to_numpy()
    first = np.unique(codes, return_index=True)[1]
    trunks = usable["cluster"].astype(str).to_numpy()[first] if "cluster" in usable.columns else None
    whole = Resamples.draw(usable["C"].to_numpy()[first], count, rng, clusters=trunks)
    mixes = usable["mix"].to_numpy()
    return {str(mix): whole.of(codes[mixes == mix]) for mix in np.unique(mixes)}


def _laws_by_mix(parts: Mapping[str, pd.DataFrame], names: Sequence[str], request: FitRequest) -> Laws:
    """One law a mix and skill, each fitted by itself."""
    found: dict[tuple[str, str], FittedLaw | UnfittedSkill] = {}
    for mix, rows in parts.items():
        there = [name for name in names if rows[name].notna().any()]
        found |= {(mix, name): one for name, one in fit_all(split_by_skill(rows, there), request).items()}
    return found


def _beside(
    name: str, laws: Laws, parts: Mapping[str, pd.DataFrame], luck: Mapping[str, Resamples], *, rng: np.random.Generator
) -> dict[str, _Beside]:
    """A skill's law at each mix, ready to be laid beside the curves."""
    none = UnfittedSkill(skill=name, n_runs=0, reason=f"{name} has no law here; fit it too")
    own = {mix: laws.get((mix, name), none) for mix in parts}
    drawn: dict[int, Array] = {}
    found = {}
    for mix, one in own.items():
        if isinstance(one, UnfittedSkill):
            found[mix] = _Beside(one=one, h=None, paired=np.empty((0, 0)))
            continue
        if id(one) not in drawn:
            same = [other for other in parts if own[other] is one]
            drawn[id(one)] = _paired(one, name, {other: parts[other] for other in same}, luck, rng)
        h = _shares(one, parts[mix])
        found[mix] = _Beside(one=one, h=None if h is None else h.mean(0), paired=drawn[id(one)])
    return found


def _shares(one: FittedLaw, rows: pd.DataFrame) -> Array | None:
    """Shares (n, n_categories) of runs, where the law asks for them."""
    if not one.law.needs_mix:
        return None
    return rows[[f"mix/{category}" for category in one.law.categories]].to_numpy(dtype=float)


def _paired(
    one: FittedLaw,
    name: str,
    parts: Mapping[str, pd.DataFrame],
    luck: Mapping[str, Resamples],
    rng: np.random.Generator,
) -> Array:
    """Log-parameters (K, p) of a law whose runs have the errors that the curves' resamples have.

    Runs at no budget are no part of it, nor is what other skills told the law: the draws are then a little too wide. A
    law of all skills at once can't be fitted to one, so that its own draws serve, and the difference is not one of
    pairs.
    """
    count = len(next(iter(luck.values())).donors)
    if one.law.joint:
        return np.asarray(one.q[np.arange(count) % len(one.q)])
    present = {mix: rows[name].notna().to_numpy() for mix, rows in parts.items()}
    runs = pd.concat([rows[present[mix]] for mix, rows in parts.items()])
    h = _shares(one, runs)
    points = RunData(
        N=runs["N"].to_numpy(dtype=float), D=runs["D"].to_numpy(dtype=float), L=runs[name].to_numpy(dtype=float), h=h,
        categories=() if h is None else one.law.categories,
    )  # fmt: skip
    fit, free = one.fit, list(one.fit.free)
    problem = fit.problem(points)
    jac = fit.law.jacobian(fit.q[None], problem.parts[0].z)[0][:, free]
    leverage = (ParameterCovariance.of(jac, problem.precision, np.arange(len(points))).basis ** 2).sum(1)
    told = fit.law.log_loss(fit.q[None], problem.parts[0].z)[0]
    # A run that is an outlier to the Huber loss is one to the resamples too: its error may be drawn like any other.
    cuts = np.cumsum([mask.sum() for mask in present.values()])[:-1]
    pieces = zip(present, np.split(points.log_L - told, cuts), np.split(leverage, cuts), strict=True)
    errors = [luck[mix].errors(residuals, shrunk, present[mix]) for mix, residuals, shrunk in pieces]
    # A weak prior is one more observation: its error is drawn as well, about what the fit makes of it.
    precision = np.diag(fit.prior[1])
    sd = np.where(precision > 0, 1 / np.sqrt(np.where(precision > 0, precision, 1.0)), 0.0)
    means = fit.q[free] + sd * rng.normal(size=(count, len(free)))
    return refit(fit, points, told + np.hstack(errors), mean=means)[0]


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


def usable_runs(runs: pd.DataFrame, names: Sequence[str]) -> tuple[pd.DataFrame, list[ExcludedRun]]:
    """The runs that can be fitted, their budgets filled in, and what was left out and why.

    A loss that is missing or not positive costs that skill of that run alone (NaN in the result).
    """
    left_out: list[ExcludedRun] = []
    frame = runs.reset_index(drop=True).copy()
    frame["run_id"], frame["mix"] = frame["run_id"].astype(str), frame["mix"].astype(str)
    for letter in ("N", "D", "C", *names):
        frame[letter] = pd.to_numeric(frame[letter], errors="coerce").astype(float)
    twice = frame.duplicated("run_id")
    left_out += [ExcludedRun(run_id=run, skill="", reason="listed twice") for run in frame.loc[twice, "run_id"]]
    frame = frame[~twice]
    for letter in ("N", "D"):
        good = np.isfinite(frame[letter]) & (frame[letter] > 0)
        for run, value in frame.loc[~good, ["run_id", letter]].itertuples(index=False):
            left_out.append(ExcludedRun(run_id=run, skill="", reason=f"{letter} is {value}, not a positive number"))
        frame = frame[good]
    frame = _with_budgets(frame, left_out)
    for name in names:
        bad = ~(np.isfinite(frame[name]) & (frame[name] > 0))
        for run, value in frame.loc[bad, ["run_id", name]].itertuples(index=False):
            reason = "no loss" if math.isnan(value) else f"loss is {value}, not a positive number"
            left_out.append(ExcludedRun(run_id=run, skill=name, reason=reason))
        frame.loc[bad, name] = np.nan
    return frame.reset_index(drop=True), left_out


def _with_budgets(frame: pd.DataFrame, left_out: list[ExcludedRun]) -> pd.DataFrame:
    """Fill in missing budgets from 6 N D, and leave out the runs that miss their own."""
    frame = frame.copy()
    log_C = pd.Series(np.log(6 * frame["N"] * frame["D"]))
    # Over all mixes at once: what is compared between mixes asks for the very same C.
    ordered = log_C[~(frame["C"] > 0)].sort_values()
    group = (ordered.diff() > BUDGET_GAP).cumsum()
    frame.loc[ordered.index, "C"] = np.exp(ordered.groupby(group).transform("mean"))
    off = np.abs(log_C - np.log(frame["C"])) > BUDGET_GAP
    for run, ratio in zip(frame.loc[off, "run_id"], np.exp(log_C - np.log(frame["C"]))[off], strict=True):
        reason = f"6 N D is {ratio:.3g} times its budget, so that no isoFLOP curve can hold it"
        left_out.append(ExcludedRun(run_id=run, skill="", reason=reason))
    kept: pd.DataFrame = frame[~off]
    return kept


def _counts(unusable: list[ExcludedRun]) -> str:
    return ", ".join(f"{len(ones)} {reason}" for (_, reason), ones in group_by_reason(unusable).items()) or "no rows"


def _fit_column(
    rows: pd.DataFrame, name: str, resamples: Resamples, rng: np.random.Generator, *, mix: str, level: float,
    law: _Beside, curve: str,
) -> _Column:  # fmt: skip
    """The minima of one skill of one mix."""
    form = rng.normal(size=(len(resamples.donors), 2))  # drawn first, so that one skill's trouble can't shift another's
    present = rows[name].notna().to_numpy()
    N, D, C, L = (rows[column].to_numpy()[present] for column in ("N", "D", "C", name))
    seeds = rows["seed"].to_numpy()[present]
    curves = fit_isoflops(C, N, law.on_budget(N, D, C, L), seeds=seeds, curve=curve) if len(L) else None
    if curves is None:
        minima = [
            IsoflopMinimum(
                mix=mix, skill=name, C=float(b), status=Status.TOO_FEW, n_runs=int(np.equal(C, b).sum()),
                n_sizes=distinct_sizes(N[np.equal(C, b)]),
                reason=f"a curve needs {min_sizes(curve)} distinct sizes, better 7 over +-8x",
            )
            for b in np.unique(C)
        ]  # fmt: skip
        blank = np.empty((len(resamples.donors), 0))
        return _Column(skill=name, minima=minima, budgets=(), optima=np.empty(0), draws=blank)
    used = present.copy()
    used[present] = curves.used
    drawn = curves.drawn_minima(resamples.errors(curves.residuals, curves.leverage, used), form)
    return _Column(
        skill=name, minima=find_minima(curves, drawn, level=level, mix=mix, skill=name), budgets=curves.budgets,
        optima=curves.minima()[0], draws=drawn.optima,
    )  # fmt: skip


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


def _residuals(skills: list[_Column], aggregate: _Column, *, mix: str, level: float) -> list[SizeGap]:
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
    return found + as_family(pooled)


def _residual(
    skill: _Column, aggregate: _Column, mix: str, *, C: float, pairs: Sequence[tuple[float, Array]] = (),
    level: float = math.nan, status: Status = Status.TOO_FEW_BUDGETS, reason: str = "no budget has both minima",
) -> SizeGap:  # fmt: skip
    """The residual of one budget, or the mean of several."""
    value, p, verdict = Interval(), math.nan, Verdict.UNRESOLVED
    if pairs:
        status, reason = Status.OK, ""
        draws = np.column_stack([drawn for _, drawn in pairs])
        pooled = draws.mean(axis=1)
        value, p = interval(float(np.mean([estimate for estimate, _ in pairs])), pooled, level), two_sided_p(pooled)
        if value.excludes_zero:
            verdict = Verdict.CAPACITY if value.value > 0 else Verdict.DATA
    return SizeGap(
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


def _frontier(column: _Column, law: _Beside, *, level: float) -> list[CurveVersusLaw]:
    """N*(C) of the curve beside the law's, wherever the curve has one."""
    return [
        law.frontier(minimum, optimum=optimum, draws=draws, level=level)
        for minimum in column.minima
        if minimum.status is Status.OK
        for optimum, draws in (column.at(minimum.C),)
    ]
