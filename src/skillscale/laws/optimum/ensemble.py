"""The laws of several skills that one optimum is of: the chosen law and its rivals, with draws that belong together.

Rows of an ensemble: the estimate of the chosen law first, then draws, of each law as many as its weight says. Row k is
of one resample, and of one law, in every skill; so intervals own the choice of law as those of single skills do
(``FittedLaw.optima_over_laws``). Laws that were read from a document serve as fresh fits do.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from skillscale.errors import InputError
from skillscale.formatting import did_you_mean
from skillscale.laws.fit.skill_law import FittedLaw
from skillscale.laws.forms.nd import Array
from skillscale.laws.io.document import SavedLaw
from skillscale.laws.optimum.weighted_loss import Rows, WeightedLoss

SkillLaw = FittedLaw | SavedLaw
MixShares = Mapping[str, float] | Sequence[float] | Array  # shares by name, or in the order of the categories
_SUM = 1e-6


@dataclass(frozen=True, kw_only=True)
class Ensemble:
    """A blend a law, ``parts``: the first is of the chosen laws, and its first row is the estimate."""

    parts: tuple[WeightedLoss, ...] = field(repr=False)

    def __len__(self) -> int:
        return sum(len(part) for part in self.parts)

    @classmethod
    def of(cls, laws: Mapping[str, SkillLaw], weights: Mapping[str, float], h: Array | None = None) -> "Ensemble":
        """Of every skill, under weights that sum to 1; with what the mix h (1, n_categories) adds where it was run.

        Raises:
            InputError: skills have other numbers of draws, of laws or other levels.
        """
        _check_together(laws)
        members = [_members(one) for one in laws.values()]
        own = np.array([weights.get(name, 0.0) for name in laws])
        parts = []
        for at in range(len(members[0])):
            some = [several[at] for several in members]
            added = tuple(_added(one, h) for one, _ in some)
            parts.append(
                WeightedLoss(
                    laws=tuple(one.law for one, _ in some), q=tuple(q for _, q in some), weights=own,
                    offsets=added if any(added) else (),
                )
            )  # fmt: skip
        return cls(parts=tuple(parts))

    @property
    def chosen(self) -> WeightedLoss:
        """The chosen laws: estimate and draws."""
        return self.parts[0]

    @property
    def estimate(self) -> WeightedLoss:
        """The chosen laws as fitted, one row."""
        return self.chosen.take(np.zeros(1, dtype=np.intp))

    def take(self, rows: Sequence[Rows]) -> "Ensemble":
        """Some rows of each part; parts of which none is taken are left out."""
        pairs = zip(self.parts, rows, strict=True)
        return Ensemble(parts=tuple(part.take(some) for part, some in pairs if len(some)))

    def each(self, f: Callable[..., Array], *rows: Array) -> Array:
        """f(part, ...) of every part, one after the other along the rows; ``rows`` (K, ...) are split as the parts are.

        An array of one row is of all rows.
        """
        told, first = [], 0
        for part in self.parts:
            last = first + len(part)
            told.append(f(part, *(one if len(one) == 1 else one[first:last] for one in rows)))
            first = last
        return np.concatenate(told)

    def log_optimum(self, t: float, h: Array | None) -> Array:
        """Ln N of the least weighted loss at t = ln(C / 6), (K,); NaN where there is none."""
        return self.each(lambda part: part.log_optimum(t, h))

    def at(self, s: Array, t: Array | float, h: Array | None) -> Array:
        """The weighted loss at ln N = s, (K,) or one for all rows."""
        return np.asarray(self.weights @ self.losses(s, t, h))

    @property
    def weights(self) -> Array:
        """Of the skills, in their order; they sum to 1."""
        return self.chosen.weights

    def losses(self, s: Array, t: Array | float, h: Array | None) -> Array:
        """Every skill's loss at ln N = s and ln(C / 6) = t, each (K,) or one for all rows: (n_skills, K)."""
        places = [np.atleast_1d(np.asarray(one, dtype=float))[:, None] for one in (s, t)]
        mix = [] if h is None else [h[:, None, :]]

        def of(part: WeightedLoss, s: Array, t: Array, *shares: Array) -> Array:
            told = part.losses(s, t, shares[0] if shares else None)
            return np.array([np.broadcast_to(one.value[:, 0], (len(part),)) for one in told]).T

        return self.each(of, *places, *mix).T


def _members(one: SkillLaw) -> list[tuple[SkillLaw, Array]]:
    """The law and its rivals, each with as many rows as it has weight."""
    some = [(each, each.q[: max(round(each.weight * len(one.q)), 1)]) for each in (one, *one.rivals)]
    return [(one, np.vstack([one.estimate, some[0][1]])), *some[1:]]


def _added(one: SkillLaw, h: Array | None) -> float:
    """What a mix adds to ln L beyond the law, where it was run."""
    known = h is not None and len(one.effects) and h.shape[1] == len(one.effects.categories)
    return float(one.effects.of(h, 1)[0]) if known else 0.0


def _check_together(laws: Mapping[str, SkillLaw]) -> None:
    told = {name: (one.level, [len(q) for _, q in _members(one)]) for name, one in laws.items()}
    if len({(level, *rows) for level, rows in told.values()}) > 1:
        drawn = ", ".join(f"{name} {len(laws[name].q)} at level {level}" for name, (level, _) in told.items())
        raise InputError(f"skills must have equally many draws at one level ({drawn}); fit them with fit_together")


def require_known(what: str, name: str, known: Iterable[str]) -> None:
    """Refuse a skill or a category that no law is of.

    Raises:
        InputError: with the nearest name that there is.
    """
    names = list(known)
    if name not in names:
        raise InputError(f"no {what} {name} was fitted{did_you_mean(name, names)}; there is {', '.join(names)}")


def shared_categories(laws: Mapping[str, SkillLaw]) -> tuple[str, ...]:
    """Of the laws that ask for a mix, rivals among them.

    Raises:
        InputError: they have other categories.
    """
    asked = (each.law for one in laws.values() for each in (one, *one.rivals))
    found = {law.categories for law in asked if law.needs_mix}
    if len(found) > 1:
        told = " and ".join("(" + ", ".join(names) + ")" for names in sorted(found))
        raise InputError(f"skills of one optimum must have the same categories of the mix, but they have {told}")
    return found.pop() if found else ()


def resolve_shares(laws: Mapping[str, SkillLaw], h: MixShares | None) -> Array | None:
    """The mix of an optimum, (1, n_categories), by default the runs' mean; None where no law asks for one.

    Raises:
        InputError: an unknown or missing category, or shares that are no mix.
    """
    categories = shared_categories(laws)
    if not categories:
        return None
    if h is None:
        means = [each.mean_mix for one in laws.values() for each in (one, *one.rivals) if each.mean_mix is not None]
        return np.atleast_2d(np.mean(means, axis=0))
    if isinstance(h, Mapping):
        for name in h:
            require_known("category", name, categories)
        h = [float(h.get(name, 0.0)) for name in categories]
    shares = np.asarray(h, dtype=float)
    if shares.shape != (len(categories),):
        raise InputError(f"a mix has a share of each of {', '.join(categories)}, but it has the shape {shares.shape}")
    told = ", ".join(f"{name} {share:.4g}" for name, share in zip(categories, shares, strict=True))
    if not (shares >= 0).all() or abs(shares.sum() - 1) > _SUM:
        raise InputError(f"mix must be shares from 0 that sum to 1, but {told} sums to {shares.sum():.6g}")
    return shares[None]
