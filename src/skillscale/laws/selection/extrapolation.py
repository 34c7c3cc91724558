"""Predictions of larger runs: a law, what each mix adds to it, and intervals that own what the runs leave open.

An interval of a new run has three parts: the parameters (a mix's misfit recurs at every size, so that runs of one mix
are one cluster), the noise of a run, and a discrepancy that grows with the way beyond the fitted runs: how far
predictions of the largest of *those* missed, past what the other parts explain (``excess_rate``).
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

import numpy as np
from scipy.stats import t as student_t

from skillscale.errors import InputError
from skillscale.laws.fit.data import RunData
from skillscale.laws.fit.fit import FitResult, efficient_objective, fit_law
from skillscale.laws.fit.joint import fit_skills
from skillscale.laws.fit.mix_effects import MixEffects, mix_names
from skillscale.laws.fit.objective import Objective
from skillscale.laws.forms.nd import Array, Law, Prior
from skillscale.laws.selection.holdout import Cutoff, checkpoint_weights, mix_codes, run_shares, without_early
from skillscale.laws.uncertainty.bootstrap import Codes, sandwich

# Exponents of published laws lie within .2 to .6; runs of three sizes tell more than this, runs of two do not.
BELIEFS = {"alpha": Prior(0.35, 0.15), "beta": Prior(0.35, 0.15)}
TERM_SD = 1.0  # ln: E and either term are a third of the loss at the centre, within a factor of 3 or so (assumption)
POOLED = {"alpha": 0.02, "beta": 0.02, "g": 0.02, "k": 0.05}  # in what skills lean together; the least sd believed
LATE = 0.4  # share of a run's last D from which its errors are those of a finished run
_TERMS = ("ln E", "ln A", "ln B", "ln A'", "ln B'")
_ROUGH = Objective(delta=0.02)  # where the noise is not known yet
_STARTS = 2
_FEW_ERRORS = 8  # fewer tell no noise of their own
_FEW_MIXES = 10  # fewer are no clusters to rest an interval on
_WIDE = 0.5  # sd of ln L beyond which a line through the optimum says nothing more: parameters are told up to this


@dataclass(frozen=True, kw_only=True)
class PredictionSetting:
    """How to predict: a law; ``after``: checkpoints before this share of their run's last D are left out.

    Weak beliefs about exponents and terms are part of every setting (``weak_priors``), but for laws of all skills.
    ``effects``: whether what a mix added in smaller runs is added again; ``pooled``: whether the skills' exponents
    lean together, by as much as they scatter; ``objective``: of the fit, None: Huber with delta twice the noise.
    """

    law: Law
    after: float = 0.0
    effects: bool = False
    pooled: bool = False
    objective: Objective | None = None

    @property
    def name(self) -> str:
        """In words."""
        parts = [self.law.name]
        parts += [f"after {self.after:.0%} of each run"] if self.after else []
        parts += [] if self.law.joint else ["weak beliefs"]
        parts += ["exponents pooled"] if self.pooled else []
        parts += ["mix effects"] if self.effects else []
        return ", ".join(parts)


@dataclass(frozen=True, kw_only=True)
class Extrapolation:
    """A skill's law, fitted to be extrapolated.

    ``points``: what it was fitted to; ``covariance``: of the free log-parameters; ``freedom``: its degrees of freedom;
    ``effects``: what each mix adds (empty: nothing); ``noise``: sd of a new run in ln L;
    ``rate``: discrepancy, in ln L per unit of ``limit.reach``; ``near_duplicates``: checkpoints that weigh as one with
    another.
    """

    skill: str
    setting: PredictionSetting
    fit: FitResult
    points: RunData = field(repr=False)
    covariance: Array = field(repr=False)
    freedom: float
    effects: MixEffects = field(repr=False)
    noise: float
    limit: Cutoff
    rate: float = 0.0
    near_duplicates: int = 0

    def log_loss(self, where: RunData) -> Array:
        """Ln L at the N, D and mix of some runs, (n,); their losses are not looked at."""
        law = self.fit.law
        told = law.log_loss(self.fit.q[None], where.covariates(law))[0]
        return np.asarray(told + self.effects.of(where.h, len(where)))

    def variance(self, where: RunData) -> Array:
        """Of ln L of a new run there, but for the discrepancy, (n,), to first order."""
        law = self.fit.law
        jac = law.jacobian(self.fit.q[None], where.covariates(law))[0][:, list(self.fit.free)]
        told = np.einsum("np,pq,nq->n", jac, self.covariance, jac)
        return np.asarray(np.minimum(told, _WIDE**2) + self.noise**2)

    def sd(self, where: RunData) -> Array:
        """Of ln L of a new run there, (n,)."""
        return np.sqrt(self.variance(where) + (self.rate * self.limit.reach(where)) ** 2)

    def interval(self, where: RunData, level: float) -> tuple[Array, Array]:
        """Both ends of ln L of a new run there, two-sided, each (n,)."""
        half = float(student_t.ppf((1 + level) / 2, self.freedom)) * self.sd(where)
        middle = self.log_loss(where)
        return middle - half, middle + half

    def draws(self, where: RunData, *, count: int, rng: np.random.Generator) -> Array:
        """Ln L of new runs there, (count, n), each run's by itself."""
        return self.log_loss(where) + self.sd(where) * rng.standard_t(self.freedom, size=(count, len(where)))

    def with_effects(self) -> "Extrapolation":
        """The same with what each mix adds, and the noise that this leaves."""
        errors = self.fit.residuals
        effects = mix_effects(self.points, errors)
        if not len(effects):
            return self
        codes = mix_codes(self.points)
        noise = _noise(self.points, errors - effects[codes], self.fit.n_free)
        mixes = np.asarray(self.points.h)[np.unique(codes, return_index=True)[1]]
        known = MixEffects(categories=self.points.categories, mixes=mixes, offsets=effects)
        return replace(self, effects=known, noise=noise, setting=replace(self.setting, effects=True))


def extrapolate(
    data: Mapping[str, RunData], setting: PredictionSetting, limit: Cutoff, *, tell: Callable[[str], None] | None = None,
    starts: int = 1,
) -> dict[str, Extrapolation]:  # fmt: skip
    """Fit every skill under one setting.

    Args:
        data: each skill's runs, all at or below the limit.
        setting: how.
        limit: where the runs to be predicted begin.
        tell: is told of each skill that is fitted.
        starts: of each fit; 1: from the rough one that told the noise, which is enough to try a setting.

    Raises:
        FitError: the runs of a skill can't carry the law.
        InputError: the law needs a mix that the runs don't tell.
    """
    kept, alike = {}, {}
    for name, points in data.items():
        kept[name], alike[name] = checkpoint_weights(without_early(points, setting.after))
    setting = replace(setting, pooled=setting.pooled and len(data) > 1)
    fits = _fitted(kept, setting, tell or (lambda _: None), starts)
    found = {
        name: _finished(name, fits[name], points, replace(setting, effects=False), limit, alike[name])
        for name, points in kept.items()
    }
    return {name: one.with_effects() for name, one in found.items()} if setting.effects else found


def pooled(told: Mapping[str, Extrapolation]) -> dict[str, Extrapolation]:
    """Forecasts without mix effects again, the exponents believed to scatter about a mean as they do over skills."""
    fits = _pooled_fits({name: one.points for name, one in told.items()}, {name: one.fit for name, one in told.items()})
    return {
        name: _finished(name, fits[name], one.points, replace(one.setting, pooled=True), one.limit, one.near_duplicates)
        for name, one in told.items()
    }


def _fitted(
    data: Mapping[str, RunData], setting: PredictionSetting, tell: Callable[[str], None], starts: int
) -> dict[str, FitResult]:
    if setting.law.joint:
        tell(f"{setting.law.name} over {len(data)} skills")
        return dict(fit_skills(data, law=setting.law, objective=setting.objective).fits)
    fits = {}
    for name, points in data.items():
        tell(f"{setting.name}: {name}")
        fits[name] = _fit_alone(points, points.bind(setting.law).for_skill(name), setting.objective, starts)
    return _pooled_fits(data, fits, starts) if setting.pooled else fits


def _fit_alone(points: RunData, law: Law, objective: Objective | None, starts: int) -> FitResult:
    """With the objective asked for; else the efficient Huber fit, from a rough one that tells the noise."""
    beliefs = weak_priors(law, points)
    if objective is not None:
        return fit_law(points, law=law, objective=objective, starts=max(starts, _STARTS), beliefs=beliefs)
    rough = fit_law(points, law=law, objective=_ROUGH, starts=_STARTS, beliefs=beliefs)
    begin = rough.q[None] if starts == 1 else None
    return fit_law(
        points, law=law, objective=efficient_objective(rough.noise), starts=starts, begin=begin, beliefs=beliefs
    )


def weak_priors(law: Law, points: RunData) -> dict[str, Prior]:
    """Weak beliefs that keep a prediction sensible where runs tell too little, for what the law has of it."""
    third = float(np.average(points.log_L, weights=points.weights)) - math.log(3)
    terms = {name: Prior(third, TERM_SD) for name in _TERMS if name in law.log_names}
    return terms | {name: prior for name, prior in BELIEFS.items() if _has(law, name)}


def _has(law: Law, name: str) -> bool:
    """Whether one log-parameter alone decides a parameter of that name."""
    try:
        return name in law.parameters and bool(law.positions(name))
    except InputError:
        return False


def _pooled_fits(data: Mapping[str, RunData], fits: Mapping[str, FitResult], starts: int = 1) -> dict[str, FitResult]:
    scatter = _scatter(data, fits)
    return {
        name: fit_law(
            data[name], law=fit.law, objective=fit.objective, starts=starts,
            begin=fit.q[None] if starts == 1 else None,
            beliefs=weak_priors(fit.law, data[name]) | scatter,
        )
        for name, fit in fits.items()
    }  # fmt: skip


def _scatter(data: Mapping[str, RunData], fits: Mapping[str, FitResult]) -> dict[str, Prior]:
    """Mean and sd over skills of what is pooled, in units of q.

    What the runs leave open of each counts as scatter too: estimates that a weak belief has drawn together agree on
    nothing.
    """
    beliefs = {}
    unsure = {name: np.diag(_covariance(fit, data[name])[0]) for name, fit in fits.items()}
    for name, least in POOLED.items():
        if all(_has(fit.law, name) for fit in fits.values()):
            places = {skill: fit.law.positions(name)[0] for skill, fit in fits.items()}
            values = np.array([fit.q[places[skill]] for skill, fit in fits.items()])
            open_ = np.mean([unsure[skill][fits[skill].free.index(at)] for skill, at in places.items()])
            beliefs[name] = Prior(float(values.mean()), max(math.sqrt(float(values.var(ddof=1) + open_)), least))
    return beliefs


def _finished(
    name: str, fit: FitResult, points: RunData, setting: PredictionSetting, limit: Cutoff, near_duplicates: int
) -> Extrapolation:
    covariance, freedom = _covariance(fit, points)
    return Extrapolation(
        skill=name, setting=setting, fit=fit, points=points, covariance=covariance, freedom=freedom,
        effects=MixEffects(), noise=_noise(points, fit.residuals, fit.n_free), limit=limit,
        near_duplicates=near_duplicates,
    )  # fmt: skip


def _covariance(fit: FitResult, points: RunData) -> tuple[Array, float]:
    """Cluster-robust covariance of the free log-parameters, what is believed beforehand counted as a measurement."""
    codes = np.asarray(by_cluster(points).clusters)
    bread = sandwich(fit.problem(points), fit.q[list(fit.free)], codes, phi=fit.phi)
    return bread.covariance, bread.freedom


def by_cluster(points: RunData) -> RunData:
    """The same runs with the mixes as clusters where there are several runs of each: a mix's misfit recurs."""
    codes = mix_codes(points)
    if points.h is None or not _FEW_MIXES <= int(codes.max()) + 1 < points.n_clusters:
        return points
    names = mix_names(points.h)
    return replace(points, clusters=names, labels=names)


def _noise(points: RunData, errors: Array, n_free: int) -> float:
    """Sd of a finished run about the law, per degree of freedom that the runs leave.

    Of the larger half of the runs by 6 N D, which those to be predicted are more like: small runs on few tokens are
    further off any law.
    """
    C = points.N * points.D
    late = run_shares(points) >= LATE
    some = late & (np.median(C[late]) <= C) if late.sum() >= 2 * _FEW_ERRORS else late
    weights, n = np.asarray(points.weights)[some], points.n_clusters
    return math.sqrt(float(np.average(errors[some] ** 2, weights=weights)) * n / max(n - min(n_free, n - 1), 1))


def mix_effects(points: RunData, errors: Array) -> Array:
    """What each mix adds to ln L at every size, (n_mixes,): its mean error, shrunk by how little it recurs.

    Errors of late checkpoints, less the mean of their size, are averaged over each run; the share of their variance
    that recurs in a mix's runs is what is kept (best linear unbiased prediction). Empty where too few mixes were run
    twice to tell.
    """
    codes = mix_codes(points)
    of_run, mix_of_run = _run_errors(points, errors, codes)
    n_mixes = int(codes.max()) + 1
    spare = len(of_run) - n_mixes
    if n_mixes < _FEW_MIXES or spare < _FEW_MIXES // 2:
        return np.zeros(0)
    counts, means = np.bincount(mix_of_run, minlength=n_mixes), _mean_by(mix_of_run, of_run, n_mixes)
    within = float(((of_run - means[mix_of_run]) ** 2).sum()) / spare
    between = float(means.var(ddof=1)) - within * float(np.mean(1 / counts))
    return np.asarray(means * (between / (between + within / counts))) if between > 0 else np.zeros(0)


def _run_errors(points: RunData, errors: Array, mixes: Codes) -> tuple[Array, Codes]:
    """Mean late error of each run, less that of its size, and the mix of each run."""
    runs, late = np.asarray(points.clusters), run_shares(points) >= LATE
    sizes = np.unique(np.round(np.log(points.N), 3), return_inverse=True)[1]
    centred = errors - _mean_by(sizes[late], errors[late], int(sizes.max()) + 1)[sizes]
    mix_of_run = np.zeros(points.n_clusters, dtype=np.intp)
    mix_of_run[runs] = mixes
    return _mean_by(runs[late], centred[late], points.n_clusters), mix_of_run


def _mean_by(codes: Codes, values: Array, n: int) -> Array:
    counts = np.bincount(codes, minlength=n)
    return np.asarray(np.bincount(codes, weights=values, minlength=n) / np.maximum(counts, 1))


def excess_rate(told: Mapping[str, Extrapolation], held: Mapping[str, RunData]) -> float:
    """Discrepancy per unit of reach that explains what errors of predictions have beyond parameters and noise.

    Averaged over skills: one form misses alike in all of them, and one skill alone tells its size from one draw.
    """
    excess, reach = [], []
    for name, points in held.items():
        late, one = run_shares(points) >= LATE, told[name]
        over = (points.log_L - one.log_loss(points)) ** 2 - one.variance(points)
        excess.append(max(float(over[late].mean()), 0.0))
        reach.append(float((one.limit.reach(points)[late] ** 2).mean()))
    return math.sqrt(float(np.mean(excess)) / max(float(np.mean(reach)), 1e-300))


def with_discrepancy(told: Mapping[str, Extrapolation], rate: float) -> dict[str, Extrapolation]:
    """The same forecasts with a discrepancy per unit of reach."""
    return {name: replace(one, rate=rate) for name, one in told.items()}
