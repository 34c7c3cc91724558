"""Fitted laws as one JSON object that can be registered, mailed or pasted, and read back without the runs.

In: a ``FittedLaw`` per skill. Out: plain values, and from these a ``SavedLaw`` per skill that predicts like the fit.
``schema`` counts changes of the format. Numbers are in full precision, because rounded parameters predict wrongly.
"""

import hashlib
import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from skillscale.errors import InputError, show
from skillscale.formatting import JsonObject
from skillscale.laws.fit.data import RunData
from skillscale.laws.fit.mix_effects import MixEffects
from skillscale.laws.fit.predict import PredictedLoss, predict
from skillscale.laws.fit.skill_law import FittedLaw
from skillscale.laws.forms.catalogue import LAWS
from skillscale.laws.forms.nd import Array, Law
from skillscale.laws.io.schema import (
    EffectsPart,
    InformationPart,
    LawPart,
    SkillPart,
    check_document,
    damaged,
    show_part,
)
from skillscale.laws.results import Interval
from skillscale.laws.uncertainty.diagnostics import Cure, Diagnosis
from skillscale.laws.uncertainty.posterior import ParameterInformation
from skillscale.laws.uncertainty.resamples import interval

SCHEMA = 2
_MOST_VARIANCE = 1e12  # of a log-parameter
_ROUNDING = 1e-6
DRAWS = 200  # draws kept of a fit: enough for a 90 % interval, and a file of about 50 kB per skill
_LARGEST_LOSS = 1e6  # of the centre of the runs, in any unit
_SUM = 1e-3  # how far the shares of a mix may be from 1


@dataclass(frozen=True, kw_only=True)
class SavedLaw:
    """The law of one skill, read from a document, with draws of its log-parameters ``q`` (K, p).

    ``run_ids``: ids of the fitted runs, from MLflow or the table; the checkpoints of a run count once. ``n_runs``:
    number of losses; every checkpoint counts. ``digest``: hash of all fitted data. ``effects``, ``setting``, ``weight``
    and ``rivals`` are those of ``FittedLaw``. So are ``sizes``, ``tokens``, ``shares`` and ``warnings``, where the
    document has them.
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
    tokens: tuple[float, float] = (math.nan, math.nan)
    shares: Array | None = field(default=None, repr=False)
    warnings: tuple[str, ...] = field(default=(), repr=False)
    information: ParameterInformation | None = field(default=None, repr=False)

    @property
    def diagnoses(self) -> tuple[Diagnosis, ...]:
        """Failed checks of the fit, the gravest first. The report of its runs shows them."""
        return tuple(Diagnosis(text=text, command=Cure.SHOW_RUNS) for text in self.warnings)

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
    """Read what the laws of a checked document have in common. Documents of earlier versions have none of it."""
    return LawMetadata(
        convention=str(document.get("convention", "")), aggregates=tuple(map(str, document.get("aggregates") or ())),
        mixes=dict(document.get("mixes") or {}),
    )  # fmt: skip


def read_document(document: JsonObject, *, source: str = "this document") -> dict[str, SavedLaw]:
    """Read the laws of a document by skill, the inverse of ``law_document``.

    Raises:
        InputError: another schema, an unknown law, or parts that are missing, wrong or disagree.
    """
    checked = check_document(document, source, SCHEMA)
    if checked.mixes and (absent := checked.skills.keys() - checked.mixes.keys()):
        raise damaged(source, "mixes", f"lacks {show(min(absent))}")
    for name, mix in (checked.mixes or {}).items():
        if not name.startswith(f"{mix}/"):
            raise damaged(
                source, "mixes", f"gives {show(name)} the mix {show(mix)}, with which its name does not begin"
            )
    return {name: _read_skill(name, part, source) for name, part in checked.skills.items()}


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
        "sizes": list(fitted.sizes), "tokens": list(fitted.tokens),
        "shares": None if fitted.shares is None else fitted.shares.tolist(),
    }  # fmt: skip
    if fitted.information is not None:
        document["information"] = {
            "prior": fitted.information.prior.tolist(), "data": fitted.information.data.tolist(),
            "confounded": fitted.information.confounded,
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


def _read_skill(name: str, part: SkillPart, source: str) -> SavedLaw:
    saved = _read_law(name, part, source)
    rivals = tuple(_read_law(name, rival, source) for rival in part.rivals or ())
    if any(rival.categories not in ((), saved.categories) for rival in rivals if saved.categories):
        raise damaged(source, show_part(name), "has rivals of other categories")
    return replace(saved, setting=part.setting, rivals=rivals, warnings=tuple(part.warnings or ()))


def _read_law(name: str, part: LawPart, source: str) -> SavedLaw:
    """Return a law whose arrays agree, and which predicts finite losses of its runs."""
    if part.law not in LAWS:
        raise InputError(
            f"{source} holds the law {show(part.law)} for {show_part(name)}, which this version does not have. It has "
            f"{', '.join(LAWS)}."
        )
    place = show_part(name)
    if len(set(part.categories)) < len(part.categories) or (LAWS[part.law].joint and not part.skill_category):
        raise damaged(source, place, f"has the categories {show(part.categories)} twice or without its own")
    law = LAWS[part.law].bind(part.x0, part.y0, tuple(part.categories)).for_skill(part.skill_category)
    absent = [parameter for parameter in law.parameters if parameter not in part.theta]
    if absent:
        raise damaged(source, place, f"lacks {show(absent[0])}")
    theta = np.array([part.theta[parameter] for parameter in law.parameters])
    n_draws = {len(draw) for draw in part.draws}
    with np.errstate(all="ignore"):
        estimate = law.log_parameters(theta[None])
    if not (np.isfinite(estimate).all() and n_draws == {estimate.shape[1]}):
        raise damaged(source, place, f"needs {estimate.shape[1]} finite log-parameters in theta and in each draw")
    effects = _read_effects(part.effects, place, source)
    categories = law.categories or effects.categories
    if set(part.mix) - set(categories) or (law.needs_mix and list(part.mix) != list(law.categories)):
        raise damaged(
            source, place, f"has a mix of {show(list(part.mix))}, but the categories {show(list(categories))}"
        )
    if part.mix and abs(math.fsum(part.mix.values()) - 1) > _SUM:
        raise damaged(source, place, f"has a mix that sums to {math.fsum(part.mix.values()):.6g}, not 1")
    n_shares = {len(row) for row in part.shares or ()}
    if len(n_shares) > 1 or (n_shares and categories and n_shares != {len(categories)}):
        raise damaged(source, place, "has shares whose rows do not agree with its categories")
    saved = SavedLaw(
        skill=name, law=law, theta=theta, q=np.array(part.draws), reach=(part.reach[0], part.reach[1]),
        mix=dict(part.mix), level=part.level, noise=part.noise, status=str(part.status), reason=part.reason,
        objective=part.objective, n_runs=part.n_runs, digest=part.digest,
        run_ids=tuple(part.runs), effects=effects, weight=part.weight, sizes=_range(part.sizes),
        tokens=_range(part.tokens),
        shares=np.array(part.shares) if part.shares else None,
        information=_read_information(part.information, estimate.shape[1], place, source),
    )  # fmt: skip
    with np.errstate(all="ignore"):
        centre = law.loss(theta, math.exp(part.x0), math.exp(part.y0), saved.mean_mix)
    if not ((centre > 0) & (centre < _LARGEST_LOSS)).all():
        raise damaged(source, place, f"predicts the loss {float(centre[0]):g} at the centre of its runs")
    return saved


def _range(ends: list[float | None] | None) -> tuple[float, float]:
    least, most = (math.nan if end is None else end for end in ends or (None, None))
    return least, most


def _read_information(part: InformationPart | None, p: int, place: str, source: str) -> ParameterInformation | None:
    if part is None:
        return None
    if any(len(rows) != p or {len(row) for row in rows} != {p} for rows in (part.prior, part.data)):
        raise damaged(source, place, f"needs information of {p} rows and columns, the number of its log-parameters")
    covariances = [np.array(rows) for rows in (part.prior, part.data)]
    if not all(_is_covariance(covariance) for covariance in covariances):
        raise damaged(source, place, "has information that is no covariance: symmetric, with correlations up to 1")
    return ParameterInformation(prior=covariances[0], data=covariances[1], confounded=part.confounded)


def _is_covariance(matrix: Array) -> bool:
    variances = np.diag(matrix)
    if not (np.isfinite(matrix).all() and (variances >= 0).all() and variances.max() <= _MOST_VARIANCE):
        return False
    limit = np.sqrt(np.outer(variances, variances)) * (1 + _ROUNDING) + _ROUNDING * variances.max()
    return bool((np.abs(matrix) <= limit).all() and (np.abs(matrix - matrix.T) <= limit * _ROUNDING + 1e-300).all())


def _read_effects(part: EffectsPart | None, place: str, source: str) -> MixEffects:
    if part is None:
        return MixEffects()
    shapes = {len(row) for row in part.mixes}
    if len(part.mixes) != len(part.offsets) or shapes - {len(part.categories)}:
        raise damaged(source, place, "has effects of mixes that disagree in their numbers")
    mixes = np.array(part.mixes).reshape(len(part.mixes), len(part.categories))
    return MixEffects(categories=tuple(part.categories), mixes=mixes, offsets=np.array(part.offsets))
