"""Select the law to extrapolate with: the one that predicts the larger of the fitted runs best from the smaller ones.

In: the runs of each skill, and the names of laws to try. Out: a ``LawSelection`` with the chosen setting, its rivals
and every candidate's error.

No run beyond the fitted ones is used. One law is chosen for all skills of a table, which is more stable than one per
skill. Held-out runs separate bad laws from good ones, but hardly rank the good ones. Within the noise of the comparison
the law with the fewest parameters is taken, and intervals include how far its rivals differ.
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
    estimate_discrepancy_rate,
    extrapolate,
    pool_exponents,
    with_discrepancy,
)
from skillscale.laws.selection.holdout import (
    DUPLICATE_GAP,
    Cutoff,
    checkpoint_weights,
    has_checkpoints,
    has_enough_left,
    inner_cutoffs,
    level_maxima,
    mix_codes,
    run_shares,
    without_early,
)

Tell = Callable[[str], None]

ND_LAWS = ("chinchilla", "coupled", "drifting")
MIX_LAWS = ("effective_data", "additive_mixture", "separable")
TRANSIENT_LAW = "separable_transient"  # models early checkpoints, so none are excluded
MIN_RUN_SHARES = (0.0, 0.3, 0.55)  # shares of a run's last D before which checkpoints may be excluded
PROMISING_RATIO = 2.0  # laws with errors up to this times the least are tried without early checkpoints
MANY_RUNS = 60  # least number of runs for a law of nine parameters in N and D
RIVAL_RATIO = 1.5  # laws with errors up to this times the least are rivals
MAX_RIVALS = 4
DEFAULT_DISCREPANCY_RATE = (
    0.01  # ln L per e-fold of N or C where no run can be held out (assumption: typical of good laws)
)
_MIN_GAIN = 0.98  # mix effects must lower the error to below this share
_DRAWS = 2000
_RISE_SE = 3.0  # standard errors above which a slope is significant
_FEWEST_RISING = 3  # degrees of freedom below which a rise is not tested


@dataclass(frozen=True, kw_only=True)
class CandidateLaw:
    """A setting, and how well it predicted held-out larger runs.

    ``errors``: mean relative error by skill. ``by_run``: its mean over skills by held-out run. ``discrepancy_rate``: ln
    L per e-fold. ``reason``: why it could not be tried, else empty.
    """

    setting: PredictionSetting
    n_parameters: int = 0
    errors: Mapping[str, float] = field(default_factory=dict)
    by_run: "pd.Series[float]" = field(default_factory=lambda: pd.Series(dtype=float), repr=False, compare=False)
    discrepancy_rate: float = math.nan
    reason: str = ""

    @property
    def error(self) -> float:
        """Mean relative error over skills; infinite where it could not be tried."""
        return float(np.mean(list(self.errors.values()))) if self.errors else math.inf


@dataclass(frozen=True, kw_only=True)
class PredictiveEnsemble:
    """Predictions of one skill by the chosen law, the first of ``members``, and by all members with weights."""

    members: tuple[Extrapolation, ...]
    weights: Array

    @property
    def chosen(self) -> Extrapolation:
        """Extrapolation of the chosen law."""
        return self.members[0]

    def interval(self, where: RunData, level: float) -> tuple[Array, Array]:
        """Return both ends of ln L of new runs about the chosen law, each (n,), including the spread of its rivals."""
        middle = self.chosen.log_loss(where)
        apart = np.array([member.log_loss(where) - middle for member in self.members])
        low, high = self.chosen.interval(where, level)
        widened = np.sqrt(1 + self.weights @ apart**2 / self.chosen.sd(where) ** 2)
        return middle - (middle - low) * widened, middle + (high - middle) * widened

    def mean_log_loss(self, where: RunData) -> Array:
        """Return ln L averaged over the laws, (n,)."""
        return np.asarray(self.weights @ np.array([member.log_loss(where) for member in self.members]))

    def draws(self, where: RunData, *, count: int = _DRAWS, seed: int = 0) -> Array:
        """Draw ln L of new runs, (count, n), each draw from one of the laws."""
        rng = np.random.default_rng(seed)
        counts = rng.multinomial(count, self.weights)
        parts = zip(self.members, counts, strict=True)
        return np.concatenate([member.draws(where, count=int(n), rng=rng) for member, n in parts if n])

    def mean_interval(self, where: RunData, level: float) -> tuple[Array, Array]:
        """Return both ends of ln L of new runs under the mixture of laws, each (n,)."""
        low, high = np.quantile(self.draws(where), [(1 - level) / 2, (1 + level) / 2], axis=0)
        return low, high


@dataclass(frozen=True, kw_only=True)
class LawSelection:
    """The chosen setting, and every candidate with its error, best first.

    ``letter``: measure of a larger run. ``cutoffs``: of the inner hold-outs; none where the runs have too few sizes, so
    that nothing could be compared.
    """

    letter: str
    cutoffs: tuple[Cutoff, ...]
    chosen: CandidateLaw
    candidates: tuple[CandidateLaw, ...]

    @property
    def rivals(self) -> tuple[CandidateLaw, ...]:
        """The chosen candidate, and other laws that did nearly as well, one setting each."""
        near = [candidate for candidate in self.candidates if candidate.error <= RIVAL_RATIO * self.chosen.error]
        rivals = {self.chosen.setting.law.name: self.chosen}
        for candidate in near:
            rivals.setdefault(candidate.setting.law.name, candidate)
        return tuple(rivals.values())[:MAX_RIVALS]

    @property
    def better(self) -> CandidateLaw | None:
        """The candidate with the least error, where the chosen one has more and was preferred for its simplicity."""
        best = min(self.candidates, key=lambda candidate: candidate.error, default=self.chosen)
        return best if best.error < self.chosen.error else None

    @property
    def weights(self) -> Array:
        """Weights of the rivals: the inverse square of their errors, normalised."""
        errors = np.array([rival.error for rival in self.rivals])
        if not np.isfinite(errors).all():
            return np.full(len(errors), 1 / len(errors))
        weights = 1 / np.maximum(errors, 1e-9) ** 2
        return np.asarray(weights / weights.sum())

    def table(self) -> pd.DataFrame:
        """Tabulate the candidates: law setting error n_parameters rate chosen weight reason; error is relative."""
        weights = {
            candidate.setting.name: float(weight) for candidate, weight in zip(self.rivals, self.weights, strict=True)
        }
        return pd.DataFrame(
            {
                "law": candidate.setting.law.name,
                "setting": candidate.setting.name,
                "error": candidate.error if candidate.errors else math.nan,
                "n_parameters": candidate.n_parameters,
                "rate": candidate.discrepancy_rate,
                "chosen": candidate is self.chosen,
                "weight": weights.get(candidate.setting.name, 0.0),
                "reason": candidate.reason,
            }
            for candidate in self.candidates
        )

    def fit_all(self, data: Mapping[str, RunData]) -> dict[str, PredictiveEnsemble]:
        """Fit the chosen law, from many starts, and its rivals to all runs.

        Raises:
            FitError: the runs of a skill can't determine the chosen law.
        """
        cutoff = all_runs(data, self.letter)
        members = []
        for rival in self.rivals:
            try:
                extrapolations = extrapolate(data, rival.setting, cutoff, starts=STARTS if rival is self.chosen else 1)
            except FitError:
                if rival is self.chosen:
                    raise
                continue
            members.append((extrapolations, rival))
        kept = [rival for _, rival in members]
        weights = np.array([weight for rival, weight in zip(self.rivals, self.weights, strict=True) if rival in kept])
        by_rival = [
            with_discrepancy(
                extrapolations,
                rival.discrepancy_rate if math.isfinite(rival.discrepancy_rate) else DEFAULT_DISCREPANCY_RATE,
            )
            for extrapolations, rival in members
        ]
        return {
            name: PredictiveEnsemble(
                members=tuple(extrapolations[name] for extrapolations in by_rival), weights=weights / weights.sum()
            )
            for name in data
        }


def all_runs(data: Mapping[str, RunData], letter: str) -> Cutoff:
    """Return the cutoff that includes all of these runs."""
    probe = Cutoff(letter=letter, value=1.0)
    return Cutoff(letter=letter, value=max(float(probe.measure(runs).max()) for runs in data.values()))


def candidate_settings(data: Mapping[str, RunData], laws: Sequence[str] = ()) -> tuple[PredictionSetting, ...]:
    """List the settings to try: laws of N and D, laws of the mix where it varies, and early checkpoints to exclude.

    Args:
        data: runs of each skill.
        laws: names of the only laws to try; empty: those that suit the runs. The joint mixture law is tried only
            when it is listed: it takes ten times as long as the others.
    """
    first = next(iter(data.values()))
    checkpoints = any(has_checkpoints(runs) for runs in data.values())
    return tuple(
        PredictionSetting(law=LAWS[name], min_run_share=min_run_share)
        for name in (laws or _suitable_laws(first, checkpoints=checkpoints))
        for min_run_share in _run_shares_to_try(
            LAWS[name], thorough=bool(laws) or first.h is None, checkpoints=checkpoints
        )
    )


def _suitable_laws(runs: RunData, *, checkpoints: bool) -> list[str]:
    names = list(ND_LAWS) + (["farseer"] if runs.n_clusters >= MANY_RUNS and runs.h is None else [])
    if runs.h is not None:
        names += [*MIX_LAWS, *([TRANSIENT_LAW] if checkpoints else [])]
    return names


def _run_shares_to_try(law: Law, *, thorough: bool, checkpoints: bool) -> tuple[float, ...]:
    """Return the shares before which to exclude checkpoints. A law that ignores a varying mix gets none."""
    if not checkpoints or law.name == TRANSIENT_LAW or law.joint or not (thorough or law.needs_mix):
        return (0.0,)
    return MIN_RUN_SHARES


def data_for_setting(runs: RunData, setting: PredictionSetting) -> RunData:
    """Return the checkpoints that a setting is fitted to, with near-duplicates weighted as one."""
    return checkpoint_weights(without_early(runs, setting.min_run_share))[0]


def select_law(
    data: Mapping[str, RunData], *, letter: str = "N", laws: Sequence[str] = (), objective: Objective | None = None
) -> LawSelection:
    """Select the setting with the least mean relative error on the larger of these runs, when fitted to the smaller.

    Args:
        data: runs of each skill; no others are used. A skill with too few sizes has no say.
        letter: measure of a larger run: N, or C = 6 N D. C is used too where sizes are too few to hold one out.
        laws: names of the only laws to try.
        objective: objective of the fits; None: Huber with delta twice the noise.

    Raises:
        FitError: no candidate could be fitted.
    """
    everything = data
    cutoffs, data = _holdout_cutoffs(everything, letter)
    settings = [replace(candidate, objective=objective) for candidate in candidate_settings(everything, laws)]
    if not cutoffs:
        return _default_selection(everything, letter, settings, named=bool(laws))
    tried = [
        candidate
        for setting in settings
        if not setting.min_run_share
        for candidate in _try_setting(data, setting, cutoffs)
    ]
    errors = _least_errors(tried)
    promising = {name for name, error in errors.items() if error <= PROMISING_RATIO * min(errors.values())}
    tried += [
        candidate
        for setting in settings
        if setting.min_run_share and setting.law.name in promising
        for candidate in _try_setting(data, setting, cutoffs)
    ]
    fittable = [candidate for candidate in tried if candidate.errors]
    if not fittable:
        raise FitError(f"no law can be fitted to the smaller of these runs. {tried[0].reason}")
    best = _simplest_best(fittable)
    if len(data) > 1 and not best.setting.law.joint:
        more = _try_setting(data, replace(best.setting, effects=False, pooled=True), cutoffs)
        tried += more
        # Pooling reduces the variance, so it is preferred when it is no worse
        no_worse = [candidate for candidate in more if candidate.error <= best.error]
        best = min(no_worse, key=lambda candidate: candidate.error, default=best)
    tried.sort(key=lambda candidate: candidate.error)
    return LawSelection(letter=cutoffs[0].letter, cutoffs=cutoffs, chosen=best, candidates=tuple(tried))


def ineligible_reason(runs: RunData, letter: str = "N") -> str:
    """Say why a skill's runs can't take part in a selection: not even the plainest law fits. Empty where they can."""
    if len(level_maxima(runs.N)) < 2:
        return (
            f"the runs to fit have only one size, N = {runs.N[0]:.4g}, so the effect of N is undetermined. Add sizes, "
            "or raise the cutoff of a backtest."
        )
    rise, error = _slope_in_D(runs)
    if rise > _RISE_SE * error:
        return (
            f"the loss rises with D among runs of one size and mix, by {rise:.2g} ± {error:.2g} in ln L per e-fold, so "
            "priors would decide the law. Check the columns, or choose a law with --law."
        )
    try:
        extrapolate({"": runs}, PredictionSetting(law=CHINCHILLA), all_runs({"": runs}, letter))
    except FitError as error:
        return str(error)
    return ""


def _slope_in_D(runs: RunData) -> tuple[float, float]:
    """Return the slope of ln L by ln D within runs of one size and mix, with its standard error.

    It is -inf with error 0 where it can't be determined. Early checkpoints are excluded, because a warm-up may raise a
    loss.
    """
    late = runs.take(run_shares(runs) >= MIN_RUN_SHARES[1])
    group = np.unique(np.column_stack([np.round(np.log(late.N), 3), mix_codes(late)]), axis=0, return_inverse=True)[1]
    x, y = (_centred(np.asarray(group).ravel(), values) for values in (np.log(late.D), late.log_L))
    free, square = len(late) - int(np.max(group)) - 2, float(x @ x)
    if free < _FEWEST_RISING or square < DUPLICATE_GAP**2:
        return -math.inf, 0.0
    slope = float(x @ y) / square
    return slope, math.sqrt(float(((y - slope * x) ** 2).sum()) / free / square)


def _centred(group: npt.NDArray[np.intp], values: Array) -> Array:
    counts = np.bincount(group)
    return np.asarray(values - (np.bincount(group, weights=values) / counts)[group])


def _least_errors(tried: Sequence[CandidateLaw]) -> dict[str, float]:
    """Return the least error of each law that could be tried."""
    least: dict[str, float] = {}
    for candidate in tried:
        if candidate.errors:
            least[candidate.setting.law.name] = min(candidate.error, least.get(candidate.setting.law.name, math.inf))
    return least


def _holdout_cutoffs(data: Mapping[str, RunData], letter: str) -> tuple[tuple[Cutoff, ...], dict[str, RunData]]:
    """Return cutoffs to hold out beyond, and the skills whose runs have enough on both sides of each.

    Where sizes are too few, the runs with the most compute are held out, such as the last checkpoints of the largest
    size.
    """
    for measure in dict.fromkeys((letter, "C")):
        cutoffs = inner_cutoffs(data, measure)
        while cutoffs:
            fittable = {
                name: runs for name, runs in data.items() if all(has_enough_left(cutoff, runs) for cutoff in cutoffs)
            }
            if fittable:
                return cutoffs, fittable
            cutoffs = cutoffs[:-1]
    return (), {}


def _default_selection(
    data: Mapping[str, RunData], letter: str, settings: Sequence[PredictionSetting], *, named: bool
) -> LawSelection:
    """Select without a hold-out: the law that was listed, or the plainest that sees what varies."""
    plain = "chinchilla" if next(iter(data.values())).h is None else "separable"
    plainest = [setting for setting in settings if setting.law.name == plain and not setting.min_run_share]
    setting = settings[0] if named else plainest[0]
    only = CandidateLaw(setting=setting, reason="too few sizes to hold out the larger ones")
    return LawSelection(letter=letter, cutoffs=(), chosen=only, candidates=(only,))


def _simplest_best(fittable: Sequence[CandidateLaw]) -> CandidateLaw:
    """Return the candidate with the fewest parameters among those that tie with the best."""
    best = min(fittable, key=lambda candidate: candidate.error)
    tied = [candidate for candidate in fittable if _ties(candidate, best)]
    return min(tied, key=lambda candidate: (candidate.n_parameters, candidate.error))


def _ties(candidate: CandidateLaw, best: CandidateLaw) -> bool:
    """Check whether errors differ by less than the standard error of their difference over held-out runs."""
    difference = (candidate.by_run - best.by_run).dropna()
    if candidate is best or len(difference) < 2:
        return candidate is best
    return float(difference.mean()) < float(difference.std(ddof=1)) / math.sqrt(len(difference))


def _try_setting(
    data: Mapping[str, RunData], setting: PredictionSetting, cutoffs: Sequence[Cutoff]
) -> list[CandidateLaw]:
    """Try the setting on every inner hold-out, without and with mix effects."""
    plain: list[_Trial] = []
    mixed: list[_Trial] = []
    for cutoff in cutoffs:
        fitted, held = _split_at(data, cutoff)
        try:
            extrapolations = extrapolate(fitted, replace(setting, pooled=False), cutoff)
            extrapolations = pool_exponents(extrapolations) if setting.pooled else extrapolations
        except FitError as error:
            return [CandidateLaw(setting=setting, reason=str(error))]
        plain.append(_Trial.score(extrapolations, held))
        with_effects = {name: extrapolation.with_effects() for name, extrapolation in extrapolations.items()}
        if any(len(extrapolation.effects) for extrapolation in with_effects.values()):
            mixed.append(_Trial.score(with_effects, held))
    candidates = [_candidate(setting, plain)]
    if len(mixed) == len(cutoffs):
        both = _candidate(replace(setting, effects=True), mixed)
        candidates += [both] if both.error < _MIN_GAIN * candidates[0].error else []
    return candidates


def _split_at(data: Mapping[str, RunData], cutoff: Cutoff) -> tuple[dict[str, RunData], dict[str, RunData]]:
    fits = {name: cutoff.includes(runs) for name, runs in data.items()}
    return (
        {name: runs.take(fits[name]) for name, runs in data.items()},
        {name: runs.take(~fits[name]) for name, runs in data.items()},
    )


@dataclass(frozen=True)
class _Trial:
    """One hold-out: relative error of each held-out row with its skill and run; discrepancy rate; size of the law."""

    rows: pd.DataFrame
    discrepancy_rate: float
    n_parameters: int

    @classmethod
    def score(cls, extrapolations: Mapping[str, Extrapolation], held: Mapping[str, RunData]) -> "_Trial":
        frames = [
            pd.DataFrame(
                {
                    "skill": name,
                    "run": np.asarray(runs.labels).astype(str),
                    "error": np.abs(np.expm1(extrapolations[name].log_loss(runs) - runs.log_L)),
                }
            )
            for name, runs in held.items()
        ]
        size = max(extrapolation.fit.n_free for extrapolation in extrapolations.values())
        return cls(pd.concat(frames, ignore_index=True), estimate_discrepancy_rate(extrapolations, held), size)


def _candidate(setting: PredictionSetting, trials: Sequence[_Trial]) -> CandidateLaw:
    by_skill = pd.DataFrame([trial.rows.groupby("skill")["error"].mean() for trial in trials])
    by_run = [trial.rows.groupby("run")["error"].mean().add_prefix(f"{at}/") for at, trial in enumerate(trials)]
    return CandidateLaw(
        setting=setting, n_parameters=max(trial.n_parameters for trial in trials),
        errors={str(name): float(error) for name, error in by_skill.mean().items()}, by_run=pd.concat(by_run),
        discrepancy_rate=math.sqrt(float(np.mean([trial.discrepancy_rate**2 for trial in trials]))),
    )  # fmt: skip
