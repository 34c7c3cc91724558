"""Combine the laws of several skills, chosen law and rivals, with paired draws.

Laws by skill and skill weights go in. An ``Ensemble`` that evaluates the weighted loss comes out. Its rows are the
estimate of the chosen law, then draws, with a number per law in proportion to its weight. Row k is the same resample
and the same law in every skill. So intervals include the choice of the law, as those of single skills do
(``FittedLaw.ensemble_log_optima``). Laws read from a document work as fresh fits do.
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
    """Weighted losses, one per law. The first of ``parts`` has the chosen laws, and its first row is the estimate."""

    parts: tuple[WeightedLoss, ...] = field(repr=False)

    def __len__(self) -> int:
        return sum(len(part) for part in self.parts)

    @classmethod
    def of(cls, laws: Mapping[str, SkillLaw], weights: Mapping[str, float], h: Array | None = None) -> "Ensemble":
        """Combine the laws under weights that sum to 1, with the effects of the mix h (1, n_categories) where it ran.

        Raises:
            InputError: skills differ in their number of draws, of laws, or in the level.
        """
        _check_together(laws)
        members_by_skill = [_members(law) for law in laws.values()]
        skill_weights = np.array([weights.get(name, 0.0) for name in laws])
        parts = []
        for index in range(len(members_by_skill[0])):
            members = [skill_members[index] for skill_members in members_by_skill]
            offsets = tuple(_mix_offset(law, h) for law, _ in members)
            parts.append(
                WeightedLoss(
                    laws=tuple(law.law for law, _ in members), q=tuple(q for _, q in members), weights=skill_weights,
                    offsets=offsets if any(offsets) else (),
                )
            )  # fmt: skip
        return cls(parts=tuple(parts))

    @property
    def chosen(self) -> WeightedLoss:
        """Weighted loss of the chosen laws: estimate and draws."""
        return self.parts[0]

    @property
    def estimate(self) -> WeightedLoss:
        """Weighted loss of the chosen laws as fitted, one row."""
        return self.chosen.take(np.zeros(1, dtype=np.intp))

    def take(self, rows: Sequence[Rows]) -> "Ensemble":
        """Select rows of each part. Parts without selected rows are dropped."""
        pairs = zip(self.parts, rows, strict=True)
        return Ensemble(parts=tuple(part.take(selected) for part, selected in pairs if len(selected)))

    def map_parts(self, f: Callable[..., Array], *rows: Array) -> Array:
        """Concatenate f(part, ...) over the parts. Arrays in ``rows`` (K, ...) are split like the parts.

        An array of one row applies to all rows.
        """
        results, first = [], 0
        for part in self.parts:
            last = first + len(part)
            results.append(f(part, *(array if len(array) == 1 else array[first:last] for array in rows)))
            first = last
        return np.concatenate(results)

    def log_optimum(self, t: float, h: Array | None) -> Array:
        """Return ln N of the least weighted loss at t = ln(C / 6), (K,), or NaN where there is none."""
        return self.map_parts(lambda part: part.log_optimum(t, h))

    def at(self, s: Array, t: Array | float, h: Array | None) -> Array:
        """Return the weighted loss at ln N = s, where s is (K,) or one value for all rows."""
        return np.asarray(self.weights @ self.losses(s, t, h))

    @property
    def weights(self) -> Array:
        """Weights of the skills, in their order. They sum to 1."""
        return self.chosen.weights

    def losses(self, s: Array, t: Array | float, h: Array | None) -> Array:
        """Return every skill's loss at ln N = s and ln(C / 6) = t, (n_skills, K). s and t are (K,) or one value."""
        points = [np.atleast_1d(np.asarray(place, dtype=float))[:, None] for place in (s, t)]
        mix = [] if h is None else [h[:, None, :]]

        def of(part: WeightedLoss, s: Array, t: Array, *shares: Array) -> Array:
            losses = part.losses(s, t, shares[0] if shares else None)
            return np.array([np.broadcast_to(loss.value[:, 0], (len(part),)) for loss in losses]).T

        return self.map_parts(of, *points, *mix).T


def _members(chosen: SkillLaw) -> list[tuple[SkillLaw, Array]]:
    """Return the law and its rivals, with a number of rows in proportion to their weights."""
    members = [(law, law.q[: max(round(law.weight * len(chosen.q)), 1)]) for law in (chosen, *chosen.rivals)]
    return [(chosen, np.vstack([chosen.estimate, members[0][1]])), *members[1:]]


def _mix_offset(law: SkillLaw, h: Array | None) -> float:
    """Return the effect of a mix on ln L beyond the law, 0 where the mix was not run."""
    has_effect = h is not None and len(law.effects) and h.shape[1] == len(law.effects.categories)
    return float(law.effects.offsets_for(h, 1)[0]) if has_effect else 0.0


def _check_together(laws: Mapping[str, SkillLaw]) -> None:
    draws_by_skill = {name: (law.level, [len(q) for _, q in _members(law)]) for name, law in laws.items()}
    if len({(level, *rows) for level, rows in draws_by_skill.values()}) > 1:
        draws = ", ".join(f"{name} {len(laws[name].q)} at level {level}" for name, (level, _) in draws_by_skill.items())
        raise InputError(f"skills must have equally many draws at one level: {draws}. Fit them with fit_together.")


def require_known(what: str, name: str, fitted_names: Iterable[str]) -> None:
    """Refuse a skill or a category without a fitted law.

    Raises:
        InputError: the name is unknown. The message has the closest names.
    """
    names = list(fitted_names)
    if name not in names:
        raise InputError(f"no {what} {name} was fitted{did_you_mean(name, names)}. There is {', '.join(names)}.")


def shared_categories(laws: Mapping[str, SkillLaw]) -> tuple[str, ...]:
    """Return the categories of the laws that depend on the mix, rivals included.

    Raises:
        InputError: the laws differ in their categories.
    """
    forms = (law.law for chosen in laws.values() for law in (chosen, *chosen.rivals))
    categories = {form.categories for form in forms if form.needs_mix}
    if len(categories) > 1:
        listed = " and ".join("(" + ", ".join(names) + ")" for names in sorted(categories))
        raise InputError(f"skills of one optimum must have the same mix categories: {listed}. Fit them to one table.")
    return categories.pop() if categories else ()


def resolve_shares(laws: Mapping[str, SkillLaw], h: MixShares | None) -> Array | None:
    """Return the mix of an optimum, (1, n_categories), by default the runs' mean. None where no law needs a mix.

    Raises:
        InputError: an unknown or missing category, or shares that are no mix.
    """
    categories = shared_categories(laws)
    if not categories:
        return None
    if h is None:
        members = (law for chosen in laws.values() for law in (chosen, *chosen.rivals))
        means = [law.mean_mix for law in members if law.mean_mix is not None]
        return np.atleast_2d(np.mean(means, axis=0))
    if isinstance(h, Mapping):
        for name in h:
            require_known("category", name, categories)
        h = [float(h.get(name, 0.0)) for name in categories]
    shares = np.asarray(h, dtype=float)
    if shares.shape != (len(categories),):
        raise InputError(f"wrong shape of a mix: {shares.shape}. Give a share of each of {', '.join(categories)}.")
    if not (shares >= 0).all() or abs(shares.sum() - 1) > _SUM:
        listed = ", ".join(f"{name} {share:.4g}" for name, share in zip(categories, shares, strict=True))
        raise InputError(
            f"shares must not be negative and must sum to 1: {listed} sums to {shares.sum():.6g}. Divide by the sum."
        )
    return shares[None]
