"""A point of a study, and the dictionary of symbols that every room uses.

| symbol | word in conf, MLflow and code outside ``laws/`` | meaning | unit |
|---|---|---|---|
| N | ``n_params`` | parameters in all, the embedding (tied to the head) counted once | parameters |
| | ``n_params_nonembed`` | N without the embedding table | parameters |
| | ``n_params_embed`` | the embedding table | parameters |
| D | ``n_tokens`` | training tokens, repetitions counted | tokens |
| C | ``flops`` | 6 N D | FLOP |
| | ``flops_exact`` | every matrix product of forward and backward, attention and head included | FLOP |
| L | ``loss`` | negative log-likelihood of the target given its prompt | nats per token |
| h | ``mix`` | share of each category in the training tokens | sums to 1 |
| E, A, B, alpha, beta | the same | parameters of a law, L = E + A N^-alpha + B D^-beta | |
| | ``sem`` | standard error of a mean | as the mean |
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from types import MappingProxyType

from skillscale.errors import InputError

AGGREGATE = "aggregate"  # the weighted mean of evaluation sets, a column beside the skills'
OWN_COLUMNS = ("run_id", "cluster", "C", "N", "D", "mix", "seed")  # of a table of runs, beside the skills'
MAX_PARAMS = 10**13
MAX_TOKENS = 10**16
_SHARE_TOLERANCE = 1e-6
_NOTHING = 1e-12  # a share that rounding alone makes


def check_skill_name(name: str) -> None:
    """Refuse a skill whose column in the table of runs would be another's.

    Raises:
        InputError: with another name to take.
    """
    if name == AGGREGATE or name in OWN_COLUMNS or name.startswith(("sem/", "mix/")):
        raise InputError(
            f"{name!r} can't name a skill: the table of runs has a column of that name; take another, such as "
            f"'{name.replace('/', '_')}_skill'"
        )


def digest(value: object, size: int = 8) -> str:
    """Hex digest of a JSON-able value: the one way things are named by their content."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), default=_plain)
    return blake2b(text.encode(), digest_size=size).hexdigest()


def _plain(value: object) -> object:
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError(f"{type(value).__name__} can't be named by its content")


@dataclass(frozen=True)
class Mix:
    """Shares of the data categories in the training tokens; positive shares only, sum 1.

    Raises:
        InputError: a share is not finite or negative, or the shares don't sum to 1.
    """

    shares: Mapping[str, float]

    def __post_init__(self) -> None:
        shares = {name: float(share) for name, share in self.shares.items()}
        for name, share in shares.items():
            if not math.isfinite(share) or share < 0:
                raise InputError(f"mix share of {name} must be a number from 0 to 1, but it is {share}")
        total = math.fsum(shares.values())
        if abs(total - 1.0) > _SHARE_TOLERANCE:
            raise InputError(
                f"mix must sum to 1, but {shares} sums to {total:.6g}; divide by the sum or drop a category"
            )
        kept = {name: share / total for name, share in sorted(shares.items()) if share > 0}
        object.__setattr__(self, "shares", MappingProxyType(kept))

    @classmethod
    def parse(cls, text: str) -> "Mix":
        """Read ``knowledge=.4,code=.6``.

        Raises:
            InputError: an item is not NAME=SHARE, a name comes twice, or the shares are no mix.
        """
        shares: dict[str, float] = {}
        for item in filter(None, (part.strip() for part in text.split(","))):
            name, sign, number = item.partition("=")
            try:
                share = float(number)
            except ValueError:
                share = math.nan
            if not sign or not name.strip() or math.isnan(share):
                raise InputError(f"mix item {item!r} must read CATEGORY=SHARE, as in knowledge=.4,code=.6")
            if name.strip() in shares:
                raise InputError(f"mix names {name.strip()!r} twice in {text!r}; name each category once")
            shares[name.strip()] = share
        return cls(shares)

    def multiplied(self, category: str, factor: float) -> "Mix":
        """The mix in which the category's weight is ``factor`` times as large, and the others share the rest as before.

        Raises:
            InputError: the mix has nothing of the category.
        """
        if category not in self.shares:
            raise InputError(f"{category} can't be multiplied: the mix {self} has none of it")
        weights = {name: share * (factor if name == category else 1) for name, share in self.shares.items()}
        total = math.fsum(weights.values())
        return Mix({name: weight / total for name, weight in weights.items()})

    def __str__(self) -> str:
        return ",".join(f"{name}={share:.6g}" for name, share in self.shares.items())

    def __hash__(self) -> int:
        return hash(str(self))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Mix) and str(self) == str(other)


@dataclass(frozen=True, kw_only=True)
class DesignPoint:
    """One training run to make: how large, how long, on what, with which seed.

    Raises:
        InputError: a value outside what can be trained.
    """

    n_params: int = field(metadata={"unit": "parameters, embedding counted once"})
    n_tokens: int = field(metadata={"unit": "tokens"})
    mix: Mix
    seed: int = 0

    def __post_init__(self) -> None:
        if not 1 <= self.n_params <= MAX_PARAMS:
            raise InputError(f"n_params must be from 1 to {MAX_PARAMS:.0e}, but it is {self.n_params}")
        if not 1 <= self.n_tokens <= MAX_TOKENS:
            raise InputError(f"n_tokens must be from 1 to {MAX_TOKENS:.0e}, but it is {self.n_tokens}")
        if not 0 <= self.seed < 2**31:
            raise InputError(f"seed must be from 0 to 2^31 - 1, but it is {self.seed}")

    @property
    def flops(self) -> float:
        """C = 6 N D, in FLOP."""
        return 6.0 * self.n_params * self.n_tokens

    @property
    def key(self) -> str:
        """Name by content: two points with one key are the same run."""
        return digest([self.n_params, self.n_tokens, str(self.mix), self.seed])

    @property
    def trunk(self) -> str:
        """Name of the points that differ from this one in D alone: one trunk may serve them all."""
        return digest([self.n_params, str(self.mix), self.seed])

    def as_dict(self) -> dict[str, object]:
        """The point as plain values, readable by ``from_dict``."""
        return {
            "n_params": self.n_params,
            "n_tokens": self.n_tokens,
            "mix": dict(self.mix.shares),
            "seed": self.seed,
        }

    @classmethod
    def from_dict(cls, plain: Mapping[str, object]) -> "DesignPoint":
        """Inverse of ``as_dict``."""
        return cls(
            n_params=int(plain["n_params"]),  # type: ignore[call-overload]
            n_tokens=int(plain["n_tokens"]),  # type: ignore[call-overload]
            mix=Mix(plain["mix"]),  # type: ignore[arg-type]
            seed=int(plain["seed"]),  # type: ignore[call-overload]
        )


def mix_of_coordinates(
    coordinates: Sequence[float], categories: Sequence[str], least: Mapping[str, float] = MappingProxyType({})
) -> Mix:
    """A mix from numbers between 0 and 1, one fewer than categories; even ones make mixes that are even on the simplex.

    Stick-breaking: of what is left, with m categories to come, category k takes 1 - (1 - u_k)^(1/m).

    Args:
        coordinates: u, one a category but the last.
        categories: at least one, each once.
        least: share that a category has at least; 0 where none is given.

    Raises:
        InputError: too few or too many coordinates, one outside of 0 to 1, or least shares that leave nothing.
    """
    if len(coordinates) != len(categories) - 1:
        raise InputError(f"{len(categories)} categories have {len(categories) - 1} coordinates, not {len(coordinates)}")
    if any(not 0 <= u <= 1 for u in coordinates):
        raise InputError(f"coordinates of a mix go from 0 to 1, but they are {', '.join(map(str, coordinates))}")
    free, left, shares = _free_share(categories, least), 1.0, {}
    for at, name in enumerate(categories):
        to_come = len(categories) - 1 - at
        taken = left * (1 - (1 - coordinates[at]) ** (1 / to_come)) if to_come else left
        left -= taken
        shares[name] = least.get(name, 0.0) + free * taken
    return Mix(shares)


def coordinates_of_mix(
    mix: Mix, categories: Sequence[str], least: Mapping[str, float] = MappingProxyType({})
) -> tuple[float, ...]:
    """Inverse of ``mix_of_coordinates``; a share below the least one counts as that.

    Raises:
        InputError: the mix has another category, or least shares leave nothing.
    """
    for name in mix.shares:
        if name not in categories:
            raise InputError(f"mix {mix} has category {name!r}; there are {', '.join(categories)}")
    free = _free_share(categories, least)
    parts = [max(mix.shares.get(name, 0.0) - least.get(name, 0.0), 0.0) for name in categories]
    found, left = [], 1.0
    for at, part in enumerate(parts[:-1]):
        taken = min(part / free / left, 1.0) if free * left > _NOTHING else 0.0
        found.append(1 - (1 - taken) ** (len(parts) - 1 - at))
        left *= 1 - taken
    return tuple(found)


def _free_share(categories: Sequence[str], least: Mapping[str, float]) -> float:
    """What least shares leave to be divided."""
    free = 1 - math.fsum(least.values())
    if any(not 0 <= share < 1 or name not in categories for name, share in least.items()) or free <= _NOTHING:
        raise InputError(
            f"least shares must be of {', '.join(categories)}, from 0, and sum to less than 1, but they are "
            f"{dict(least)}"
        )
    return free
