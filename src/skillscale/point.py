"""A point of a study, and the symbols that every room uses.

| symbol | word in conf, MLflow and code outside ``laws/`` | meaning | unit |
|---|---|---|---|
| N | ``n_params`` | all parameters; the embedding is tied to the head and counts once | parameters |
| | ``n_params_nonembed`` | N without the embedding table | parameters |
| | ``n_params_embed`` | the embedding table | parameters |
| D | ``n_tokens`` | training tokens, repeated tokens included | tokens |
| C | ``flops`` | 6 N D | FLOP |
| | ``flops_exact`` | all matrix products of forward and backward pass, attention and head included | FLOP |
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

from skillscale.errors import InputError, name_fault

AGGREGATE = "aggregate"  # column of the weighted mean of evaluation sets, next to the columns of skills
RESERVED_COLUMNS = ("run_id", "cluster", "C", "N", "D", "mix", "seed")  # of a table of runs
MAX_PARAMS = 10**13
MAX_TOKENS = 10**16
_SHARE_TOLERANCE = 1e-6
_ROUNDING = 1e-12  # a share this small comes from rounding alone
_NO_MINIMA: Mapping[str, float] = MappingProxyType({})


def check_name(name: str, what: str) -> None:
    """Refuse a name that is too long, or that has characters which a terminal or a page does not show.

    Args:
        name: name of a skill, category, mix or convention.
        what: what it names, in words.

    Raises:
        InputError: the name can't be taken.
    """
    if fault := name_fault(name):
        raise InputError(f"the name of {what} {fault}. Choose another name.")


def check_skill_name(name: str) -> None:
    """Refuse a skill name that can't be shown, or that the table of runs needs for another column.

    Raises:
        InputError: the name is reserved, empty or too long, or has blanks around it or hidden characters.
    """
    check_name(name, "a skill")
    if not name or name != name.strip():
        raise InputError(f"the name of a skill is {name!r}, empty or with blanks around it. Choose another name.")
    if name == AGGREGATE or name in RESERVED_COLUMNS or name.startswith(("sem/", "mix/")):
        raise InputError(
            f"{name!r} can't name a skill: the table of runs has a column of that name. Choose another name, such as "
            f"'{name.replace('/', '_')}_skill'."
        )


def digest(value: object, size: int = 8) -> str:
    """Return the hex digest of a JSON-able value: its name by content."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), default=_mapping_as_dict)
    return blake2b(text.encode(), digest_size=size).hexdigest()


def _mapping_as_dict(value: object) -> dict[object, object]:
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError(f"{type(value).__name__} has no digest. Convert it to JSON values.")


@dataclass(frozen=True)
class Mix:
    """Shares of the data categories in the training tokens. Only positive shares are kept, and they sum to 1.

    Raises:
        InputError: a share is negative or not finite, or the shares don't sum to 1.
    """

    shares: Mapping[str, float]

    def __post_init__(self) -> None:
        shares = {name: float(share) for name, share in self.shares.items()}
        for name, share in shares.items():
            check_name(name, "a category")
            if not math.isfinite(share) or share < 0:
                raise InputError(f"mix share of {name} must be a number from 0 to 1, but it is {share}. Correct it.")
        total = math.fsum(shares.values())
        if abs(total - 1.0) > _SHARE_TOLERANCE:
            raise InputError(
                f"mix must sum to 1, but {shares} sums to {total:.6g}. Divide by the sum or drop a category."
            )
        positive = {name: share / total for name, share in sorted(shares.items()) if share > 0}
        object.__setattr__(self, "shares", MappingProxyType(positive))

    @classmethod
    def parse(cls, text: str) -> "Mix":
        """Read a mix from text such as ``knowledge=0.4,code=0.6``.

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
                raise InputError(f"mix item {item!r} is not CATEGORY=SHARE. Write knowledge=0.4,code=0.6, for example.")
            if name.strip() in shares:
                raise InputError(f"mix {text!r} has category {name.strip()!r} twice. Give each category once.")
            shares[name.strip()] = share
        return cls(shares)

    def multiply(self, category: str, factor: float) -> "Mix":
        """Return the mix with the category's weight times ``factor``; the others keep their proportions.

        Raises:
            InputError: the mix has no share of the category.
        """
        if category not in self.shares:
            raise InputError(f"{category} can't be multiplied: the mix {self} has none of it. Choose another category.")
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
    """One training run to make: model size, tokens, mix and seed.

    Raises:
        InputError: a value is outside the range that can be trained.
    """

    n_params: int = field(metadata={"unit": "parameters, embedding counted once"})
    n_tokens: int = field(metadata={"unit": "tokens"})
    mix: Mix
    seed: int = 0

    def __post_init__(self) -> None:
        if not 1 <= self.n_params <= MAX_PARAMS:
            raise InputError(f"n_params must be from 1 to {MAX_PARAMS:.0e}, but it is {self.n_params}. Change it.")
        if not 1 <= self.n_tokens <= MAX_TOKENS:
            raise InputError(f"n_tokens must be from 1 to {MAX_TOKENS:.0e}, but it is {self.n_tokens}. Change it.")
        if not 0 <= self.seed < 2**31:
            raise InputError(f"seed must be from 0 to 2^31 - 1, but it is {self.seed}. Change it.")

    @property
    def flops(self) -> float:
        """C = 6 N D, in FLOP."""
        return 6.0 * self.n_params * self.n_tokens

    @property
    def key(self) -> str:
        """Name by content: two points with one key are the same run."""
        return digest([self.n_params, self.n_tokens, str(self.mix), self.seed])

    @property
    def stable_phase(self) -> str:
        """Name of the stable phase that this point can share: points that differ in D alone have the same one."""
        return digest([self.n_params, str(self.mix), self.seed])

    def as_dict(self) -> dict[str, object]:
        """Return the point as plain values, which ``from_dict`` reads."""
        return {
            "n_params": self.n_params,
            "n_tokens": self.n_tokens,
            "mix": dict(self.mix.shares),
            "seed": self.seed,
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, object]) -> "DesignPoint":
        """Invert ``as_dict``."""
        return cls(
            n_params=int(values["n_params"]),  # type: ignore[call-overload]
            n_tokens=int(values["n_tokens"]),  # type: ignore[call-overload]
            mix=Mix(values["mix"]),  # type: ignore[arg-type]
            seed=int(values["seed"]),  # type: ignore[call-overload]
        )


def mix_from_coordinates(
    coordinates: Sequence[float], categories: Sequence[str], minima: Mapping[str, float] = _NO_MINIMA
) -> Mix:
    """Return the mix of coordinates u in [0, 1]. Uniform coordinates give mixes uniform on the simplex.

    Stick-breaking: with m categories still to come, category k takes 1 - (1 - u_k)^(1/m) of the remaining share.

    Args:
        coordinates: one coordinate per category except the last.
        categories: category names, at least one, each once.
        minima: smallest share per category; 0 for a category that is not given.

    Raises:
        InputError: the number of coordinates is wrong, one is outside 0 to 1, or the minima leave no share.
    """
    if len(coordinates) != len(categories) - 1:
        raise InputError(
            f"{len(categories)} categories have {len(categories) - 1} coordinates, not {len(coordinates)}. Give one "
            "per category except the last."
        )
    if any(not 0 <= u <= 1 for u in coordinates):
        raise InputError(f"a mix coordinate is outside 0 to 1: {', '.join(map(str, coordinates))}. Correct it.")
    free, remaining, shares = _free_share(categories, minima), 1.0, {}
    for position, name in enumerate(categories):
        to_come = len(categories) - 1 - position
        taken = remaining * (1 - (1 - coordinates[position]) ** (1 / to_come)) if to_come else remaining
        remaining -= taken
        shares[name] = minima.get(name, 0.0) + free * taken
    return Mix(shares)


def coordinates_from_mix(
    mix: Mix, categories: Sequence[str], minima: Mapping[str, float] = _NO_MINIMA
) -> tuple[float, ...]:
    """Invert ``mix_from_coordinates``. A share below its minimum counts as the minimum.

    Raises:
        InputError: the mix has another category, or the minima leave no share.
    """
    for name in mix.shares:
        if name not in categories:
            raise InputError(f"mix {mix} has category {name!r}, which is not in the data. Use {', '.join(categories)}.")
    free = _free_share(categories, minima)
    parts = [max(mix.shares.get(name, 0.0) - minima.get(name, 0.0), 0.0) for name in categories]
    coordinates, remaining = [], 1.0
    for position, part in enumerate(parts[:-1]):
        taken = min(part / free / remaining, 1.0) if free * remaining > _ROUNDING else 0.0
        coordinates.append(1 - (1 - taken) ** (len(parts) - 1 - position))
        remaining *= 1 - taken
    return tuple(coordinates)


def _free_share(categories: Sequence[str], minima: Mapping[str, float]) -> float:
    """Return the share that the minima leave free."""
    free = 1 - math.fsum(minima.values())
    if any(not 0 <= share < 1 or name not in categories for name, share in minima.items()) or free <= _ROUNDING:
        raise InputError(
            f"minimum shares {dict(minima)} are not usable. Give shares from 0 for {', '.join(categories)}, with a sum "
            "below 1."
        )
    return free
