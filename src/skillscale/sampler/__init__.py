"""The sampler for Optuna: ``parameters`` knows which of a study's parameters say what, ``adapter`` asks the design.

``dashboard`` draws for optuna-dashboard, where that is installed.
"""

from skillscale.sampler.dashboard import draw_widths
from skillscale.sampler.optuna_sampler import PROPOSAL, WHY, SkillLawSampler, is_beyond, stop_when_done

__all__ = ["PROPOSAL", "WHY", "SkillLawSampler", "draw_widths", "is_beyond", "stop_when_done"]
