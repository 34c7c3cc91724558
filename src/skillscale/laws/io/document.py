"""Fitted laws as plain values: what is registered, mailed or pasted, and read back without the runs.

One JSON object. ``schema`` counts its changes; numbers are in full precision, for rounded parameters predict wrongly.
"""

import hashlib
import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np
import numpy.typing as npt

from skillscale.errors import InputError
from skillscale.laws.fit.data import RunData
from skillscale.laws.fit.mix_effects import MixEffects
from skillscale.laws.fit.predict import PredictedLoss, predict
from skillscale.laws.fit.skill_law import FittedLaw
from skillscale.laws.forms.catalogue import LAWS
from skillscale.laws.forms.nd import Array, Law
from skillscale.laws.results import Interval
from skillscale.laws.uncertainty.resamples import interval

SCHEMA = 2
DRAWS = 200  # kept of a fit's draws: enough for the ends of a 90 % interval, and a file of some 50 kB a skill


@dataclass(frozen=True, kw_only=True)
class SavedLaw:
    """One skill's law as it was fitted, with draws of its log-parameters ``q`` (K, p).

    ``runs``: ids of the runs it was fitted to, those of MLflow or the table's own, checkpoints of one run counted once;
    ``n_runs``: losses, checkpoints counted each; ``digest``: of all that was fitted. ``effects``, ``setting``,
    ``weight`` and ``rivals`` are those of ``FittedLaw``; ``sizes``, ``shares`` and ``warnings`` too, where the document
    tells them.
    """

    skill: str
    law: Law
    theta: Array
    q: Array = field(repr=False)
    level: float
    noise: float = field(metadata={"unit": "ln L, sd of a run about the law"})
    status: str
    reason: str
    objective: str
    n_runs: int
    runs: tuple[str, ...] = field(repr=False)
    digest: str
    reach: tuple[float, float] = field(metadata={"unit": "FLOP, least and largest 6 N D fitted"})
    mix: Mapping[str, float] = field(metadata={"unit": "mean shares of the runs, where the law asks for a mix"})
    effects: MixEffects = field(default_factory=MixEffects, repr=False)
    setting: str = ""
    weight: float = 1.0
    rivals: "tuple[SavedLaw, ...]" = field(default=(), repr=False)
    sizes: tuple[float, float] = (math.nan, math.nan)
    shares: Array | None = field(default=None, repr=False)
    warnings: tuple[str, ...] = field(default=(), repr=False)

    @property
    def estimate(self) -> Array:
        """Log-parameters of the estimate, (p,)."""
        return np.asarray(self.law.log_parameters(self.theta[None])[0])

    @property
    def mean_mix(self) -> Array | None:
        """Shares averaged over the runs, where the law asks for a mix."""
        return np.array(list(self.mix.values())) if self.mix else None

    @property
    def categories(self) -> tuple[str, ...]:
        """Of the mix that a prediction depends on; none where it depends on none."""
        asked = (self.law.categories, self.effects.categories, *(one.categories for one in self.rivals))
        return next((names for names in asked if names), ())

    def loss(self, N: npt.ArrayLike, D: npt.ArrayLike, h: npt.ArrayLike | None = None) -> PredictedLoss:
        """L in nats per token with the intervals of the law and of a new run; at the runs' mean mix where h is None.

        Raises:
            InputError: N or D is not positive, or a mix is none.
        """
        mix = list(self.mix.values()) if h is None and self.mix else h
        told = predict(self.law, self.theta, self.q, N, D, mix, level=self.level, noise=self.noise)
        return told.scaled(np.exp(self.effects.of(mix, len(told.value))))

    def optimum(self, C: float, h: npt.ArrayLike | None = None) -> Interval:
        """N*(C) with its interval, which owns the choice of law where there are rivals; unknown where there is none."""
        value, _ = self.log_optima(C, h)
        drawn = [one.log_optima(C, h)[1][: max(round(one.weight * len(self.q)), 1)] for one in (self, *self.rivals)]
        return interval(value, np.concatenate(drawn), self.level).map(math.exp)

    def log_optima(self, C: float, h: npt.ArrayLike | None = None) -> tuple[float, Array]:
        """Ln N*(C) and its draws (K,) of this law alone; NaN where one has no optimum."""
        mix = list(self.mix.values()) if h is None and self.mix else h
        found = self.law.log_optimum(np.vstack([self.theta, self.law.theta(self.q)]), C, mix)[:, 0]
        return float(found[0]), found[1:]


@dataclass(frozen=True, kw_only=True)
class LawMetadata:
    """What a document's laws have in common.

    ``convention``: of N; ``aggregates``: skills that are means of others; ``mixes``: of each skill the named mix whose
    runs it was fitted to, where there are several, in which case it is named MIX/SKILL.
    """

    convention: str = ""
    aggregates: tuple[str, ...] = ()
    mixes: Mapping[str, str] = field(default_factory=dict)


def law_document(fitted: Mapping[str, FittedLaw], about: LawMetadata | None = None) -> dict[str, Any]:
    """Fitted laws as plain values."""
    common = {} if about is None else {
        "convention": about.convention, "aggregates": list(about.aggregates), "mixes": dict(about.mixes)
    }  # fmt: skip
    return {"schema": SCHEMA, **common, "skills": {name: _skill(one) for name, one in fitted.items()}}


def read_metadata(plain: Mapping[str, Any]) -> LawMetadata:
    """What a document's laws have in common; documents of earlier versions tell nothing of it."""
    return LawMetadata(
        convention=str(plain.get("convention", "")), aggregates=tuple(map(str, plain.get("aggregates") or ())),
        mixes=dict(plain.get("mixes") or {}),
    )  # fmt: skip


def read_document(plain: Mapping[str, Any], *, place: str = "this document") -> dict[str, SavedLaw]:
    """Inverse of ``law_document``, by skill.

    Raises:
        InputError: another schema, a law that is not known here, or parts are missing.
    """
    schema = plain.get("schema")
    if schema != SCHEMA:
        newer = isinstance(schema, int) and schema > SCHEMA
        cure = "update skillscale" if newer else "fit the runs again with `skillscale fit` and register the result"
        raise InputError(f"{place} holds laws of schema {schema!r}, but this version reads schema {SCHEMA}; {cure}")
    return {name: _read_skill(name, one, place) for name, one in dict(plain.get("skills") or {}).items()}


def _skill(one: FittedLaw) -> dict[str, Any]:
    """One law with its rivals; each rival's draws are in the proportion of its weight, and it has no rivals."""
    told = _law(one) | {"warnings": list(one.warnings)}
    if one.setting:
        told |= {"setting": one.setting, "weight": one.weight, "rivals": [_law(each) for each in one.rivals]}
    return told


def _law(one: FittedLaw) -> dict[str, Any]:
    law, points = one.law, one.points
    keep = np.linspace(0, len(one.q) - 1, min(DRAWS, len(one.q))).astype(int)
    own = getattr(law, "skill_category", "")
    mix = {} if one.mean_mix is None else dict(zip(law.categories, one.mean_mix.tolist(), strict=True))
    told = {
        "law": law.name, "formula": formula(law), "x0": law.x0, "y0": law.y0, "categories": list(law.categories),
        "own": own, "theta": one.fit.parameters, "draws": one.q[keep].tolist(), "level": one.level,
        "noise": one.noise, "status": str(one.status), "reason": one.reason,
        "objective": one.fit.objective.name,
        "n_runs": one.n_runs, "runs": run_ids(points), "digest": digest(points),
        "reach": list(one.reach), "mix": mix, "weight": one.weight,
        "sizes": list(one.sizes), "shares": None if one.shares is None else one.shares.tolist(),
    }  # fmt: skip
    if len(one.effects):
        told["effects"] = {
            "categories": list(one.effects.categories), "mixes": one.effects.mixes.tolist(),
            "ln L": one.effects.offsets.tolist(),
        }  # fmt: skip
    return told


def run_ids(points: RunData) -> list[str]:
    """The runs by their labels, each once, in the order of the table."""
    return list(dict.fromkeys(np.asarray(points.labels).astype(str).tolist()))


def digest(points: RunData) -> str:
    """SHA-256 of what was fitted: run, N, D, loss, weight and shares of every row; the order of rows is no matter."""
    labels = np.asarray(points.labels).astype(str).tolist()
    numbers = [points.N, points.D, points.L, np.asarray(points.weights), *(() if points.h is None else points.h.T)]
    rows = sorted(zip(labels, np.array(numbers, dtype=float).T.tolist(), strict=True))
    text = json.dumps([list(points.categories if points.h is not None else ()), rows])
    return hashlib.sha256(text.encode()).hexdigest()


def formula(law: Law, *, centre: bool = True) -> str:
    """A law as its docstring begins, which is its formula, with what x and y stand for.

    Args:
        law: bound to the centre of its runs.
        centre: tell the numbers of the centre.
    """
    told = " ".join((type(law).__doc__ or "").split("\n\n")[0].split()).partition("; q =")[0].rstrip(".")
    x0, y0 = (f"{law.x0:.17g}", f"{law.y0:.17g}") if centre else ("x0", "y0")
    meant = [f"{name} = ln {of} - {at}" for name, of, at in (("x", "N", x0), ("y", "D", y0))
             if re.search(rf"\b{name}\b", told)]  # fmt: skip
    return "; ".join([told, *([", ".join(meant)] if meant else [])])


def _read_skill(name: str, plain: Mapping[str, Any], place: str) -> SavedLaw:
    if plain.get("law") not in LAWS:
        raise InputError(
            f"{place} holds the law {plain.get('law')!r} for {name}, which this version does not have; it has "
            f"{', '.join(LAWS)}"
        )
    try:
        law = LAWS[plain["law"]].bind(plain["x0"], plain["y0"], tuple(plain["categories"])).for_skill(plain["own"])
        theta = np.array([float(plain["theta"][parameter]) for parameter in law.parameters])
        return SavedLaw(
            skill=name, law=law, theta=theta, q=np.array(plain["draws"], dtype=float),
            reach=_pair(plain["reach"]), mix=dict(plain["mix"]),
            runs=tuple(map(str, plain["runs"])), effects=_read_effects(plain.get("effects") or {}),
            setting=str(plain.get("setting", "")), weight=float(plain.get("weight", 1.0)),
            rivals=tuple(_read_skill(name, rival, place) for rival in plain.get("rivals") or ()),
            sizes=_pair(plain.get("sizes") or (math.nan, math.nan)),
            shares=np.array(plain["shares"], dtype=float) if plain.get("shares") else None,
            warnings=tuple(map(str, plain.get("warnings") or ())),
            **{one: plain[one] for one in _PLAIN},
        )  # fmt: skip
    except (KeyError, IndexError, TypeError, ValueError) as error:
        raise InputError(f"{place} is damaged: {name} lacks or garbles {error}; fit the runs again") from error


def _pair(plain: Sequence[float]) -> tuple[float, float]:
    return float(plain[0]), float(plain[1])


def _read_effects(plain: Mapping[str, Any]) -> MixEffects:
    if not plain:
        return MixEffects()
    mixes, offsets = (np.array(plain[name], dtype=float) for name in ("mixes", "ln L"))
    return MixEffects(categories=tuple(plain["categories"]), mixes=mixes, offsets=offsets)


_PLAIN = tuple(one.name for one in fields(SavedLaw) if one.name in
               ("level", "noise", "status", "reason", "objective", "n_runs", "digest"))  # fmt: skip
