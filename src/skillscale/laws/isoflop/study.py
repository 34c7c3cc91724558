"""Fit a study: isoFLOP minima, the power law through them, size gaps, and the law's optima for comparison.

A table of runs goes in, and one ``StudyResults`` comes out. The intervals of the curves come from one set of resampled
errors. All skills share it, and so do mixes that have runs of the same budget, size and seed. The law is refitted to
the same errors for the comparison with the curves. So every difference (skill and aggregate, two mixes, law and curve)
is paired by resample.
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
from skillscale.laws.isoflop.curves import check_curve, count_sizes, find_minima, fit_isoflops, min_sizes
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
from skillscale.laws.uncertainty.resamples import Resamples, interval, robust_sd, two_sided_p, with_holm_p

COLUMNS = ("run_id", "C", "N", "D", "mix", "seed")
# In ln C. Runs without a nominal budget belong to one budget up to this gap. A run further from its budget is excluded.
BUDGET_GAP = 0.1
_LINE_SIZES = 4
_MOST_PAIRED = 200  # runs of a budget that are compared with each other
_SAME_BUDGET = 0.01  # in ln C, within which given FLOP are never two budgets
Laws = Mapping[tuple[str, str], FittedLaw | UnfittedSkill]  # by mix and skill; several mixes may share one law


@dataclass(frozen=True, kw_only=True)
class _LawAtMix:
    """A skill's law at one mix. ``paired``: (K, p) log-parameters refitted to the resamples of the curves."""

    fitted: FittedLaw | UnfittedSkill
    h: Array | None
    paired: Array

    def on_budget(self, N: Array, D: Array, C: Array, L: Array) -> Array:
        """Correct losses (n,) to D = C / 6 N. A run's whole number of batches misses the budget a little."""
        if isinstance(self.fitted, UnfittedSkill):
            return L
        law, theta = self.fitted.law, self.fitted.fit.theta
        return np.asarray(L * law.loss(theta, N, C / (6 * N), self.h) / law.loss(theta, N, D, self.h))

    def summary(self, *, mix: str, skill: str, n_runs: int, level: float) -> LawSummary:
        """Return the law's entry in the results."""
        fitted = self.fitted
        if isinstance(fitted, UnfittedSkill):
            return LawSummary(
                mix=mix, skill=skill, law="", status=Status.NOT_IDENTIFIED, reason=fitted.reason, n_runs=n_runs,
                objective="", F=math.nan, starts=MultiStart(tried=0, agree=0, gap=math.nan), theta={}, a=Interval(),
                noise=math.nan,
            )  # fmt: skip
        a = fitted.law.optimum_exponent(np.vstack([fitted.fit.theta, fitted.law.theta(fitted.q)]), h=self.h)
        return LawSummary(
            mix=mix, skill=skill, law=fitted.law.name, status=fitted.status, reason=fitted.reason, n_runs=fitted.n_runs,
            objective=fitted.fit.objective.name, F=fitted.fit.F, starts=fitted.fit.starts, theta=fitted.theta,
            a=interval(float(a[0]), a[1:], level), noise=fitted.fit.noise,
        )  # fmt: skip

    def compare(self, minimum: IsoflopMinimum, *, optimum: float, draws: Array, level: float) -> CurveVersusLaw:
        """Compare N* of the law with that of a curve, whose ln N* is ``optimum`` with ``draws`` (K,)."""
        law_N, disagreement = Interval(), Interval()
        if isinstance(self.fitted, FittedLaw):
            value, law_draws = (x[..., 0] for x in self.fitted.log_optimum([minimum.C], self.h))
            theta = self.fitted.law.theta(self.paired)
            paired_draws = self.fitted.law.log_optimum(theta, [minimum.C], self.h)[:, 0]
            law_N = interval(float(value), law_draws, level).map(math.exp)
            disagreement = interval(float(value) - optimum, paired_draws - draws, level)
        return CurveVersusLaw(
            mix=minimum.mix, skill=minimum.skill, C=minimum.C, parabola=minimum.N, law=law_N, disagreement=disagreement
        )


@dataclass(frozen=True, kw_only=True)
class _SkillMinima:
    """The minima of one skill at one mix. ``optima``: ln N* by budget, (n_budgets,), with ``draws`` (K, n_budgets)."""

    skill: str
    minima: list[IsoflopMinimum]
    budgets: tuple[float, ...]
    optima: Array
    draws: Array

    def has_minimum(self, C: float) -> bool:
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
        runs: table with one row per run. Columns: run_id, C (nominal budget in FLOP, or NaN: 6 N D is used), N, D, mix
            (a name), seed, and a loss column (nats per token, NaN where missing) for each of ``skills`` and
            ``aggregates``. ``mix/CATEGORY`` where a law in ``laws`` needs the shares. ``cluster`` where runs share a
            trunk or are checkpoints of one run.
        skills: columns to compare with the aggregates.
        aggregates: reference columns, the main one first.
        level: level of all intervals, two-sided.
        resamples: number of bootstrap resamples.
        seed: seed of the resampling.
        law: law to fit separately to each skill and mix where ``laws`` is None.
        curve: isoFLOP method, one of ``skillscale.laws.isoflop.curves.CURVES``.
        laws: fitted laws by mix and skill. A skill without a law is reported as such.

    Raises:
        InputError: a column is missing or listed twice, level or resamples are out of range, or the curve is unknown.
        FitError: no run is usable.
    """
    check_curve(curve)
    names = _check_request(runs, [*skills, *aggregates], level, resamples)
    usable, excluded = usable_runs(runs, names)
    if usable.empty:
        raise FitError(
            f"none of the {len(runs)} runs is usable: {_describe_reasons(excluded)}. Finish at least 4 sizes at one "
            "budget."
        )
    rows_by_mix = {str(mix): rows for mix, rows in usable.groupby("mix", sort=True)}
    rngs = {mix: np.random.default_rng([seed, number]) for number, mix in enumerate(rows_by_mix)}
    resamples_by_mix = _resamples_by_mix(usable, resamples, next(iter(rngs.values())))
    if laws is None:
        laws = _laws_by_mix(rows_by_mix, names, FitRequest(law=law, resamples=resamples, seed=seed, level=level))
    laws_at_mix = {
        name: _law_by_mix(name, laws, rows_by_mix, resamples_by_mix, rng=np.random.default_rng([seed, number, 1]))
        for number, name in enumerate(names)
    }
    minima, power_laws, size_gaps, summaries, comparisons = [], [], [], [], []
    for mix, rows in rows_by_mix.items():
        columns = {}
        for name in names:
            fitted = laws_at_mix[name][mix]
            column = columns[name] = _skill_minima(
                rows, name, resamples_by_mix[mix], rngs[mix], mix=mix, level=level, law=fitted, curve=curve
            )
            minima += column.minima
            power_laws.append(_power_law(column, mix=mix, level=level))
            summaries.append(fitted.summary(mix=mix, skill=name, n_runs=int(rows[name].notna().sum()), level=level))
            comparisons += _compare_with_law(column, fitted, level=level)
        for aggregate in aggregates:
            size_gaps += _size_gaps([columns[s] for s in skills], columns[aggregate], mix=mix, level=level)
    return StudyResults(
        skills=tuple(skills), aggregates=tuple(aggregates), level=level, resamples=resamples, runs=usable,
        minima=tuple(minima), power_laws=tuple(power_laws), size_gaps=tuple(size_gaps), laws=tuple(summaries),
        curve_versus_law=tuple(comparisons), excluded=tuple(excluded), curve=curve,
    )  # fmt: skip


def _resamples_by_mix(usable: pd.DataFrame, count: int, rng: np.random.Generator) -> dict[str, Resamples]:
    """Draw the resamples of each mix. Runs of one budget, size and seed take the same errors in all mixes.

    Runs of several budgets that branch from one trunk (column ``cluster``) are resampled together.
    """
    keys = ["C", "N", "seed"]
    repeat = usable.groupby(["mix", *keys], dropna=False).cumcount().rename("again")
    cells = usable[keys].assign(again=repeat)
    cell_of_run = cells.groupby([*keys, "again"], sort=False, dropna=False).ngroup().to_numpy()
    first = np.unique(cell_of_run, return_index=True)[1]
    clusters = usable["cluster"].astype(str).to_numpy()[first] if "cluster" in usable.columns else None
    all_resamples = Resamples.draw(usable["C"].to_numpy()[first], count, rng, clusters=clusters)
    mixes = usable["mix"].to_numpy()
    return {str(mix): all_resamples.select(cell_of_run[mixes == mix]) for mix in np.unique(mixes)}


def _laws_by_mix(parts: Mapping[str, pd.DataFrame], names: Sequence[str], request: FitRequest) -> Laws:
    """Fit a separate law to each mix and skill."""
    laws: dict[tuple[str, str], FittedLaw | UnfittedSkill] = {}
    for mix, rows in parts.items():
        fitted_names = [name for name in names if rows[name].notna().any()]
        laws |= {(mix, name): law for name, law in fit_all(split_by_skill(rows, fitted_names), request).items()}
    return laws


def _law_by_mix(
    name: str, laws: Laws, parts: Mapping[str, pd.DataFrame], resamples_by_mix: Mapping[str, Resamples], *,
    rng: np.random.Generator,
) -> dict[str, _LawAtMix]:  # fmt: skip
    """Return a skill's law at each mix, with the draws for the comparison with the curves."""
    missing = UnfittedSkill(skill=name, n_runs=0, reason=f"{name} has no law here: fit it too")
    law_of_mix = {mix: laws.get((mix, name), missing) for mix in parts}
    draws_by_law: dict[int, Array] = {}
    laws_at_mix = {}
    for mix, law in law_of_mix.items():
        if isinstance(law, UnfittedSkill):
            laws_at_mix[mix] = _LawAtMix(fitted=law, h=None, paired=np.empty((0, 0)))
            continue
        if id(law) not in draws_by_law:
            same_law = [other for other in parts if law_of_mix[other] is law]
            rows_by_mix = {other: parts[other] for other in same_law}
            draws_by_law[id(law)] = _paired(law, name, rows_by_mix, resamples_by_mix, rng)
        h = _shares(law, parts[mix])
        laws_at_mix[mix] = _LawAtMix(fitted=law, h=None if h is None else h.mean(0), paired=draws_by_law[id(law)])
    return laws_at_mix


def _shares(fitted: FittedLaw, rows: pd.DataFrame) -> Array | None:
    """Return the shares (n, n_categories) of runs, or None where the law does not need them."""
    if not fitted.law.needs_mix:
        return None
    return rows[[f"mix/{category}" for category in fitted.law.categories]].to_numpy(dtype=float)


def _paired(
    fitted: FittedLaw,
    name: str,
    parts: Mapping[str, pd.DataFrame],
    resamples_by_mix: Mapping[str, Resamples],
    rng: np.random.Generator,
) -> Array:
    """Refit a law to the errors in the resamples of the curves, and return its log-parameters (K, p).

    Runs at no budget and information from other skills do not enter, so the draws are then a little too wide. A law of
    all skills together cannot be fitted to one skill: then the law's bootstrap draws are used, and the comparison is
    not paired.
    """
    count = len(next(iter(resamples_by_mix.values())).donors)
    if fitted.law.joint:
        return np.asarray(fitted.q[np.arange(count) % len(fitted.q)])
    present = {mix: rows[name].notna().to_numpy() for mix, rows in parts.items()}
    runs = pd.concat([rows[present[mix]] for mix, rows in parts.items()])
    h = _shares(fitted, runs)
    data = RunData(
        N=runs["N"].to_numpy(dtype=float), D=runs["D"].to_numpy(dtype=float), L=runs[name].to_numpy(dtype=float), h=h,
        categories=() if h is None else fitted.law.categories,
    )  # fmt: skip
    fit, free = fitted.fit, list(fitted.fit.free)
    problem = fit.build_problem(data)
    jac = fit.law.jacobian(fit.q[None], problem.blocks[0].z)[0][:, free]
    leverage = (ParameterCovariance.from_jacobian(jac, problem.precision, np.arange(len(data))).basis ** 2).sum(1)
    predicted = fit.law.log_loss(fit.q[None], problem.blocks[0].z)[0]
    # Errors of outliers stay in the resamples, because the Huber loss treats them as outliers there too.
    cuts = np.cumsum([mask.sum() for mask in present.values()])[:-1]
    pieces = zip(present, np.split(data.log_L - predicted, cuts), np.split(leverage, cuts), strict=True)
    errors = [resamples_by_mix[mix].draw_errors(residuals, shrunk, present[mix]) for mix, residuals, shrunk in pieces]
    # A weak prior acts as one more observation, so its error is drawn as well, about the fitted value.
    precision = np.diag(fit.prior[1])
    sd = np.where(precision > 0, 1 / np.sqrt(np.where(precision > 0, precision, 1.0)), 0.0)
    means = fit.q[free] + sd * rng.normal(size=(count, len(free)))
    return refit(fit, data, predicted + np.hstack(errors), mean=means)[0]


def _check_request(runs: pd.DataFrame, names: list[str], level: float, resamples: int) -> list[str]:
    missing = [column for column in (*COLUMNS, *names) if column not in runs.columns]
    if missing:
        there = ", ".join(map(str, runs.columns))
        raise InputError(f"missing columns in the table of runs: {', '.join(missing)}. It has {there}.")
    if len(set(names)) < len(names):
        raise InputError(f"skills and aggregates must differ: {', '.join(names)}. List each once.")
    if not 0 < level < 1:
        raise InputError(f"level must be between 0 and 1: {level}. A usual value is 0.9.")
    if resamples < 100:
        raise InputError(f"resamples must be 100 or more: {resamples}. A usual value is 1000.")
    return names


def usable_runs(runs: pd.DataFrame, names: Sequence[str]) -> tuple[pd.DataFrame, list[ExcludedRun]]:
    """Return the runs that can be fitted, with their budgets, and the excluded runs with reasons.

    A missing or non-positive loss excludes only that skill of that run (NaN in the result).
    """
    excluded: list[ExcludedRun] = []
    frame = runs.reset_index(drop=True).copy()
    frame["run_id"], frame["mix"] = frame["run_id"].astype(str), frame["mix"].astype(str)
    for letter in ("N", "D", "C", *names):
        frame[letter] = pd.to_numeric(frame[letter], errors="coerce").astype(float)
    repeated = frame.duplicated("run_id")
    excluded += [ExcludedRun(run_id=run, skill="", reason="listed twice") for run in frame.loc[repeated, "run_id"]]
    frame = frame[~repeated]
    for letter in ("N", "D"):
        good = np.isfinite(frame[letter]) & (frame[letter] > 0)
        for run, value in frame.loc[~good, ["run_id", letter]].itertuples(index=False):
            excluded.append(ExcludedRun(run_id=run, skill="", reason=f"{letter} is {value}, not a positive number"))
        frame = frame[good]
    frame = _with_budgets(frame, excluded)
    for name in names:
        bad = ~(np.isfinite(frame[name]) & (frame[name] > 0))
        for run, value in frame.loc[bad, ["run_id", name]].itertuples(index=False):
            reason = "no loss" if math.isnan(value) else f"loss is {value}, not a positive number"
            excluded.append(ExcludedRun(run_id=run, skill=name, reason=reason))
        frame.loc[bad, name] = np.nan
    return frame.reset_index(drop=True), excluded


def _with_budgets(frame: pd.DataFrame, excluded: list[ExcludedRun]) -> pd.DataFrame:
    """Fill in missing budgets from 6 N D, and exclude the runs that miss their budget.

    Given FLOP that differ by less than the gap are one budget. Where they are counted otherwise than 6 N D, a budget is
    shown as the mean 6 N D of its runs, because that is the C of all laws.
    """
    frame = frame.copy()
    log_C = pd.Series(np.log(6 * frame["N"] * frame["D"]))
    given = frame["C"] > 0
    # Over all mixes together, because comparisons between mixes need the same C.
    ordered = log_C[~given].sort_values()
    group = (ordered.diff() > BUDGET_GAP).cumsum()
    frame.loc[ordered.index, "C"] = np.exp(ordered.groupby(group).transform("mean"))
    miss = log_C - np.log(frame["C"])
    log_N, budgets = np.log(frame["N"]), _given_budgets(frame.loc[given, "C"])
    slope = _count_slope([(log_N[C.index], log_C[C.index]) for C, is_nominal in budgets if is_nominal])
    for C, is_nominal in budgets:
        at = C.index
        frame.loc[at, "C"], away = C, log_C[at] - np.log(C)
        line = away - slope * log_N[at]
        # A run's own FLOP can't miss the budget that they are; a planned budget can be missed
        is_met = (away.abs() <= BUDGET_GAP) | ((line - line.median()).abs() <= BUDGET_GAP) | (not is_nominal)
        if (away.abs() > BUDGET_GAP).mean() >= 0.5:
            frame.loc[at, "C"] = float(np.exp(log_C[at[is_met] if is_met.any() else at].mean()))
        miss[at] = away.where(~is_met, 0.0)
    missed = miss.abs() > BUDGET_GAP
    for run, ratio in zip(frame.loc[missed, "run_id"], np.exp(log_C - np.log(frame["C"]))[missed], strict=True):
        reason = f"6 N D is {ratio:.3g} times its budget, so it fits no isoFLOP curve"
        excluded.append(ExcludedRun(run_id=run, skill="", reason=reason))
    kept: pd.DataFrame = frame[~missed]
    return kept


def _is_nominal(C: "pd.Series[float]") -> bool:
    """Return whether FLOP are budgets as planned, and not those of each run: each occurs more than once."""
    counts = C.value_counts().sort_index()
    apart = np.diff(np.log(counts.index.to_numpy())) > _SAME_BUDGET
    return len(counts) == 1 or bool((counts > 1).all() and apart.all())


def _given_budgets(C: "pd.Series[float]") -> "list[tuple[pd.Series[float], bool]]":
    """Return the budget of the runs, budget by budget, and whether it was planned: given FLOP without gaps between."""
    ordered = pd.Series(np.log(C)).sort_values()
    budgets = []
    for _, logs in ordered.groupby((ordered.diff() > BUDGET_GAP).cumsum()):
        part = C[logs.index]
        if _is_nominal(part):
            budgets += [(runs, True) for _, runs in part.groupby(part)]
        else:
            budgets.append((pd.Series(float(np.exp(logs.mean())), index=logs.index), False))
    return budgets


def _count_slope(budgets: "Sequence[tuple[pd.Series[float], pd.Series[float]]]") -> float:
    """Return how ln of 6 N D over the FLOP changes with ln N, as these runs count FLOP: the median over pairs of runs.

    FLOP of attention and embeddings are a share that changes slowly with the size. A run that stopped early does not
    move a median.

    Args:
        budgets: ln N and ln 6 N D of the runs of each budget.
    """
    slopes = [np.empty(0)]
    for log_N, log_C in budgets:
        x, y = (part.to_numpy()[:_MOST_PAIRED] for part in (log_N, log_C))
        dx, dy = x[:, None] - x, y[:, None] - y
        if count_sizes(np.exp(x)) >= _LINE_SIZES:
            slopes.append((dy / np.where(dx > BUDGET_GAP, dx, np.nan))[dx > BUDGET_GAP])
    pairs = np.concatenate(slopes)
    return float(np.clip(np.median(pairs), -0.5, 0.5)) if len(pairs) else 0.0


def _describe_reasons(excluded: list[ExcludedRun]) -> str:
    return ", ".join(f"{len(runs)} {reason}" for (_, reason), runs in group_by_reason(excluded).items()) or "no rows"


def _skill_minima(
    rows: pd.DataFrame, name: str, resamples: Resamples, rng: np.random.Generator, *, mix: str, level: float,
    law: _LawAtMix, curve: str,
) -> _SkillMinima:  # fmt: skip
    """Find the minima of one skill at one mix."""
    # Drawn first, so that a skill without curves does not shift the random stream of the next one.
    form = rng.normal(size=(len(resamples.donors), 2))
    present = rows[name].notna().to_numpy()
    N, D, C, L = (rows[column].to_numpy()[present] for column in ("N", "D", "C", name))
    seeds = rows["seed"].to_numpy()[present]
    curves = fit_isoflops(C, N, law.on_budget(N, D, C, L), seeds=seeds, curve=curve) if len(L) else None
    if curves is None:
        minima = [
            IsoflopMinimum(
                mix=mix, skill=name, C=float(b), status=Status.TOO_FEW, n_runs=int(np.equal(C, b).sum()),
                n_sizes=count_sizes(N[np.equal(C, b)]),
                reason=f"too few distinct sizes: a curve needs {min_sizes(curve)}, better 7 over +-8x",
            )
            for b in np.unique(C)
        ]  # fmt: skip
        blank = np.empty((len(resamples.donors), 0))
        return _SkillMinima(skill=name, minima=minima, budgets=(), optima=np.empty(0), draws=blank)
    used = present.copy()
    used[present] = curves.used
    drawn = curves.resample_minima(resamples.draw_errors(curves.residuals, curves.leverage, used), form)
    return _SkillMinima(
        skill=name, minima=find_minima(curves, drawn, level=level, mix=mix, skill=name), budgets=curves.budgets,
        optima=curves.minima()[0], draws=drawn.optima,
    )  # fmt: skip


def _power_law(column: _SkillMinima, *, mix: str, level: float) -> PowerLaw:
    """Fit a line of ln N* against ln C, with each budget weighted by its precision."""
    kept = [b for b, C in enumerate(column.budgets) if column.has_minimum(C)]
    if len(kept) < 2:
        return PowerLaw(
            mix=mix, skill=column.skill, status=Status.TOO_FEW_BUDGETS, n_budgets=len(kept), a=Interval(),
            reason=f"{len(kept)} of {len(column.budgets)} budgets have a minimum: a power law needs 2, better 3",
            intercept=math.nan, centre=math.nan, level=level, draws=np.empty((0, 2)),
        )  # fmt: skip
    log_C, draws = np.log(np.array(column.budgets)[kept]), column.draws[:, kept]
    weights = 1 / np.maximum(robust_sd(draws), 1e-9) ** 2
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


def _size_gaps(skills: list[_SkillMinima], aggregate: _SkillMinima, *, mix: str, level: float) -> list[SizeGap]:
    """Return the size gaps of all skills to one aggregate, with Holm's correction over the pooled ones."""
    size_gaps, pooled = [], []
    for skill in skills:
        pairs = []
        for C in sorted({m.C for m in skill.minima} | {m.C for m in aggregate.minima}):
            problem = _missing_minimum(skill, aggregate, C)
            if problem:
                size_gaps.append(_size_gap(skill, aggregate, mix, C=C, reason=problem[1], status=problem[0]))
                continue
            (estimate, draws), (reference, reference_draws) = skill.at(C), aggregate.at(C)
            pairs.append((estimate - reference, draws - reference_draws))
            size_gaps.append(_size_gap(skill, aggregate, mix, C=C, pairs=pairs[-1:], level=level))
        pooled.append(_size_gap(skill, aggregate, mix, C=math.nan, pairs=pairs, level=level))
    return size_gaps + with_holm_p(pooled)


def _size_gap(
    skill: _SkillMinima, aggregate: _SkillMinima, mix: str, *, C: float, pairs: Sequence[tuple[float, Array]] = (),
    level: float = math.nan, status: Status = Status.TOO_FEW_BUDGETS, reason: str = "no budget has both minima",
) -> SizeGap:  # fmt: skip
    """Return the size gap of one budget, or the mean over several."""
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


def _missing_minimum(skill: _SkillMinima, aggregate: _SkillMinima, C: float) -> tuple[Status, str] | None:
    """Return the status and reason of the missing minimum at a budget, or None where both exist."""
    for column in (skill, aggregate):
        minimum = next((m for m in column.minima if m.C == C), None)
        if minimum is None:
            return Status.TOO_FEW, f"{column.skill}: no runs at this budget"
        if minimum.status is not Status.OK:
            return minimum.status, f"{column.skill}: {minimum.reason}"
    return None


def _compare_with_law(column: _SkillMinima, law: _LawAtMix, *, level: float) -> list[CurveVersusLaw]:
    """Compare N*(C) of the curve with that of the law at every budget with a minimum."""
    return [
        law.compare(minimum, optimum=optimum, draws=draws, level=level)
        for minimum in column.minima
        if minimum.status is Status.OK
        for optimum, draws in (column.at(minimum.C),)
    ]
