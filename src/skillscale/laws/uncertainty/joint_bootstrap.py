"""Draws of parameters that were fitted jointly over skills: each resample befalls the runs of all skills at once."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from skillscale.laws.fit.data import RunData
from skillscale.laws.fit.fit import REFINED, solve
from skillscale.laws.fit.joint import JointFit
from skillscale.laws.fit.newton import FitProblem
from skillscale.laws.fit.objective import LEAST_SQUARES
from skillscale.laws.forms.nd import Array
from skillscale.laws.uncertainty.bootstrap import (
    ClusterResamples,
    Codes,
    Labels,
    ResamplingMethod,
    SandwichCovariance,
    sandwich,
)

EXACT = 20_000_000  # resamples x runs of all skills x unknowns up to which each resample is followed to its minimum


@dataclass(frozen=True, kw_only=True)
class JointDraws:
    """Log-parameters (K, p) by skill, and whether they are one step of the curvature each, not a fit each."""

    q: Mapping[str, Array] = field(repr=False)
    one_step: bool


def joint_bootstrap(
    joint: JointFit, data: Mapping[str, RunData], *, labels: Callable[[RunData], Labels], method: ResamplingMethod = ResamplingMethod.WILD,
    count: int, seed: int, one_step: bool | None = None,
) -> JointDraws:  # fmt: skip
    """Log-parameters of each skill from resamples of the runs that all skills share.

    Args:
        joint: the fit.
        data: each skill's runs, in the fit's order.
        labels: of what the runs of a skill are resampled with; alike ones are resampled together in every skill.
        method: how to resample.
        count: resamples.
        seed: of chance.
        one_step: whether resamples take one step of the joint curvature instead of their whole way; by default where
            the whole way would be long (above ``EXACT``).
    """
    _, codes = np.unique(np.concatenate([labels(points) for points in data.values()]), return_inverse=True)
    phi = math.exp(np.mean([math.log(max(fit.phi, 1e-300)) for fit in joint.fits.values()]))
    bread = sandwich(joint.problem, joint.Q, codes, phi=phi)
    luck = ClusterResamples.draw(
        np.concatenate([labels(points) for points in data.values()]), method, count=count, seed=seed
    )
    normal = np.random.default_rng([seed, 1]).normal(size=(count, len(joint.Q)))
    long = count * len(codes) * len(joint.Q) > EXACT
    quick = method is not ResamplingMethod.LAPLACE and (long if one_step is None else one_step)
    if quick or method is ResamplingMethod.LAPLACE:
        Q = joint.Q + bread.step(luck.factors(luck.labels, bread.freedom), normal)
    elif method is ResamplingMethod.WILD:
        Q = _moved(joint, data, joint.Q + bread.step(luck.factors(luck.labels, bread.freedom), normal), phi)
    else:
        Q = _recounted(joint, luck.of(luck.labels), codes, bread, normal, phi)
    q = {name: part.q(Q) for name, part in zip(data, joint.problem.parts, strict=True)}
    return JointDraws(q=q, one_step=quick)


def _moved(joint: JointFit, data: Mapping[str, RunData], goals: Array, phi: float) -> Array:
    """Unknowns (K, P) whose losses are the nearest to those that ``goals`` (K, P) promise to first order."""
    squares = {name: max(fit.noise, 1e-150) ** 2 for name, fit in joint.fits.items()}
    typical = math.exp(np.mean(np.log(list(squares.values()))))
    parts = []
    for part, (name, points) in zip(joint.problem.parts, data.items(), strict=True):
        q = part.q(joint.Q[None])
        promised = part.law.log_loss(q, part.z) + (goals - joint.Q) @ (part.law.jacobian(q, part.z)[0] @ part.T).T
        weights = np.asarray(points.weights) * (typical / squares[name])
        parts.append(replace(part, responses=promised, weights=weights, objective=LEAST_SQUARES))
    precision = joint.problem.precision * (typical / phi)
    problem = FitProblem(parts=tuple(parts), mean=goals, precision=precision)
    return solve(problem, goals, typical=math.sqrt(typical), enough=REFINED * typical)[0]


def _recounted(
    joint: JointFit, counts: Array, codes: Codes, bread: SandwichCovariance, normal: Array, phi: float
) -> Array:
    """Unknowns (K, P) of fits to the runs, each counted as often as ``counts`` (K, n_labels) says."""
    parts, first = [], 0
    for part in joint.problem.parts:
        own = codes[first : first + len(part.z)]
        first += len(part.z)
        parts.append(replace(part, weights=counts[:, own] * part.weights))
    pulled = normal @ bread.beliefs.T @ np.linalg.pinv(joint.problem.precision, hermitian=True)
    problem = replace(joint.problem, parts=tuple(parts), mean=joint.problem.mean + pulled)
    typical = float(np.median([fit.noise for fit in joint.fits.values()]))
    return solve(problem, np.tile(joint.Q, (len(counts), 1)), typical=typical, enough=REFINED * phi)[0]
