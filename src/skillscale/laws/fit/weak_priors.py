"""Weak priors of a law's parameters: what is assumed where runs determine too little.

In: a law bound to the centre of its runs, and the runs. Out: priors by name, or as means and standard deviations.
"""

import math

import numpy as np

from skillscale.errors import InputError
from skillscale.laws.fit.data import RunData
from skillscale.laws.forms.nd import Array, Law, Prior

# Exponents of published laws are within 0.2 to 0.6. Runs of three sizes determine them better than this prior.
EXPONENT_PRIORS = {"alpha": Prior(0.35, 0.15), "beta": Prior(0.35, 0.15)}
TERM_SD = 1.0  # ln: E and either term are a third of the loss at the centre, within a factor of 3 or so (assumption)
_TERM_NAMES = ("ln E", "ln A", "ln B", "ln A'", "ln B'")
_VAGUE = Prior(0.0, 3.0)  # of a log-parameter that no law has a prior for


def weak_priors(law: Law, runs: RunData) -> dict[str, Prior]:
    """Return weak priors for the law's parameters, which keep a prediction sensible where runs determine too little."""
    third = float(np.average(runs.log_L, weights=runs.weights)) - math.log(3)
    terms = {name: Prior(third, TERM_SD) for name in _TERM_NAMES if name in law.log_names}
    return terms | {name: prior for name, prior in EXPONENT_PRIORS.items() if has_parameter(law, name)}


def prior_moments(law: Law, runs: RunData) -> tuple[Array, Array]:
    """Return means and sds of all log-parameters, (p,) each: weak priors before those of the law."""
    weak = weak_priors(law, runs)
    by_position = dict(law.priors)
    for name, prior in weak.items():
        by_position[law.log_names.index(name) if name in law.log_names else law.positions(name)[0]] = prior
    priors = [by_position.get(at, _VAGUE) for at in range(len(law.log_names))]
    return np.array([prior.mean for prior in priors]), np.array([prior.sd for prior in priors])


def has_parameter(law: Law, name: str) -> bool:
    """Check whether one log-parameter alone decides a parameter of that name."""
    try:
        return name in law.parameters and bool(law.positions(name))
    except InputError:
        return False
