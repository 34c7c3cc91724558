"""Losses from a Python function of the user's: load the function, check what it returns, describe what it raises.

``sample --trainer`` makes runs with such a function, and ``simulate --truth`` tries designs on one. Both have the
contract ``(n_params, n_tokens, mix, seed) -> {skill: loss or (loss, sem)}``. ``mix`` is ``{category: share}``, empty
without mixes. Losses are in nats per token.
"""

import importlib.util
import math
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from skillscale.errors import InputError
from skillscale.formatting import shorten

CONTRACT = "{skill: loss} or {skill: (loss, sem)} in nats per token, with the same skills for every run"
Loss = tuple[float, float]  # nats per token, and standard error, NaN where unknown
_LETTERS_SHOWN = 80


class BadLossesError(ValueError):
    """The value that a user's function returned breaks the contract. The message begins with ``returned``."""


def load_module(path: Path, *, importable: bool = False) -> ModuleType:
    """Run a Python file as a module.

    Args:
        path: Python file.
        importable: whether processes that the file starts can import it by its name, and whether its functions can
            import the modules of its folder later. While the file itself runs, it can import them in any case.

    Raises:
        InputError: the path is no Python file.
        Exception: what the file raises.
    """
    name = path.stem if importable else f"skillscale_user_{path.stem}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise InputError("the path is no Python file (.py)")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    folder = str(path.parent.resolve())
    sys.path.insert(0, folder)
    try:
        spec.loader.exec_module(module)
    finally:
        if not importable and folder in sys.path:
            sys.path.remove(folder)
    return module


def load_function(path: Path, name: str) -> Callable[..., Any]:
    """Run a Python file in a process of its own, and return one of its functions.

    Raises:
        InputError: the file has no such function.
        Exception: what the file raises.
    """
    function = getattr(load_module(path, importable=True), name, None)
    if not callable(function):
        raise InputError(f"{path.name} has no function {name!r}")
    return function  # type: ignore[no-any-return]


def check_losses(returned: object, skills: Sequence[str] = ()) -> dict[str, Loss]:
    """Return loss and standard error by skill, from the value that a function returned.

    Args:
        returned: value of the function.
        skills: skills that it must have, in this order. Empty: any.

    Raises:
        BadLossesError: the value breaks the contract.
    """
    if not isinstance(returned, Mapping) or not returned:
        raise BadLossesError(f"returned {_shown(returned)}. Return {CONTRACT}")
    by_name = {str(name): value for name, value in returned.items()}
    missing = [name for name in skills if name not in by_name]
    foreign = [name for name in by_name if skills and name not in skills]
    if missing or foreign:
        parts = [f"no loss of {', '.join(missing)}"] * bool(missing)
        parts += [f"a loss of {', '.join(foreign)}, which is not among the skills"] * bool(foreign)
        raise BadLossesError(f"returned {' and '.join(parts)}. Return a loss of each of {', '.join(skills)}, no others")
    return {name: _check_loss(name, by_name[name]) for name in skills or by_name}


def describe_error(error: BaseException) -> str:
    """Return what a function did: ``raised OSError: disk full (train.py, line 7)``."""
    if isinstance(error, BadLossesError):
        return str(error)
    last = traceback.extract_tb(error.__traceback__)[-1:]
    place = "".join(f" ({Path(frame.filename).name}, line {frame.lineno})" for frame in last)
    return f"raised {type(error).__name__}: {error}{place}"


def _check_loss(skill: str, value: object) -> Loss:
    loss, sem = value if isinstance(value, tuple | list) and len(value) == 2 else (value, math.nan)
    if any(isinstance(part, bool | np.bool_) for part in (loss, sem)):
        raise BadLossesError(f"returned {_shown(value)} for {skill}. Return a loss above 0 or (loss, sem)")
    try:
        numbers = float(loss), math.nan if sem is None else float(sem)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        raise BadLossesError(f"returned {_shown(value)} for {skill}. Return a loss above 0 or (loss, sem)") from None
    if not (math.isfinite(numbers[0]) and numbers[0] > 0):
        raise BadLossesError(f"returned a loss of {numbers[0]} for {skill}. Return a number above 0")
    if numbers[1] < 0 or math.isinf(numbers[1]):
        raise BadLossesError(f"returned a sem of {numbers[1]} for {skill}. Return a number from 0")
    return numbers


def _shown(value: object) -> str:
    return shorten(repr(value), _LETTERS_SHOWN)
