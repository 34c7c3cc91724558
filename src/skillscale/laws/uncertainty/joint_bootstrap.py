"""Draws of parameters that were fitted jointly: each resample changes the runs of all skills at once."""

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

MAX_EXACT_WORK = 20_000_000  # resamples x runs of all skills x unknowns up to which each resample is a full fit


@dataclass(frozen=True, kw_only=True)
class JointDraws:
    """Log-parameters (K, p) by skill. ``one_step``: each draw is one step of the curvature, not a full fit."""

    q: Mapping[str, Array] = field(repr=False)
    one_step: bool


def joint_bootstrap(
    joint: JointFit, data: Mapping[str, RunData], *, labels: Callable[[RunData], Labels],
    method: ResamplingMethod = ResamplingMethod.WILD, count: int, seed: int, one_step: bool | None = None,
) -> JointDraws:  # fmt: skip
    """Draw log-parameters of each skill from resamples of the runs that all skills share.

    Args:
        joint: joint fit.
        data: runs of each skill, in the order of the fit.
        labels: function that returns the cluster of each run; equal labels are resampled together in every skill.
        method: resampling method.
        count: number of resamples.
        seed: random seed.
        one_step: whether each resample takes one step of the joint curvature instead of a full fit. By default where
            full fits would be slow (above ``MAX_EXACT_WORK``).
    """
    _, codes = np.unique(np.concatenate([labels(runs) for runs in data.values()]), return_inverse=True)
    phi = math.exp(np.mean([math.log(max(fit.phi, 1e-300)) for fit in joint.fits.values()]))
    covariance = sandwich(joint.problem, joint.Q, codes, phi=phi)
    resamples = ClusterResamples.draw(
        np.concatenate([labels(runs) for runs in data.values()]), method, count=count, seed=seed
    )
    normal = np.random.default_rng([seed, 1]).normal(size=(count, len(joint.Q)))
    slow = count * len(codes) * len(joint.Q) > MAX_EXACT_WORK
    quick = method is not ResamplingMethod.LAPLACE and (slow if one_step is None else one_step)
    if quick or method is ResamplingMethod.LAPLACE:
        Q = _first_order(joint, resamples, covariance, normal)
    elif method is ResamplingMethod.WILD:
        Q = _refit_moved(joint, data, _first_order(joint, resamples, covariance, normal), phi)
    else:
        Q = _refit_counted(joint, resamples.for_clusters(resamples.labels), codes, covariance, normal, phi)
    q = {name: block.q(Q) for name, block in zip(data, joint.problem.blocks, strict=True)}
    return JointDraws(q=q, one_step=quick)


def _first_order(joint: JointFit, resamples: ClusterResamples, covariance: SandwichCovariance, normal: Array) -> Array:
    """Return unknowns (K, P) after one step of the curvature for each resample."""
    factors = resamples.factors(resamples.labels, covariance.degrees_of_freedom)
    return joint.Q + covariance.step(factors, normal)


def _refit_moved(joint: JointFit, data: Mapping[str, RunData], targets: Array, phi: float) -> Array:
    """Return unknowns (K, P) whose losses are nearest to those that ``targets`` (K, P) give to first order."""
    squares = {name: max(fit.noise, 1e-150) ** 2 for name, fit in joint.fits.items()}
    typical = math.exp(np.mean(np.log(list(squares.values()))))
    blocks = []
    for block, (name, runs) in zip(joint.problem.blocks, data.items(), strict=True):
        q = block.q(joint.Q[None])
        jac = block.law.jacobian(q, block.z)[0] @ block.T
        responses = block.law.log_loss(q, block.z) + (targets - joint.Q) @ jac.T
        weights = np.asarray(runs.weights) * (typical / squares[name])
        blocks.append(replace(block, responses=responses, weights=weights, objective=LEAST_SQUARES))
    precision = joint.problem.precision * (typical / phi)
    problem = FitProblem(blocks=tuple(blocks), mean=targets, precision=precision)
    return solve(problem, targets, typical=math.sqrt(typical), tolerance=REFINED * typical)[0]


def _refit_counted(
    joint: JointFit, counts: Array, codes: Codes, covariance: SandwichCovariance, normal: Array, phi: float
) -> Array:
    """Return unknowns (K, P) of fits where each run counts ``counts`` (K, n_labels) times."""
    blocks, first = [], 0
    for block in joint.problem.blocks:
        block_codes = codes[first : first + len(block.z)]
        first += len(block.z)
        blocks.append(replace(block, weights=counts[:, block_codes] * block.weights))
    shift = normal @ covariance.prior_root.T @ np.linalg.pinv(joint.problem.precision, hermitian=True)
    problem = replace(joint.problem, blocks=tuple(blocks), mean=joint.problem.mean + shift)
    typical = float(np.median([fit.noise for fit in joint.fits.values()]))
    return solve(problem, np.tile(joint.Q, (len(counts), 1)), typical=typical, tolerance=REFINED * phi)[0]
