"""The sampler of skillscale as a module of OptunaHub's layout; all of it is in ``skillscale.sampler``."""

from skillscale.sampler import SkillLawSampler, draw_widths, is_beyond, stop_when_done

__all__ = ["SkillLawSampler", "draw_widths", "is_beyond", "stop_when_done"]
