"""Extrapolate to larger runs: a law, mix offsets, and prediction intervals (parameters, noise, model discrepancy).

In: runs of each skill, a ``PredictionSetting`` and a cutoff. Out: an ``Extrapolation`` per skill.

The interval of a new run has three parts. The parameters: the misfit of a mix recurs at every size, so runs of one mix
are one cluster. The noise of a run. A discrepancy that grows with the distance beyond the fitted runs: it is estimated
from how far predictions of the largest of *those* missed, beyond the other parts (``estimate_discrepancy_rate``).
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np
from scipy.stats import t as student_t

from skillscale.laws.fit.data import RunData
from skillscale.laws.fit.fit import FitResult, efficient_objective, fit_law
from skillscale.laws.fit.joint import fit_skills
from skillscale.laws.fit.mix_effects import MixEffects, mix_names
from skillscale.laws.fit.objective import Objective
from skillscale.laws.fit.weak_priors import has_parameter, weak_priors
from skillscale.laws.forms.nd import Array, Law, Prior
from skillscale.laws.selection.holdout import Cutoff, checkpoint_weights, mix_codes, run_shares, without_early
from skillscale.laws.uncertainty.bootstrap import Codes, sandwich

POOLING_SD = {"alpha": 0.02, "beta": 0.02, "g": 0.02, "k": 0.05}  # least prior sd of a pooled parameter
LATE = 0.4  # share of a run's last D from which its errors are those of a finished run
_PILOT = Objective(delta=0.02)  # objective of the pilot fit, before the noise is estimated
_STARTS = 2
_FEW_ERRORS = 8  # fewer give no noise estimate
_FEW_MIXES = 10  # fewer clusters give no reliable interval
_MAX_SD = 0.5  # largest sd of ln L from the parameters; beyond it the linear approximation fails


@dataclass(frozen=True, kw_only=True)
class PredictionSetting:
    """Options of a prediction. ``min_run_share``: checkpoints before this share of their run's last D are excluded.

    Every setting has weak priors of exponents and terms (``weak_priors``), except for laws of all skills. ``effects``:
    whether the offsets of mixes in smaller runs are added. ``pooled``: whether the skills' exponents are partially
    pooled, by as much as they scatter. ``objective``: of the fit; None: Huber with delta twice the noise.
    """

    law: Law
    min_run_share: float = 0.0
    effects: bool = False
    pooled: bool = False
    objective: Objective | None = None

    @property
    def name(self) -> str:
        """Description in words."""
        parts = [self.law.name]
        parts += [f"after {100 * self.min_run_share:.0f} % of each run"] if self.min_run_share else []
        parts += [] if self.law.joint else ["weak priors"]
        parts += ["exponents pooled"] if self.pooled else []
        parts += ["mix effects"] if self.effects else []
        return ", ".join(parts)


@dataclass(frozen=True, kw_only=True)
class Extrapolation:
    """A skill's law, fitted for extrapolation.

    ``runs``: runs that it was fitted to. ``covariance``: of the free log-parameters, with ``degrees_of_freedom``.
    ``effects``: offset of each mix (empty: none). ``noise``: sd of a new run in ln L. ``discrepancy_rate``: ln L per
    unit of ``cutoff.log_distance``. ``near_duplicates``: number of checkpoints that weigh as one with another.
    """

    skill: str
    setting: PredictionSetting
    fit: FitResult
    runs: RunData = field(repr=False)
    covariance: Array = field(repr=False)
    degrees_of_freedom: float
    effects: MixEffects = field(repr=False)
    noise: float
    cutoff: Cutoff
    discrepancy_rate: float = 0.0
    near_duplicates: int = 0

    def log_loss(self, where: RunData) -> Array:
        """Predict ln L at the N, D and mix of some runs, (n,). Their losses are not used."""
        law = self.fit.law
        log_loss = law.log_loss(self.fit.q[None], where.covariates(law))[0]
        return np.asarray(log_loss + self.effects.offsets_for(where.h, len(where)))

    def variance(self, where: RunData) -> Array:
        """Return the variance of ln L of a new run, without the discrepancy, (n,), to first order."""
        law = self.fit.law
        jac = law.jacobian(self.fit.q[None], where.covariates(law))[0][:, list(self.fit.free)]
        variance = np.einsum("np,pq,nq->n", jac, self.covariance, jac)
        return np.asarray(np.minimum(variance, _MAX_SD**2) + self.noise**2)

    def sd(self, where: RunData) -> Array:
        """Return the sd of ln L of a new run, (n,)."""
        return np.sqrt(self.variance(where) + (self.discrepancy_rate * self.cutoff.log_distance(where)) ** 2)

    def interval(self, where: RunData, level: float) -> tuple[Array, Array]:
        """Return both ends of the two-sided interval of ln L of a new run, each (n,)."""
        half = float(student_t.ppf((1 + level) / 2, self.degrees_of_freedom)) * self.sd(where)
        middle = self.log_loss(where)
        return middle - half, middle + half

    def draws(self, where: RunData, *, count: int, rng: np.random.Generator) -> Array:
        """Draw ln L of new runs, (count, n), independently for each run."""
        return self.log_loss(where) + self.sd(where) * rng.standard_t(self.degrees_of_freedom, size=(count, len(where)))

    def with_effects(self) -> "Extrapolation":
        """Return the extrapolation with mix offsets, and with the noise that remains."""
        errors = self.fit.residuals
        effects = mix_effects(self.runs, errors)
        if not len(effects):
            return self
        codes = mix_codes(self.runs)
        noise = _noise(self.runs, errors - effects[codes], self.fit.n_free)
        mixes = np.asarray(self.runs.h)[np.unique(codes, return_index=True)[1]]
        offsets = MixEffects(categories=self.runs.categories, mixes=mixes, offsets=effects)
        return replace(self, effects=offsets, noise=noise, setting=replace(self.setting, effects=True))


def extrapolate(
    data: Mapping[str, RunData], setting: PredictionSetting, cutoff: Cutoff, *, starts: int = 1
) -> dict[str, Extrapolation]:
    """Fit every skill under one setting.

    Args:
        data: runs of each skill, all at or below the cutoff.
        setting: options of the prediction.
        cutoff: cutoff beyond which runs are to be predicted.
        starts: starts of each fit. 1: from the pilot fit that estimated the noise, which is enough to try a setting.

    Raises:
        FitError: the runs of a skill can't determine the law.
        InputError: the law needs a mix that the runs don't have.
    """
    kept, near_duplicates = {}, {}
    for name, runs in data.items():
        kept[name], near_duplicates[name] = checkpoint_weights(without_early(runs, setting.min_run_share))
    setting = replace(setting, pooled=setting.pooled and len(data) > 1)
    fits = _fit_setting(kept, setting, starts)
    results = {
        name: _extrapolation(name, fits[name], runs, replace(setting, effects=False), cutoff, near_duplicates[name])
        for name, runs in kept.items()
    }
    if setting.effects:
        return {name: extrapolation.with_effects() for name, extrapolation in results.items()}
    return results


def pool_exponents(extrapolations: Mapping[str, Extrapolation]) -> dict[str, Extrapolation]:
    """Refit extrapolations without mix effects, with a prior of the exponents: their mean and scatter over skills."""
    fits = _pooled_fits(
        {name: extrapolation.runs for name, extrapolation in extrapolations.items()},
        {name: extrapolation.fit for name, extrapolation in extrapolations.items()},
    )
    return {
        name: _extrapolation(
            name,
            fits[name],
            extrapolation.runs,
            replace(extrapolation.setting, pooled=True),
            extrapolation.cutoff,
            extrapolation.near_duplicates,
        )
        for name, extrapolation in extrapolations.items()
    }


def _fit_setting(data: Mapping[str, RunData], setting: PredictionSetting, starts: int) -> dict[str, FitResult]:
    if setting.law.joint:
        return dict(fit_skills(data, law=setting.law, objective=setting.objective).fits)
    fits = {}
    for name, runs in data.items():
        fits[name] = _fit_alone(runs, runs.bind(setting.law).for_skill(name), setting.objective, starts)
    return _pooled_fits(data, fits, starts) if setting.pooled else fits


def _fit_alone(runs: RunData, law: Law, objective: Objective | None, starts: int) -> FitResult:
    """Fit with the given objective; else with the efficient Huber loss, after a pilot fit that estimates the noise."""
    priors = weak_priors(law, runs)
    if objective is not None:
        return fit_law(runs, law=law, objective=objective, starts=max(starts, _STARTS), priors=priors)
    pilot = fit_law(runs, law=law, objective=_PILOT, starts=_STARTS, priors=priors)
    starting_points = pilot.q[None] if starts == 1 else None
    return fit_law(
        runs,
        law=law,
        objective=efficient_objective(pilot.noise),
        starts=starts,
        starting_points=starting_points,
        priors=priors,
    )


def _pooled_fits(data: Mapping[str, RunData], fits: Mapping[str, FitResult], starts: int = 1) -> dict[str, FitResult]:
    scatter = _pooling_priors(data, fits)
    return {
        name: fit_law(
            data[name], law=fit.law, objective=fit.objective, starts=starts,
            starting_points=fit.q[None] if starts == 1 else None,
            priors=weak_priors(fit.law, data[name]) | scatter,
        )
        for name, fit in fits.items()
    }  # fmt: skip


def _pooling_priors(data: Mapping[str, RunData], fits: Mapping[str, FitResult]) -> dict[str, Prior]:
    """Return mean and sd over skills of the pooled parameters, in units of q.

    The uncertainty of each estimate counts as scatter too: estimates that a weak prior has drawn together agree only
    because of it.
    """
    priors = {}
    variances = {name: np.diag(_covariance(fit, data[name])[0]) for name, fit in fits.items()}
    for name, least in POOLING_SD.items():
        if all(has_parameter(fit.law, name) for fit in fits.values()):
            places = {skill: fit.law.positions(name)[0] for skill, fit in fits.items()}
            values = np.array([fit.q[places[skill]] for skill, fit in fits.items()])
            uncertainty = np.mean([variances[skill][fits[skill].free.index(at)] for skill, at in places.items()])
            priors[name] = Prior(float(values.mean()), max(math.sqrt(float(values.var(ddof=1) + uncertainty)), least))
    return priors


def _extrapolation(
    name: str, fit: FitResult, runs: RunData, setting: PredictionSetting, cutoff: Cutoff, near_duplicates: int
) -> Extrapolation:
    covariance, degrees_of_freedom = _covariance(fit, runs)
    return Extrapolation(
        skill=name, setting=setting, fit=fit, runs=runs, covariance=covariance, degrees_of_freedom=degrees_of_freedom,
        effects=MixEffects(), noise=_noise(runs, fit.residuals, fit.n_free), cutoff=cutoff,
        near_duplicates=near_duplicates,
    )  # fmt: skip


def _covariance(fit: FitResult, runs: RunData) -> tuple[Array, float]:
    """Return the cluster-robust covariance of the free log-parameters. A prior counts as a measurement."""
    codes = np.asarray(by_cluster(runs).clusters)
    covariance = sandwich(fit.build_problem(runs), fit.q[list(fit.free)], codes, phi=fit.phi)
    return covariance.covariance, covariance.degrees_of_freedom


def by_cluster(runs: RunData) -> RunData:
    """Return the runs with mixes as clusters where each mix has several runs, because the misfit of a mix recurs."""
    codes = mix_codes(runs)
    if runs.h is None or not _FEW_MIXES <= int(codes.max()) + 1 < runs.n_clusters:
        return runs
    names = mix_names(runs.h)
    return replace(runs, clusters=names, labels=names)


def _noise(runs: RunData, errors: Array, n_free: int) -> float:
    """Return the sd of a finished run about the law, per degree of freedom that the runs leave.

    It is taken over the larger half of the runs by 6 N D, which the runs to predict resemble more. Small runs on few
    tokens are further from any law.
    """
    C = runs.N * runs.D
    late = run_shares(runs) >= LATE
    used = late & (np.median(C[late]) <= C) if late.sum() >= 2 * _FEW_ERRORS else late
    weights, n = np.asarray(runs.weights)[used], runs.n_clusters
    return math.sqrt(float(np.average(errors[used] ** 2, weights=weights)) * n / max(n - min(n_free, n - 1), 1))


def mix_effects(runs: RunData, errors: Array) -> Array:
    """Estimate the offset of ln L of each mix, (n_mixes,): its mean error, shrunk by how little it recurs.

    Errors of late checkpoints, minus the mean of their size, are averaged over each run. The estimate keeps the share
    of their variance that recurs in the runs of a mix (best linear unbiased prediction). Empty where too few mixes were
    run twice.
    """
    codes = mix_codes(runs)
    run_errors, mix_of_run = _run_errors(runs, errors, codes)
    n_mixes = int(codes.max()) + 1
    spare = len(run_errors) - n_mixes
    if n_mixes < _FEW_MIXES or spare < _FEW_MIXES // 2:
        return np.zeros(0)
    counts, means = np.bincount(mix_of_run, minlength=n_mixes), _mean_by(mix_of_run, run_errors, n_mixes)
    within = float(((run_errors - means[mix_of_run]) ** 2).sum()) / spare
    between = float(means.var(ddof=1)) - within * float(np.mean(1 / counts))
    return np.asarray(means * (between / (between + within / counts))) if between > 0 else np.zeros(0)


def _run_errors(runs: RunData, errors: Array, mix_codes_of_rows: Codes) -> tuple[Array, Codes]:
    """Return the mean late error of each run, minus that of its size, and the mix of each run."""
    codes, late = np.asarray(runs.clusters), run_shares(runs) >= LATE
    sizes = np.unique(np.round(np.log(runs.N), 3), return_inverse=True)[1]
    centred = errors - _mean_by(sizes[late], errors[late], int(sizes.max()) + 1)[sizes]
    mix_of_run = np.zeros(runs.n_clusters, dtype=np.intp)
    mix_of_run[codes] = mix_codes_of_rows
    return _mean_by(codes[late], centred[late], runs.n_clusters), mix_of_run


def _mean_by(codes: Codes, values: Array, n: int) -> Array:
    counts = np.bincount(codes, minlength=n)
    return np.asarray(np.bincount(codes, weights=values, minlength=n) / np.maximum(counts, 1))


def estimate_discrepancy_rate(extrapolations: Mapping[str, Extrapolation], held: Mapping[str, RunData]) -> float:
    """Estimate the discrepancy per unit of distance that explains prediction errors beyond parameters and noise.

    It is averaged over skills: one form misses in a similar way in all of them, and one skill gives a single draw.
    """
    excess, reach = [], []
    for name, runs in held.items():
        late, extrapolation = run_shares(runs) >= LATE, extrapolations[name]
        excess_error = (runs.log_L - extrapolation.log_loss(runs)) ** 2 - extrapolation.variance(runs)
        excess.append(max(float(excess_error[late].mean()), 0.0))
        reach.append(float((extrapolation.cutoff.log_distance(runs)[late] ** 2).mean()))
    return math.sqrt(float(np.mean(excess)) / max(float(np.mean(reach)), 1e-300))


def with_discrepancy(extrapolations: Mapping[str, Extrapolation], discrepancy_rate: float) -> dict[str, Extrapolation]:
    """Return the extrapolations with a discrepancy per unit of distance."""
    return {
        name: replace(extrapolation, discrepancy_rate=discrepancy_rate)
        for name, extrapolation in extrapolations.items()
    }
