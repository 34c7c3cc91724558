"""Fitted laws as plain values: what is registered, mailed or pasted, and read back without the runs.

One JSON object. ``schema`` counts its changes; numbers are in full precision, for rounded parameters predict wrongly.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

import numpy as np
import numpy.typing as npt

from skillscale.errors import InputError
from skillscale.laws.catalogue import LAWS
from skillscale.laws.fitted import Fitted
from skillscale.laws.forms import Array, Law
from skillscale.laws.results import Interval
from skillscale.laws.uncertainty import interval

SCHEMA = 1
DRAWS = 200  # kept of a fit's draws: enough for the ends of a 90 % interval, and a file of some 50 kB a skill


@dataclass(frozen=True, kw_only=True)
class SavedLaw:
    """One skill's law as it was fitted, with draws of its log-parameters ``q`` (K, p)."""

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
    reach: tuple[float, float] = field(metadata={"unit": "FLOP, least and largest 6 N D fitted"})
    mix: Mapping[str, float] = field(metadata={"unit": "mean shares of the runs, where the law asks for a mix"})

    def loss(self, N: npt.ArrayLike, D: npt.ArrayLike, h: npt.ArrayLike | None = None) -> tuple[Array, Array, Array]:
        """L in nats per token, with the ends of its interval, each (n,); at the runs' mean mix where h is None."""
        mix = list(self.mix.values()) if h is None and self.mix else h
        tails = [(1 - self.level) / 2, (1 + self.level) / 2]
        z = self.law.covariates(N, D, mix)
        lo, hi = np.exp(np.quantile(self.law.log_loss(self.q, z), tails, axis=0))
        return self.law.loss(self.theta, N, D, mix), lo, hi

    def optimum(self, C: float, h: npt.ArrayLike | None = None) -> Interval:
        """N*(C) with its interval; unknown where the law has none."""
        mix = list(self.mix.values()) if h is None and self.mix else h
        value = self.law.log_optimum(self.theta[None], C, mix)[0, 0]
        drawn = self.law.log_optimum(self.law.theta(self.q), C, mix)[:, 0]
        return interval(float(value), drawn, self.level).map(math.exp)


def document(fitted: Mapping[str, Fitted]) -> dict[str, Any]:
    """Fitted laws as plain values."""
    return {"schema": SCHEMA, "skills": {name: _skill(one) for name, one in fitted.items()}}


def read_document(plain: Mapping[str, Any], *, place: str = "this document") -> dict[str, SavedLaw]:
    """Inverse of ``document``, by skill.

    Raises:
        InputError: another schema, a law that is not known here, or parts are missing.
    """
    schema = plain.get("schema")
    if schema != SCHEMA:
        newer = isinstance(schema, int) and schema > SCHEMA
        cure = "update skillscale" if newer else "fit the runs again with `skillscale fit` and register the result"
        raise InputError(f"{place} holds laws of schema {schema!r}, but this version reads schema {SCHEMA}; {cure}")
    return {name: _read_skill(name, one, place) for name, one in dict(plain.get("skills") or {}).items()}


def _skill(one: Fitted) -> dict[str, Any]:
    law, points = one.law, one.points
    flops = 6 * points.N * points.D
    keep = np.linspace(0, len(one.q) - 1, min(DRAWS, len(one.q))).astype(int)
    own = getattr(law, "own", "")
    mix = {} if one.mean_mix is None else dict(zip(law.categories, one.mean_mix.tolist(), strict=True))
    return {
        "law": law.name, "formula": _formula(law), "x0": law.x0, "y0": law.y0, "categories": list(law.categories),
        "own": own, "theta": one.fit.parameters, "draws": one.q[keep].tolist(), "level": one.level,
        "noise": one.fit.noise, "status": str(one.status), "reason": one.reason, "objective": one.fit.objective.name,
        "n_runs": one.n_runs, "reach": [float(flops.min()), float(flops.max())], "mix": mix,
    }  # fmt: skip


def _formula(law: Law) -> str:
    """The first sentence of the law's docstring, which is its formula."""
    return " ".join((type(law).__doc__ or "").split("\n\n")[0].split())


def _read_skill(name: str, plain: Mapping[str, Any], place: str) -> SavedLaw:
    if plain.get("law") not in LAWS:
        raise InputError(
            f"{place} holds the law {plain.get('law')!r} for {name}, which this version does not have; it has "
            f"{', '.join(LAWS)}"
        )
    try:
        law = LAWS[plain["law"]].bound_to(plain["x0"], plain["y0"], tuple(plain["categories"])).for_skill(plain["own"])
        theta = np.array([float(plain["theta"][parameter]) for parameter in law.parameters])
        return SavedLaw(
            skill=name, law=law, theta=theta, q=np.array(plain["draws"], dtype=float),
            reach=(float(plain["reach"][0]), float(plain["reach"][1])), mix=dict(plain["mix"]),
            **{one: plain[one] for one in _PLAIN},
        )  # fmt: skip
    except (KeyError, IndexError, TypeError, ValueError) as error:
        raise InputError(f"{place} is damaged: {name} lacks or garbles {error}; fit the runs again") from error


_PLAIN = tuple(one.name for one in fields(SavedLaw) if one.name in
               ("level", "noise", "status", "reason", "objective", "n_runs"))  # fmt: skip
