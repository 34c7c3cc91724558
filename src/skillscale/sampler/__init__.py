"""The sampler for Optuna studies, and the sampling problem of skillscale's studies.

``optuna_sampler`` links Optuna to ``skillscale.design``, and ``search_space`` maps Optuna's parameters to runs.
``dashboard`` draws for optuna-dashboard. ``study`` does the same for ``sample`` and ``suggest``.
"""

from skillscale.sampler.dashboard import draw_widths
from skillscale.sampler.optuna_sampler import PROPOSAL, WHY, SkillLawSampler, is_beyond, stop_when_done

__all__ = ["PROPOSAL", "WHY", "SkillLawSampler", "draw_widths", "is_beyond", "stop_when_done"]
