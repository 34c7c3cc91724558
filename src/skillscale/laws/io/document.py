"""Fitted laws as one JSON object that can be registered, mailed or pasted, and read back without the runs.

In: a ``FittedLaw`` per skill. Out: plain values, and from these a ``SavedLaw`` per skill that predicts like the fit.
``schema`` counts changes of the format. Numbers are in full precision, because rounded parameters predict wrongly.
"""

import hashlib
import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from skillscale.errors import InputError
from skillscale.formatting import JsonObject
from skillscale.laws.fit.data import RunData
from skillscale.laws.fit.mix_effects import MixEffects
from skillscale.laws.fit.predict import PredictedLoss, predict
from skillscale.laws.fit.skill_law import FittedLaw
from skillscale.laws.forms.catalogue import LAWS
from skillscale.laws.forms.nd import Array, Law
from skillscale.laws.results import Interval
from skillscale.laws.uncertainty.resamples import interval

SCHEMA = 2
DRAWS = 200  # draws kept of a fit: enough for a 90 % interval, and a file of about 50 kB per skill

# Fields of a saved law that its JSON holds as they are
_SCALARS = ("level", "noise", "status", "reason", "objective", "n_runs", "digest")


@dataclass(frozen=True, kw_only=True)
class SavedLaw:
    """The law of one skill, read from a document, with draws of its log-parameters ``q`` (K, p).

    ``run_ids``: ids of the fitted runs, from MLflow or the table; the checkpoints of a run count once. ``n_runs``:
    number of losses; every checkpoint counts. ``digest``: hash of all fitted data. ``effects``, ``setting``, ``weight``
    and ``rivals`` are those of ``FittedLaw``. So are ``sizes``, ``shares`` and ``warnings``, where the document has
    them.
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
    run_ids: tuple[str, ...] = field(repr=False)
    digest: str
    reach: tuple[float, float] = field(metadata={"unit": "FLOP, least and largest 6 N D fitted"})
    mix: Mapping[str, float] = field(metadata={"unit": "mean shares of the runs, where the law needs a mix"})
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
        """Mean shares of the runs; None for a law without a mix."""
        return np.array(list(self.mix.values())) if self.mix else None

    @property
    def categories(self) -> tuple[str, ...]:
        """Categories of the mix that a prediction depends on; none where it depends on no mix."""
        candidates = (self.law.categories, self.effects.categories, *(rival.categories for rival in self.rivals))
        return next((names for names in candidates if names), ())

    def loss(self, N: npt.ArrayLike, D: npt.ArrayLike, h: npt.ArrayLike | None = None) -> PredictedLoss:
        """Predict L in nats per token, with the intervals of the law and of a new run.

        Args:
            N: parameters, (n,).
            D: tokens, (n,).
            h: mix, for laws that need one; by default the runs' mean mix.

        Raises:
            InputError: N or D is not positive, or h is not a mix.
        """
        mix = list(self.mix.values()) if h is None and self.mix else h
        predicted = predict(self.law, self.theta, self.q, N, D, mix, level=self.level, noise=self.noise)
        return predicted.scale(np.exp(self.effects.offsets_for(mix, len(predicted.value))))

    def optimum(self, C: float, h: npt.ArrayLike | None = None) -> Interval:
        """Return N*(C). Its interval includes the choice of law where there are rivals. Unknown where there is none."""
        value, _ = self.log_optimum(C, h)
        drawn = [law.log_optimum(C, h)[1][: max(round(law.weight * len(self.q)), 1)] for law in (self, *self.rivals)]
        return interval(value, np.concatenate(drawn), self.level).map(math.exp)

    def log_optimum(self, C: float, h: npt.ArrayLike | None = None) -> tuple[float, Array]:
        """Return ln N*(C) and its draws (K,) of this law alone; NaN where there is no optimum."""
        mix = list(self.mix.values()) if h is None and self.mix else h
        log_N = self.law.log_optimum(np.vstack([self.theta, self.law.theta(self.q)]), C, mix)[:, 0]
        return float(log_N[0]), log_N[1:]


@dataclass(frozen=True, kw_only=True)
class LawMetadata:
    """What the laws of a document have in common.

    ``convention``: definition of N. ``aggregates``: skills that are means of others. ``mixes``: named mix that each
    skill was fitted to, where there are several mixes; then the skill is named MIX/SKILL.
    """

    convention: str = ""
    aggregates: tuple[str, ...] = ()
    mixes: Mapping[str, str] = field(default_factory=dict)


def law_document(fitted: Mapping[str, FittedLaw], metadata: LawMetadata | None = None) -> JsonObject:
    """Convert fitted laws to plain values."""
    common = {} if metadata is None else {
        "convention": metadata.convention, "aggregates": list(metadata.aggregates), "mixes": dict(metadata.mixes)
    }  # fmt: skip
    return {"schema": SCHEMA, **common, "skills": {name: _write_skill(law) for name, law in fitted.items()}}


def read_metadata(document: JsonObject) -> LawMetadata:
    """Read what the laws of a document have in common. Documents of earlier versions have none of it."""
    return LawMetadata(
        convention=str(document.get("convention", "")), aggregates=tuple(map(str, document.get("aggregates") or ())),
        mixes=dict(document.get("mixes") or {}),
    )  # fmt: skip


def read_document(document: JsonObject, *, source: str = "this document") -> dict[str, SavedLaw]:
    """Read the laws of a document by skill, the inverse of ``law_document``.

    Raises:
        InputError: another schema, an unknown law, or missing parts.
    """
    schema = document.get("schema")
    if schema != SCHEMA:
        newer = isinstance(schema, int) and schema > SCHEMA
        cure = "Update skillscale" if newer else "Fit the runs again with `skillscale fit` and register the result"
        raise InputError(f"{source} holds laws of schema {schema!r}, but this version reads schema {SCHEMA}. {cure}.")
    return {name: _read_skill(name, law, source) for name, law in dict(document.get("skills") or {}).items()}


def _write_skill(fitted: FittedLaw) -> JsonObject:
    """Convert one law and its rivals. The number of a rival's draws is in proportion to its weight."""
    document = _write_law(fitted) | {"warnings": list(fitted.warnings)}
    if fitted.setting:
        document |= {
            "setting": fitted.setting,
            "weight": fitted.weight,
            "rivals": [_write_law(rival) for rival in fitted.rivals],
        }
    return document


def _write_law(fitted: FittedLaw) -> JsonObject:
    law, runs = fitted.law, fitted.runs
    keep = np.linspace(0, len(fitted.q) - 1, min(DRAWS, len(fitted.q))).astype(int)
    skill_category = getattr(law, "skill_category", "")
    mix = {} if fitted.mean_mix is None else dict(zip(law.categories, fitted.mean_mix.tolist(), strict=True))
    document = {
        "law": law.name, "formula": formula(law), "x0": law.x0, "y0": law.y0, "categories": list(law.categories),
        "own": skill_category, "theta": fitted.fit.parameters, "draws": fitted.q[keep].tolist(), "level": fitted.level,
        "noise": fitted.noise, "status": str(fitted.status), "reason": fitted.reason,
        "objective": fitted.fit.objective.name,
        "n_runs": fitted.n_runs, "runs": run_ids(runs), "digest": digest(runs),
        "reach": list(fitted.reach), "mix": mix, "weight": fitted.weight,
        "sizes": list(fitted.sizes), "shares": None if fitted.shares is None else fitted.shares.tolist(),
    }  # fmt: skip
    if len(fitted.effects):
        document["effects"] = {
            "categories": list(fitted.effects.categories), "mixes": fitted.effects.mixes.tolist(),
            "ln L": fitted.effects.offsets.tolist(),
        }  # fmt: skip
    return document


def run_ids(runs: RunData) -> list[str]:
    """Return the labels of the runs, each once, in the order of the table."""
    return list(dict.fromkeys(np.asarray(runs.labels).astype(str).tolist()))


def digest(runs: RunData) -> str:
    """Return the SHA-256 of run, N, D, loss, weight and shares of every row. The order of rows does not matter."""
    labels = np.asarray(runs.labels).astype(str).tolist()
    numbers = [runs.N, runs.D, runs.L, np.asarray(runs.weights), *(() if runs.h is None else runs.h.T)]
    rows = sorted(zip(labels, np.array(numbers, dtype=float).T.tolist(), strict=True))
    text = json.dumps([list(runs.categories if runs.h is not None else ()), rows])
    return hashlib.sha256(text.encode()).hexdigest()


def formula(law: Law, *, centre: bool = True) -> str:
    """Return the formula of a law, the first paragraph of its docstring, with the definitions of x and y.

    Args:
        law: law, bound to the centre of its runs.
        centre: whether to include the numbers of the centre.
    """
    text = " ".join((type(law).__doc__ or "").split("\n\n")[0].split()).partition("; q =")[0].rstrip(".")
    x0, y0 = (f"{law.x0:.17g}", f"{law.y0:.17g}") if centre else ("x0", "y0")
    definitions = [f"{name} = ln {letter} - {at}" for name, letter, at in (("x", "N", x0), ("y", "D", y0))
             if re.search(rf"\b{name}\b", text)]  # fmt: skip
    return "; ".join([text, *([", ".join(definitions)] if definitions else [])])


def _read_skill(name: str, document: JsonObject, source: str) -> SavedLaw:
    if document.get("law") not in LAWS:
        raise InputError(
            f"{source} holds the law {document.get('law')!r} for {name}, which this version does not have. It has "
            f"{', '.join(LAWS)}."
        )
    try:
        law = (
            LAWS[document["law"]]
            .bind(document["x0"], document["y0"], tuple(document["categories"]))
            .for_skill(document["own"])
        )
        theta = np.array([float(document["theta"][parameter]) for parameter in law.parameters])
        return SavedLaw(
            skill=name, law=law, theta=theta, q=np.array(document["draws"], dtype=float),
            reach=_pair(document["reach"]), mix=dict(document["mix"]),
            run_ids=tuple(map(str, document["runs"])), effects=_read_effects(document.get("effects") or {}),
            setting=str(document.get("setting", "")), weight=float(document.get("weight", 1.0)),
            rivals=tuple(_read_skill(name, rival, source) for rival in document.get("rivals") or ()),
            sizes=_pair(document.get("sizes") or (math.nan, math.nan)),
            shares=np.array(document["shares"], dtype=float) if document.get("shares") else None,
            warnings=tuple(map(str, document.get("warnings") or ())),
            **{key: document[key] for key in _SCALARS},
        )  # fmt: skip
    except (KeyError, IndexError, TypeError, ValueError) as error:
        raise InputError(
            f"{source} is damaged: {name} lacks {error}, or its value is wrong. Fit the runs again."
        ) from error


def _pair(values: Sequence[float]) -> tuple[float, float]:
    return float(values[0]), float(values[1])


def _read_effects(document: JsonObject) -> MixEffects:
    if not document:
        return MixEffects()
    mixes, offsets = (np.array(document[name], dtype=float) for name in ("mixes", "ln L"))
    return MixEffects(categories=tuple(document["categories"]), mixes=mixes, offsets=offsets)
