"""The sampler for Optuna: ``parameters`` knows which of a study's parameters say what, ``adapter`` asks the design.

``dashboard`` draws for optuna-dashboard, where that is installed.
"""

from skillscale.sampler.adapter import PROPOSAL, WHY, SkillLawSampler, is_beyond, stop_when_done
from skillscale.sampler.dashboard import draw_widths

__all__ = ["PROPOSAL", "WHY", "SkillLawSampler", "draw_widths", "is_beyond", "stop_when_done"]
