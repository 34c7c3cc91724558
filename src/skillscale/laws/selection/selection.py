"""Which law to extrapolate with: the one that predicts the larger of the fitted runs best from the smaller ones.

No run beyond the fitted ones is looked at. One law is chosen for all skills of a table, which is steadier than one a
skill. Held-out runs tell bad laws from good ones, and hardly rank the good ones: within the noise of the comparison
the law of fewest parameters is taken, and intervals own how far the others that do nearly as well would differ.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt
import pandas as pd

from skillscale.errors import FitError
from skillscale.laws.fit.data import RunData
from skillscale.laws.fit.fit import STARTS
from skillscale.laws.fit.objective import Objective
from skillscale.laws.forms.catalogue import CHINCHILLA, LAWS
from skillscale.laws.forms.nd import Array, Law
from skillscale.laws.selection.extrapolation import (
    Extrapolation,
    PredictionSetting,
    excess_rate,
    extrapolate,
    pooled,
    with_discrepancy,
)
from skillscale.laws.selection.holdout import (
    NEAR,
    Cutoff,
    checkpoint_weights,
    cutoffs,
    has_checkpoints,
    has_enough_left,
    inner_cutoffs,
    mix_codes,
    run_shares,
    without_early,
)

Tell = Callable[[str], None]

PLAIN = ("chinchilla", "coupled", "drifting")
OF_MIX = ("effective_data", "additive_mixture", "separable")
TRANSIENT = "separable_transient"  # knows early checkpoints, so none are left out
EARLY = (0.0, 0.3, 0.55)  # shares of a run's last D before which checkpoints may be left out
PROMISING = 2.0  # errors up to this times the least are worth trying without early checkpoints
MANY = 60  # runs from which a law of nine parameters in N and D is tried
RIVAL = 1.5  # errors up to this times the least are those of rivals
MOST_RIVALS = 4
UNKNOWN_RATE = 0.01  # ln L per e-fold of N or C where no run can be held out (assumption: what good laws missed by)
_WORTH = 0.98  # of the error without mix effects, which that with them must come below
_DRAWS = 2000
_SURE = 3.0  # standard errors of a slope
_FEWEST_RISING = 3  # degrees of freedom below which a rise is chance


@dataclass(frozen=True, kw_only=True)
class CandidateLaw:
    """A setting, and how it predicted held-out larger runs.

    ``errors``: mean relative error by skill; ``by_run``: its mean over skills by held-out run; ``rate``: discrepancy in
    ln L per e-fold; ``reason``: why it could not be tried, else empty.
    """

    setting: PredictionSetting
    n_parameters: int = 0
    errors: Mapping[str, float] = field(default_factory=dict)
    by_run: "pd.Series[float]" = field(default_factory=lambda: pd.Series(dtype=float), repr=False, compare=False)
    rate: float = math.nan
    reason: str = ""

    @property
    def error(self) -> float:
        """Mean relative error over skills; infinite where it could not be tried."""
        return float(np.mean(list(self.errors.values()))) if self.errors else math.inf


@dataclass(frozen=True, kw_only=True)
class PredictiveEnsemble:
    """One skill's predictions: by the chosen law, which is the first of ``members``, and by all, each by its weight."""

    members: tuple[Extrapolation, ...]
    weights: Array

    @property
    def chosen(self) -> Extrapolation:
        """The single law's."""
        return self.members[0]

    def interval(self, where: RunData, level: float) -> tuple[Array, Array]:
        """Both ends of ln L of new runs about the chosen law, how far its rivals differ included; each (n,)."""
        middle = self.chosen.log_loss(where)
        apart = np.array([one.log_loss(where) - middle for one in self.members])
        low, high = self.chosen.interval(where, level)
        widened = np.sqrt(1 + self.weights @ apart**2 / self.chosen.sd(where) ** 2)
        return middle - (middle - low) * widened, middle + (high - middle) * widened

    def mean_log_loss(self, where: RunData) -> Array:
        """Ln L averaged over the laws, (n,)."""
        return np.asarray(self.weights @ np.array([one.log_loss(where) for one in self.members]))

    def draws(self, where: RunData, *, count: int = _DRAWS, seed: int = 0) -> Array:
        """Ln L of new runs, (count, n), each draw from one of the laws."""
        rng = np.random.default_rng(seed)
        counts = rng.multinomial(count, self.weights)
        parts = zip(self.members, counts, strict=True)
        return np.concatenate([one.draws(where, count=int(n), rng=rng) for one, n in parts if n])

    def mean_interval(self, where: RunData, level: float) -> tuple[Array, Array]:
        """Both ends of ln L of new runs under the mixture of laws, each (n,)."""
        low, high = np.quantile(self.draws(where), [(1 - level) / 2, (1 + level) / 2], axis=0)
        return low, high


@dataclass(frozen=True, kw_only=True)
class LawSelection:
    """The chosen setting, and every candidate with its error, best first.

    ``letter``: what told a larger run; ``limits``: of the inner hold-outs; none where the runs have too few sizes, so
    that nothing could be compared.
    """

    letter: str
    limits: tuple[Cutoff, ...]
    chosen: CandidateLaw
    candidates: tuple[CandidateLaw, ...]

    @property
    def rivals(self) -> tuple[CandidateLaw, ...]:
        """The chosen one, and other laws that did nearly as well, one setting each."""
        near = [one for one in self.candidates if one.error <= RIVAL * self.chosen.error]
        found = {self.chosen.setting.law.name: self.chosen}
        for one in near:
            found.setdefault(one.setting.law.name, one)
        return tuple(found.values())[:MOST_RIVALS]

    @property
    def weights(self) -> Array:
        """Of the rivals: by the inverse square of their errors."""
        errors = np.array([one.error for one in self.rivals])
        if not np.isfinite(errors).all():
            return np.full(len(errors), 1 / len(errors))
        weights = 1 / np.maximum(errors, 1e-9) ** 2
        return np.asarray(weights / weights.sum())

    def table(self) -> pd.DataFrame:
        """One row a candidate: law setting error n_parameters rate chosen weight reason; error is relative."""
        weights = {one.setting.name: float(w) for one, w in zip(self.rivals, self.weights, strict=True)}
        return pd.DataFrame(
            {
                "law": one.setting.law.name,
                "setting": one.setting.name,
                "error": one.error if one.errors else math.nan,
                "n_parameters": one.n_parameters,
                "rate": one.rate,
                "chosen": one is self.chosen,
                "weight": weights.get(one.setting.name, 0.0),
                "reason": one.reason,
            }
            for one in self.candidates
        )

    def fitted(self, data: Mapping[str, RunData], *, tell: Tell | None = None) -> dict[str, PredictiveEnsemble]:
        """The chosen law, from many starts, and its rivals, fitted to all runs and ready to predict larger ones.

        Raises:
            FitError: the runs of a skill can't carry the chosen law.
        """
        limit = all_runs(data, self.letter)
        members = []
        for one in self.rivals:
            try:
                told = extrapolate(data, one.setting, limit, tell=tell, starts=STARTS if one is self.chosen else 1)
            except FitError:
                if one is self.chosen:
                    raise
                continue
            members.append((told, one))
        kept = [one for _, one in members]
        weights = np.array([w for one, w in zip(self.rivals, self.weights, strict=True) if one in kept])
        found = [with_discrepancy(told, one.rate if math.isfinite(one.rate) else UNKNOWN_RATE) for told, one in members]
        return {
            name: PredictiveEnsemble(members=tuple(told[name] for told in found), weights=weights / weights.sum())
            for name in data
        }


def all_runs(data: Mapping[str, RunData], letter: str) -> Cutoff:
    """The limit that all of these runs lie within."""
    probe = Cutoff(letter=letter, value=1.0)
    return Cutoff(letter=letter, value=max(float(probe.sizes(points).max()) for points in data.values()))


def candidates(data: Mapping[str, RunData], laws: Sequence[str] = ()) -> tuple[PredictionSetting, ...]:
    """Settings that make sense for these runs: laws of N and D, laws of the mix where it varies, and what to leave out.

    Args:
        data: each skill's runs.
        laws: names of the only laws to try; empty: those that the runs may carry. The joint mixture law is tried only
            when it is named: it takes ten times as long as the others.
    """
    some = next(iter(data.values()))
    checkpoints = any(has_checkpoints(points) for points in data.values())
    return tuple(
        PredictionSetting(law=LAWS[name], after=after)
        for name in (laws or _sensible(some, checkpoints=checkpoints))
        for after in _early(LAWS[name], thorough=bool(laws) or some.h is None, checkpoints=checkpoints)
    )


def _sensible(points: RunData, *, checkpoints: bool) -> list[str]:
    names = list(PLAIN) + (["farseer"] if points.n_clusters >= MANY and points.h is None else [])
    if points.h is not None:
        names += [*OF_MIX, *([TRANSIENT] if checkpoints else [])]
    return names


def _early(law: Law, *, thorough: bool, checkpoints: bool) -> tuple[float, ...]:
    """Shares before which to leave checkpoints out; none of a law that ignores a mix that varies, no contender."""
    if not checkpoints or law.name == TRANSIENT or law.joint or not (thorough or law.needs_mix):
        return (0.0,)
    return EARLY


def data_for_setting(points: RunData, setting: PredictionSetting) -> RunData:
    """The checkpoints that a setting is fitted to, near-duplicates weighing as one."""
    return checkpoint_weights(without_early(points, setting.after))[0]


def select_law(
    data: Mapping[str, RunData], *, letter: str = "N", laws: Sequence[str] = (), objective: Objective | None = None,
    tell: Tell | None = None,
) -> LawSelection:  # fmt: skip
    """The setting with the least mean relative error on the larger of these runs, each time fitted to the smaller.

    Args:
        data: each skill's runs; no others are looked at. A skill with too few sizes has no say.
        letter: what tells a larger run: N, or C = 6 N D; C too where sizes are too few to hold one out.
        laws: names of the only laws to try.
        objective: of the fits; None: Huber with delta twice the noise.
        tell: is told of each fit.

    Raises:
        FitError: no candidate could be fitted.
    """
    everything = data
    limits, data = _holdable(everything, letter)
    settings = [replace(one, objective=objective) for one in candidates(everything, laws)]
    if not limits:
        return _unchosen(everything, letter, settings, named=bool(laws))
    tried = [one for setting in settings if not setting.after for one in _tried(data, setting, limits, tell)]
    promising = {name for name, error in _least(tried).items() if error <= PROMISING * min(_least(tried).values())}
    tried += [
        one
        for setting in settings
        if setting.after and setting.law.name in promising
        for one in _tried(data, setting, limits, tell)
    ]
    able = [one for one in tried if one.errors]
    if not able:
        raise FitError(f"no law can be fitted to the smaller of these runs; {tried[0].reason}")
    best = _best(able)
    if len(data) > 1 and not best.setting.law.joint:
        more = _tried(data, replace(best.setting, effects=False, pooled=True), limits, tell)
        tried += more
        # Pooling leaves less to the runs' noise, so that it needs to be no worse, not better
        best = min((one for one in more if one.error <= best.error), key=lambda one: one.error, default=best)
    tried.sort(key=lambda one: one.error)
    return LawSelection(letter=limits[0].letter, limits=limits, chosen=best, candidates=tuple(tried))


def ineligible_reason(points: RunData, letter: str = "N") -> str:
    """Why a skill's runs can have no part in a choice: not even the plainest law can be told; empty where it can."""
    if len(cutoffs(points.N)) < 2:
        return (
            f"the runs to fit have one size only, N = {points.N[0]:.4g}; what N does to the loss can't be told: add "
            "sizes, or raise the limit of a backtest"
        )
    rise, error = _rise_with_D(points)
    if rise > _SURE * error:
        return (
            f"the loss rises with D among runs of one size and mix, by {rise:.2g} +- {error:.2g} in ln L per e-fold, "
            "so that what is believed beforehand would decide the law; check the columns, or name a law with --law"
        )
    try:
        extrapolate({"": points}, PredictionSetting(law=CHINCHILLA), all_runs({"": points}, letter))
    except FitError as error:
        return str(error)
    return ""


def _rise_with_D(points: RunData) -> tuple[float, float]:
    """Slope of ln L by ln D within runs of one size and mix, and its standard error; -inf and 0 where none can be told.

    Early checkpoints are left out, for a warm-up may raise a loss.
    """
    late = points.take(run_shares(points) >= EARLY[1])
    group = np.unique(np.column_stack([np.round(np.log(late.N), 3), mix_codes(late)]), axis=0, return_inverse=True)[1]
    x, y = (_centred(np.asarray(group).ravel(), values) for values in (np.log(late.D), late.log_L))
    free, square = len(late) - int(np.max(group)) - 2, float(x @ x)
    if free < _FEWEST_RISING or square < NEAR**2:
        return -math.inf, 0.0
    slope = float(x @ y) / square
    return slope, math.sqrt(float(((y - slope * x) ** 2).sum()) / free / square)


def _centred(group: npt.NDArray[np.intp], values: Array) -> Array:
    counts = np.bincount(group)
    return np.asarray(values - (np.bincount(group, weights=values) / counts)[group])


def _least(tried: Sequence[CandidateLaw]) -> dict[str, float]:
    """The least error of each law that could be tried."""
    found: dict[str, float] = {}
    for one in tried:
        if one.errors:
            found[one.setting.law.name] = min(one.error, found.get(one.setting.law.name, math.inf))
    return found


def _holdable(data: Mapping[str, RunData], letter: str) -> tuple[tuple[Cutoff, ...], dict[str, RunData]]:
    """Limits to hold out beyond, and the skills whose runs have enough on both sides of each.

    Where sizes are too few, the runs of most compute are held out, such as the last checkpoints of the largest size.
    """
    for one_letter in dict.fromkeys((letter, "C")):
        limits = inner_cutoffs(data, one_letter)
        while limits:
            able = {
                name: points for name, points in data.items() if all(has_enough_left(one, points) for one in limits)
            }
            if able:
                return limits, able
            limits = limits[:-1]
    return (), {}


def _unchosen(
    data: Mapping[str, RunData], letter: str, settings: Sequence[PredictionSetting], *, named: bool
) -> LawSelection:
    """Without sizes to hold out: the law that was named, or the plainest that sees what varies."""
    plain = "chinchilla" if next(iter(data.values())).h is None else "separable"
    setting = settings[0] if named else next(one for one in settings if one.law.name == plain and not one.after)
    only = CandidateLaw(setting=setting, reason="too few sizes to hold out the larger ones")
    return LawSelection(letter=letter, limits=(), chosen=only, candidates=(only,))


def _best(able: Sequence[CandidateLaw]) -> CandidateLaw:
    """The fewest parameters among those that the held-out runs can't tell from the best."""
    best = min(able, key=lambda one: one.error)
    level = [one for one in able if _ties(one, best)]
    return min(level, key=lambda one: (one.n_parameters, one.error))


def _ties(one: CandidateLaw, best: CandidateLaw) -> bool:
    """Whether errors differ by less than the standard error of their difference over held-out runs."""
    apart = (one.by_run - best.by_run).dropna()
    if one is best or len(apart) < 2:
        return one is best
    return float(apart.mean()) < float(apart.std(ddof=1)) / math.sqrt(len(apart))


def _tried(
    data: Mapping[str, RunData], setting: PredictionSetting, limits: Sequence[Cutoff], tell: Tell | None
) -> list[CandidateLaw]:
    """The setting on every inner hold-out, without and with mix effects."""
    plain: list[_Trial] = []
    mixed: list[_Trial] = []
    for limit in limits:
        fitted, held = _parted(data, limit)
        try:
            told = extrapolate(fitted, replace(setting, pooled=False), limit, tell=tell)
            told = pooled(told) if setting.pooled else told
        except FitError as error:
            return [CandidateLaw(setting=setting, reason=str(error))]
        plain.append(_Trial.of(told, held))
        with_effects = {name: one.with_effects() for name, one in told.items()}
        if any(len(one.effects) for one in with_effects.values()):
            mixed.append(_Trial.of(with_effects, held))
    found = [_candidate(setting, plain)]
    if len(mixed) == len(limits):
        both = _candidate(replace(setting, effects=True), mixed)
        found += [both] if both.error < _WORTH * found[0].error else []
    return found


def _parted(data: Mapping[str, RunData], limit: Cutoff) -> tuple[dict[str, RunData], dict[str, RunData]]:
    fits = {name: limit.fits(points) for name, points in data.items()}
    return (
        {name: points.take(fits[name]) for name, points in data.items()},
        {name: points.take(~fits[name]) for name, points in data.items()},
    )


@dataclass(frozen=True)
class _Trial:
    """One hold-out: relative error of each held-out row with its skill and run; discrepancy; size of the law."""

    rows: pd.DataFrame
    rate: float
    n_parameters: int

    @classmethod
    def of(cls, told: Mapping[str, Extrapolation], held: Mapping[str, RunData]) -> "_Trial":
        frames = [
            pd.DataFrame(
                {
                    "skill": name,
                    "run": np.asarray(points.labels).astype(str),
                    "error": np.abs(np.expm1(told[name].log_loss(points) - points.log_L)),
                }
            )
            for name, points in held.items()
        ]
        size = max(one.fit.n_free for one in told.values())
        return cls(pd.concat(frames, ignore_index=True), excess_rate(told, held), size)


def _candidate(setting: PredictionSetting, trials: Sequence[_Trial]) -> CandidateLaw:
    by_skill = pd.DataFrame([trial.rows.groupby("skill")["error"].mean() for trial in trials])
    by_run = [trial.rows.groupby("run")["error"].mean().add_prefix(f"{at}/") for at, trial in enumerate(trials)]
    return CandidateLaw(
        setting=setting, n_parameters=max(trial.n_parameters for trial in trials),
        errors={str(name): float(error) for name, error in by_skill.mean().items()}, by_run=pd.concat(by_run),
        rate=math.sqrt(float(np.mean([trial.rate**2 for trial in trials]))),
    )  # fmt: skip
