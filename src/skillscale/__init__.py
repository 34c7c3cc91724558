"""skillscale: scaling laws per skill, from small training runs to a plan for large ones."""

import importlib
from typing import Any

__version__ = "0.2.0"
_INTERFACE = {"runs": "skillscale.api.sources", "fit": "skillscale.api.skill_laws"}


def __getattr__(name: str) -> Any:
    """Import a function of the interface when it is first used."""
    if name not in _INTERFACE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_INTERFACE[name]), name)


def __dir__() -> list[str]:
    return ["__version__", *_INTERFACE]
