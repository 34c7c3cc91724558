"""A truth of every law, and runs to plant it on: what the tests of laws share."""

import numpy as np

from skillscale.laws.fit.data import RunData
from skillscale.laws.forms.catalogue import LAWS
from skillscale.laws.forms.nd import Array, Law

CATEGORIES = ("code", "prose", "wiki")
CENTRE = (np.log(4e4), np.log(6e5))
_BASE = [1.8, 477.0, 2143.0, 0.347, 0.367]
_SMALL = [1.8, 0.5, 0.6, 0.4, 0.37]  # A and B in nats at the centre
THETA: dict[str, list[float]] = {
    "chinchilla": _BASE,
    "coupled": [*_BASE, 0.8],
    "drifting": [*_SMALL, 0.8, 0.03],
    "farseer": [-2.0, -1.0, -0.12, 13.0, -1.5, -0.1, 2.5, -1.0, -0.05],
    "effective_data": [*_BASE, 1.6, 0.4, 1.0],
    "additive_mixture": [*_BASE, 3.0, 1.0, 2.0, 0.5, 0.8, 0.4],
    "joint_mixture": [*_BASE, 3.0, 1.0, 2.0, 0.5, 0.8, 0.4, 1.5, 0.5, 1.0, 0.6, 1.4, 1.0, 0.3, 0.2],
    "separable": [*_SMALL, 0.02, 0.3, -0.2, -0.1, 0.1],
    "separable_transient": [*_SMALL, 0.02, 0.3, -0.2, -0.1, 0.1, 0.8, 7.0, 0.1],
    "capacity_competition": [1.2, 1.5, 1.0, 40.0, 20.0, 30.0, 0.4, 0.35, 0.38, 90.0, 120.0, 60.0, 0.4, 0.42, 0.37],
}


def bound(name: str) -> Law:
    """The law of that name about the centre of the runs, as the law of code."""
    return LAWS[name].bind(*CENTRE, CATEGORIES).for_skill("code")


def truth(name: str) -> Array:
    return np.array(THETA[name])


def scattered(law: Law, theta: Array, *, n: int = 90, noise: float = 0.0, seed: int = 0) -> RunData:
    """Runs over +-16x in N and D and all mixes, with the law's losses."""
    rng = np.random.default_rng(seed)
    N, D = (np.exp(centre + rng.uniform(-np.log(16), np.log(16), n)) for centre in CENTRE)
    h = rng.dirichlet(np.ones(len(CATEGORIES)), n)
    L = law.loss(theta, N, D, h) * np.exp(noise * rng.normal(size=n))
    return RunData(N=N, D=D, L=L, h=h, categories=CATEGORIES)
