"""A Python file in which somebody tells what runs give: ``losses``, and perhaps where the optima are: ``optimum``.

def losses(n_params, n_tokens, mix, seed):    # int, int, {category: share} ({} without mixes), int
    return {"code": 2.31, "prose": (2.80, 0.01)}    # nats per token, with a standard error or without

def optimum(skill, flops, mix):    # N that minimises the loss of a skill at 6 N D = flops
    return 1.2e8
"""

import importlib.util
import itertools
import math
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from skillscale.errors import InputError
from skillscale.formatting import shorten

_WANTED = "let it return {skill: loss} or {skill: (loss, sem)} in nats per token, the same skills for every run"
Loss = tuple[float, float]  # nats per token and its standard error, 0 where it is not told


@dataclass(frozen=True, kw_only=True)
class GroundTruthFile:
    """The functions of a file. ``skills``: what ``losses`` told at its first call, which every other must tell."""

    path: Path
    tell: Callable[..., Any]
    place: Callable[..., Any] | None = None
    skills: tuple[str, ...] = ()

    def of_skills(self, skills: tuple[str, ...]) -> "GroundTruthFile":
        """The same, every run of which must tell these skills."""
        return replace(self, skills=skills)

    def losses(self, n_params: float, n_tokens: float, mix: Mapping[str, float], seed: int) -> dict[str, Loss]:
        """Loss and standard error by skill.

        Raises:
            InputError: the function raises, or tells something that is no loss of each skill.
        """
        given = {"n_params": round(n_params), "n_tokens": round(n_tokens), "mix": dict(mix), "seed": int(seed)}
        told = self._call(self.tell, "losses", given)
        if not isinstance(told, Mapping) or not told:
            raise self._bad("losses", given, f"returned {shorten(repr(told))}; {_WANTED}")
        found = {str(name): self._loss(str(name), value, given) for name, value in told.items()}
        for what, names in (
            ("lacks", [name for name in self.skills if name not in found]),
            ("tells", [name for name in found if self.skills and name not in self.skills]),
        ):
            if names:
                raise self._bad(
                    "losses", given,
                    f"{what} the skill {', '.join(names)}, where another call told {', '.join(self.skills)}; {_WANTED}",
                )  # fmt: skip
        return found

    def optimum(self, skill: str, flops: float, mix: Mapping[str, float]) -> float:
        """N of the optimum, by the file's own word.

        Raises:
            InputError: the function raises, or tells no size.
        """
        assert self.place is not None
        given = {"skill": skill, "flops": float(flops), "mix": dict(mix)}
        told = self._call(self.place, "optimum", given)
        number = _number(told)
        if not (math.isfinite(number) and number > 0):
            raise self._bad(
                "optimum", given, f"returned {shorten(repr(told))}; let it return n_params, a number above 0"
            )
        return number

    def _loss(self, name: str, value: Any, given: Mapping[str, Any]) -> Loss:
        pair = tuple(value) if isinstance(value, Sequence) and not isinstance(value, str) else (value, 0.0)
        numbers = tuple(_number(one) for one in pair)
        if len(numbers) == 2 and 0 < numbers[0] < math.inf and 0 <= numbers[1] < math.inf:
            return numbers[0], numbers[1]
        raise self._bad(
            "losses", given, f"returned {shorten(repr(value))} for {name}; let it return a loss above 0, or (loss, sem)"
        )

    def _call(self, function: Callable[..., Any], name: str, given: Mapping[str, Any]) -> Any:
        try:
            return function(*given.values())
        except Exception as error:
            raise self._bad(
                name, given, f"raised {type(error).__name__}: {error}; mend it, or narrow the space to where it works"
            ) from error

    def _bad(self, name: str, given: Mapping[str, Any], what: str) -> InputError:
        arguments = ", ".join(f"{key}={value!r}" for key, value in given.items())
        return InputError(f"{self.path}: {name}({arguments}) {what}")


def load(path: Path) -> GroundTruthFile:
    """Run a file, and take its functions.

    Raises:
        InputError: there is no such file, it raises, or it has no ``losses``.
    """
    if not path.is_file():
        raise InputError(f"there is no file {path}; give a Python file with losses(n_params, n_tokens, mix, seed)")
    try:
        names = _run(path)
    except Exception as error:
        raise InputError(f"{path} can't be run: {type(error).__name__}: {error}; mend it") from error
    tell, place = names.get("losses"), names.get("optimum")
    if not callable(tell):
        there = ", ".join(itertools.islice((name for name in names if not name.startswith("_")), 8)) or "nothing"
        raise InputError(
            f"{path} has no function losses(n_params, n_tokens, mix, seed); define it (the file defines {there})"
        )
    if place is not None and not callable(place):
        raise InputError(f"optimum of {path} is no function; define optimum(skill, flops, mix), or leave it out")
    return GroundTruthFile(path=path, tell=tell, place=place)


def _run(path: Path) -> dict[str, Any]:
    """Names that a file defines, once run as a module that may import its neighbours."""
    spec = importlib.util.spec_from_file_location(f"skillscale_world_{path.stem}", path)
    if spec is None or spec.loader is None:
        raise InputError("it is no Python file (.py)")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    sys.path.insert(0, str(path.parent.resolve()))
    try:
        spec.loader.exec_module(module)
    finally:
        sys.path.pop(0)
    return vars(module)


def _number(value: Any) -> float:
    try:
        return float(value)
    except (TypeError, ValueError):
        return math.nan
