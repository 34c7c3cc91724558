"""The sampler for Optuna: ``parameters`` knows which of a study's parameters say what, ``adapter`` asks the design."""

from skillscale.sampler.adapter import PROPOSAL, WHY, SkillLawSampler, stop_when_done

__all__ = ["PROPOSAL", "WHY", "SkillLawSampler", "stop_when_done"]
