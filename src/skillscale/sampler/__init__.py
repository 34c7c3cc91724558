"""The sampler for Optuna studies, and the sampling problem of skillscale's studies.

``optuna_sampler`` links Optuna to ``skillscale.design``, and ``search_space`` maps Optuna's parameters to runs.
``dashboard`` draws for optuna-dashboard. ``study`` does the same for ``sample`` and ``suggest``.
"""

import importlib
from typing import Any

_MODULES = {
    "draw_widths": "dashboard",
    "PROPOSAL": "optuna_sampler",
    "WHY": "optuna_sampler",
    "SkillLawSampler": "optuna_sampler",
    "is_beyond": "optuna_sampler",
    "stop_when_done": "optuna_sampler",
}
__all__ = list(_MODULES)


def __getattr__(name: str) -> Any:
    """Import Optuna when it is first needed: ``suggest`` works without it."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)
