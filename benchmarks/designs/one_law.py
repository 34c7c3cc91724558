"""A fit of one law to one skill of a history: ``drifting``, or ``effective_data`` where mixes differ."""

import numpy as np

from skillscale.design.space import DesignSpace, RunHistory
from skillscale.errors import FitError
from skillscale.laws.fit.data import RunData
from skillscale.laws.fit.fit import FitResult, fit_law
from skillscale.laws.forms.catalogue import LAWS
from skillscale.laws.forms.nd import Prior

_PRIORS = {"alpha": Prior(0.36, 0.1), "beta": Prior(0.36, 0.1)}  # about published fits of language models


def fit_one_law(
    history: RunHistory, space: DesignSpace, skill: str, *, starts: int = 2
) -> tuple[FitResult, RunData] | None:
    """Return the fit and its runs; None where the runs do not determine the law."""
    rows = history.measured(skill)
    mixed = space.n_mixes > 1 and history.h is not None
    if not rows.any():
        return None
    points = RunData(
        N=history.N[rows], D=history.D[rows], L=np.exp(history.log_L[skill][rows]),
        h=history.h[rows] if mixed and history.h is not None else None, categories=space.categories if mixed else (),
    )  # fmt: skip
    law = LAWS["effective_data" if mixed else "drifting"]
    priors = _PRIORS | {law.log_names[at]: prior for at, prior in law.priors.items()}
    try:
        return fit_law(points, law=law, objective=None, starts=starts, priors=priors), points
    except FitError:
        return None
