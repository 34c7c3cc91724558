"""Few runs of skills that share parameters: the posterior of ``posterior``, Gaussian about the joint fit.

In: a joint fit and its runs. Out: draws of every skill's log-parameters, and what the runs and the priors say of them.
"""

from collections.abc import Mapping

import numpy as np

from skillscale.laws.fit.data import RunData, are_confounded
from skillscale.laws.fit.joint import JointFit
from skillscale.laws.forms.nd import Array
from skillscale.laws.uncertainty.posterior import (
    NOISES,
    ParameterInformation,
    covariance_parts,
    noise_given_runs,
    within_bounds,
)


def measure_joint_information(joint: JointFit, data: Mapping[str, RunData]) -> dict[str, ParameterInformation]:
    """Measure where the certainty of a joint fit comes from, by skill."""
    maps = _maps(joint, data)
    noise = {name: max(fit.noise, data[name].standard_error, float(NOISES[0])) for name, fit in joint.fits.items()}
    by_prior, by_data = covariance_parts(joint.fits, data, maps, noise)
    return {
        name: ParameterInformation(
            prior=T @ by_prior @ T.T, data=T @ by_data @ T.T, confounded=are_confounded(data[name].N, data[name].D)
        )
        for name, T in maps.items()
    }  # fmt: skip


def draw_joint_posterior(
    joint: JointFit, data: Mapping[str, RunData], *, count: int, seed: int
) -> tuple[dict[str, Array], dict[str, float]]:
    """Return log-parameters (count, p) and the noise of a run, by skill. Each draw has a noise of its own.

    Args:
        joint: joint fit.
        data: runs of each skill, in the order of the fit.
        count: number of draws.
        seed: random seed.
    """
    rng = np.random.default_rng([seed, 2])
    beliefs = {name: noise_given_runs(joint.fits[name], runs) for name, runs in data.items()}
    noise = {name: belief.middle for name, belief in beliefs.items()}
    by_prior, by_data = covariance_parts(joint.fits, data, _maps(joint, data), noise)
    # One scale for all skills: that of the skill whose noise is the least certain
    widest = max(beliefs.values(), key=lambda belief: belief.typical / belief.middle)
    scale = (widest.draw(rng, count) / widest.middle)[:, None]
    zero = np.zeros(len(joint.Q))
    moves = rng.multivariate_normal(zero, by_prior, size=count) + scale * rng.multivariate_normal(
        zero, by_data, size=count
    )
    draws = {
        name: within_bounds(block.law, block.q(joint.Q + moves), rng)
        for name, block in zip(data, joint.problem.blocks, strict=True)
    }
    return draws, {name: belief.typical for name, belief in beliefs.items()}


def _maps(joint: JointFit, data: Mapping[str, RunData]) -> dict[str, Array]:
    """Return the map from the unknowns to each skill's log-parameters, (p, P)."""
    return {name: block.T for name, block in zip(data, joint.problem.blocks, strict=True)}
