"""A truth from a Python file of the user's, with ``losses`` and perhaps ``optimum``.

def losses(n_params, n_tokens, mix, seed):    # int, int, {category: share} ({} without mixes), int
    return {"code": 2.31, "prose": (2.80, 0.01)}    # nats per token, with a standard error or without

def optimum(skill, flops, mix):    # N that minimises the loss of a skill at 6 N D = flops
    return 1.2e8

Without ``optimum`` a search finds the optima. It averages losses over many seeds, first over a wide range of sizes and
then near the minimum. Where the seed makes no difference, the search goes on until the optimum is exact. Otherwise a
polynomial of ln L in ln N gives the optimum, and groups of seeds give its standard error.
"""

import itertools
import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from skillscale.design.space import DesignSpace
from skillscale.errors import InputError
from skillscale.formatting import format_flops, format_percent, shorten
from skillscale.laws.forms.nd import Array
from skillscale.point import Mix
from skillscale.simulation.truth import LossTable
from skillscale.tables.user_function import BadLossesError, Loss, check_losses, describe_error, load_module

SEEDS = 64  # that the reference averages over
FIRST_SEED = 10**9  # of the reference; runs of designs have seeds below
_FEW_SEEDS = 8  # for the wide search
_GROUPS = 4
_SIZES = 49
_WIDE, _NEAR = math.log(300), math.log(4)
_DEGREE = 4
_RATIO = 20.0  # D / N at the middle of the wide search
_ROUNDS = 6


@dataclass(frozen=True, kw_only=True)
class UserTruth:
    """The checked functions of a file.

    ``skills``: that ``losses`` returned at its first call; every call must return them.
    """

    path: Path
    losses_function: Callable[..., Any]
    optimum_function: Callable[..., Any] | None = None
    skills: tuple[str, ...] = ()

    def losses(self, n_params: float, n_tokens: float, mix: Mapping[str, float], seed: int) -> dict[str, Loss]:
        """Return loss and standard error (0 where unknown) by skill.

        Raises:
            InputError: the function raises, or its value breaks the contract.
        """
        given = {"n_params": round(n_params), "n_tokens": round(n_tokens), "mix": dict(mix), "seed": int(seed)}
        returned = self._call(self.losses_function, "losses", given)
        try:
            losses = check_losses(returned, self.skills)
        except BadLossesError as error:
            raise self._error("losses", given, str(error)) from error
        return {skill: (loss, 0.0 if math.isnan(sem) else sem) for skill, (loss, sem) in losses.items()}

    def optimum(self, skill: str, flops: float, mix: Mapping[str, float]) -> float:
        """Return N of the optimum, as the file has it.

        Raises:
            InputError: the function raises, or returns no size.
        """
        assert self.optimum_function is not None
        given = {"skill": skill, "flops": float(flops), "mix": dict(mix)}
        returned = self._call(self.optimum_function, "optimum", given)
        try:
            n_params = float(returned)
        except (TypeError, ValueError):
            n_params = math.nan
        if not (math.isfinite(n_params) and n_params > 0):
            raise self._error(
                "optimum", given, f"returned {shorten(repr(returned))}. Return n_params, a number above 0"
            )
        return n_params

    def _call(self, function: Callable[..., Any], name: str, given: Mapping[str, Any]) -> Any:
        try:
            with _without_exit():
                return function(*given.values())
        except (Exception, SystemExit, GeneratorExit) as error:
            cure = "Correct the function, or narrow the space to where it works"
            raise self._error(name, given, f"{describe_error(error)}. {cure}") from error

    def _error(self, name: str, given: Mapping[str, Any], text: str) -> InputError:
        arguments = ", ".join(f"{key}={value!r}" for key, value in given.items())
        return InputError(f"{self.path}: {name}({arguments}) {text}")


@contextmanager
def _without_exit() -> Iterator[None]:
    """Turn an ``os._exit`` of the user's code into an exception, and end a copy of this process that it makes.

    A command that its truth ends would have no answer, and a copy would give a second one.
    """
    process, leave = os.getpid(), os._exit

    def refuse(status: int) -> NoReturn:
        if os.getpid() != process:  # as of a process pool
            leave(status)
        raise SystemExit(status)

    os._exit = refuse
    try:
        yield
    finally:
        os._exit = leave
        if os.getpid() != process:
            leave(0)


def load_user_truth(path: Path) -> UserTruth:
    """Run a file, and return its functions.

    Raises:
        InputError: there is no such file, it raises, or it has no ``losses``.
    """
    if not path.is_file():
        raise InputError(f"there is no file {path}. Give a Python file with losses(n_params, n_tokens, mix, seed)")
    try:
        with _without_exit():
            names = vars(load_module(path))
    except (Exception, SystemExit, GeneratorExit) as error:
        raise InputError(f"{path} can't be run: {type(error).__name__}: {error}. Correct the file") from error
    losses, optimum = names.get("losses"), names.get("optimum")
    if not callable(losses):
        public = ", ".join(itertools.islice((name for name in names if not name.startswith("_")), 8)) or "nothing"
        raise InputError(
            f"{path} has no function losses(n_params, n_tokens, mix, seed). Define it (the file defines {public})"
        )
    if optimum is not None and not callable(optimum):
        raise InputError(f"optimum of {path} is no function. Define optimum(skill, flops, mix), or remove the name")
    return UserTruth(path=path, losses_function=losses, optimum_function=optimum)


def truth_from_file(path: Path, space: DesignSpace, mix: Mix | None, *, progress: Callable[[str], None]) -> "FileTruth":
    """Load the truth of a file, and check its losses at a run of the space.

    Args:
        path: Python file with ``losses`` and perhaps ``optimum``.
        space: allowed runs, and the categories of the mixes.
        mix: mix of every run, where the space has no mixes.
        progress: receiver of a line about each reference that a search finds.

    Raises:
        InputError: the file can't be used, or ``losses`` breaks the contract.
    """
    user = load_user_truth(path)
    N, D = (float(values[0]) for values in space.lattice())
    shares = _Shares(space.categories, {} if mix is None else dict(mix.shares))
    first_mix = shares.named(None if space.mixes is None else space.mixes[0])
    first, again, other_seed = (user.losses(N, D, first_mix, seed) for seed in (0, 0, 1))
    why_unknown = ""
    if user.optimum_function is None and first != again:
        why_unknown = (
            f"{path} has no `optimum`, and losses returns different values for equal arguments, so no search can find "
            "it. Draw the noise from `seed`, or define optimum(skill, flops, mix)"
        )
    return FileTruth(
        user=replace(user, skills=tuple(first)), shares=shares, n_seeds=1 if first == other_seed else SEEDS,
        why_unknown=why_unknown, progress=progress,
    )  # fmt: skip


@dataclass(frozen=True)
class _Shares:
    """The way from shares (n_categories,) to the mix that a file is given."""

    categories: tuple[str, ...]
    constant: Mapping[str, float]

    def named(self, h: Array | None) -> Mapping[str, float]:
        if h is None:
            return self.constant
        return {name: float(share) for name, share in zip(self.categories, h, strict=True)}


@dataclass(frozen=True, kw_only=True)
class FileTruth:
    """The ``Truth`` of a file. References take many calls, so they are kept in ``cache``."""

    user: UserTruth
    shares: _Shares
    n_seeds: int
    why_unknown: str
    progress: Callable[[str], None] = field(repr=False)
    cache: dict[tuple[object, ...], float] = field(default_factory=dict, repr=False)

    @property
    def skills(self) -> tuple[str, ...]:
        """Names of the skills."""
        return self.user.skills

    def measure(self, N: Array, D: Array, h: Array | None, rng: np.random.Generator) -> tuple[LossTable, LossTable]:
        """Return ln L and standard errors of each skill, (n,), each run with a random seed."""
        rows = [
            self.user.losses(N[i], D[i], self.shares.named(None if h is None else h[i]), int(rng.integers(FIRST_SEED)))
            for i in range(len(N))
        ]
        pairs = {name: np.array([row[name] for row in rows]) for name in self.skills}
        return (
            {name: np.log(pair[:, 0]) for name, pair in pairs.items()},
            {name: pair[:, 1] / pair[:, 0] for name, pair in pairs.items()},
        )

    def log_loss(self, skill: str, N: Array, D: Array, h: Array | None) -> Array:
        """Return ln L averaged over the seeds of the reference, (n,)."""
        mixes = [None] * len(N) if h is None else list(h)
        return np.array(
            [self._mean_log_loss(skill, float(n), float(d), mix) for n, d, mix in zip(N, D, mixes, strict=True)]
        )

    def log_optimum(self, skill: str, C: float, h: Array | None = None) -> float:
        """Return ln N* by the file's ``optimum`` or by a search, NaN where there is neither."""
        if self.why_unknown:
            return math.nan
        key = ("optimum", skill, C, _as_tuple(h))
        if key not in self.cache:
            if self.user.optimum_function is not None:
                self.cache[key] = math.log(self.user.optimum(skill, C, self.shares.named(h)))
            else:
                optima = self._search(C, h)
                self.cache.update({("optimum", name, C, _as_tuple(h)): value for name, (value, _) in optima.items()})
                on = "" if h is None else f" on {_as_tuple(h)}"
                shown = ", ".join(
                    f"{name} {math.exp(log_N):.4g} (+-{format_percent(sem)})" for name, (log_N, sem) in optima.items()
                )
                self.progress(f"optima by search at {format_flops(C)} FLOP{on}: {shown}")
        return self.cache[key]

    def _mean_log_loss(self, skill: str, N: float, D: float, h: Array | None) -> float:
        key = ("loss", skill, N, D, _as_tuple(h))
        if key not in self.cache:
            column = self.skills.index(skill)
            self.cache[key] = float(self._log_losses(np.array([N]), 6 * N * D, h, self.n_seeds)[:, 0, column].mean())
        return self.cache[key]

    def _log_losses(self, N: Array, C: float, h: Array | None, n_seeds: int) -> Array:
        """Return ln L at sizes of one budget, (n_seeds, n_sizes, n_skills)."""
        mix = self.shares.named(h)
        by_seed = [[self.user.losses(n, C / (6 * n), mix, FIRST_SEED + seed) for n in N] for seed in range(n_seeds)]
        return np.log([[[losses[name][0] for name in self.skills] for losses in of_seed] for of_seed in by_seed])

    def _search(self, C: float, h: Array | None) -> dict[str, tuple[float, float]]:
        """Return ln N* and its standard error by skill; NaN where no size within the range is a minimum."""
        x = 0.5 * math.log(C / 6 / _RATIO) + np.linspace(-_WIDE, _WIDE, _SIZES)
        wide = self._log_losses(np.exp(x), C, h, min(self.n_seeds, _FEW_SEEDS)).mean(0)
        lowest = wide.argmin(0)
        inside = (lowest > 0) & (lowest < _SIZES - 1)
        if self.n_seeds == 1:
            optima = [(self._exact_optimum(C, h, i, float(x[at])), 0.0) for i, at in enumerate(lowest)]
        else:
            fine = np.linspace(x[lowest].min() - _NEAR, x[lowest].max() + _NEAR, _SIZES)
            log_L = self._log_losses(np.exp(fine), C, h, self.n_seeds)
            optima = [_polynomial_minimum(fine, log_L[:, :, i], float(x[at])) for i, at in enumerate(lowest)]
        return {
            name: optimum if is_inside else (math.nan, math.nan)
            for name, optimum, is_inside in zip(self.skills, optima, inside, strict=True)
        }

    def _exact_optimum(self, C: float, h: Array | None, skill: int, middle: float) -> float:
        reach = 2 * _WIDE / (_SIZES - 1)
        for _ in range(_ROUNDS):
            x = np.linspace(middle - reach, middle + reach, 11)
            middle = float(x[self._log_losses(np.exp(x), C, h, 1)[0, :, skill].argmin()])
            reach /= 5
        return middle


def _polynomial_minimum(x: Array, log_L: Array, middle: float) -> tuple[float, float]:
    """Return the minimum of a polynomial near ``middle``, fitted to all seeds, and its standard error by groups."""
    near = np.abs(x - middle) <= _NEAR
    dense = np.linspace(-_NEAR, _NEAR, 2001)

    def minimum(values: Array) -> float:
        return middle + float(dense[np.polyval(np.polyfit(x[near] - middle, values, _DEGREE), dense).argmin()])

    groups = [minimum(log_L[group::_GROUPS, near].mean(0)) for group in range(_GROUPS)]
    return minimum(log_L[:, near].mean(0)), float(np.std(groups, ddof=1)) / math.sqrt(_GROUPS)


def _as_tuple(h: Sequence[float] | Array | None) -> tuple[float, ...]:
    return () if h is None else tuple(float(share) for share in h)
