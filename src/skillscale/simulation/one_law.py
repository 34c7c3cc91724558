"""One law fitted to one skill of a history: ``drifting``, or ``effective_data`` where the mix differs."""

import numpy as np

from skillscale.design.space import DesignSpace, RunHistory
from skillscale.errors import FitError
from skillscale.laws.fit.data import RunData
from skillscale.laws.fit.fit import FitResult, fit_law
from skillscale.laws.forms.catalogue import LAWS
from skillscale.laws.forms.nd import Prior

_BELIEFS = {"alpha": Prior(0.36, 0.1), "beta": Prior(0.36, 0.1)}  # as fits of language models have them


def fit_one(
    history: RunHistory, space: DesignSpace, skill: str, *, starts: int = 2
) -> tuple[FitResult, RunData] | None:
    """The fit and its runs; None where the runs can't carry the law."""
    rows = history.measured(skill)
    mixed = space.n_mixes > 1 and history.h is not None
    if not rows.any():
        return None
    points = RunData(
        N=history.N[rows], D=history.D[rows], L=np.exp(history.log_L[skill][rows]),
        h=history.h[rows] if mixed and history.h is not None else None, categories=space.categories if mixed else (),
    )  # fmt: skip
    law = LAWS["effective_data" if mixed else "drifting"]
    beliefs = _BELIEFS | {law.log_names[at]: prior for at, prior in law.priors.items()}
    try:
        return fit_law(points, law=law, objective=None, starts=starts, priors=beliefs), points
    except FitError:
        return None
