"""Designs that search for the least mean loss with Optuna's samplers: what a study without laws would run.

A search knows nothing of cost. Its runs cost at most what leaves several in the budget, and at last what is left.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import optuna

from skillscale.design.space import DesignSpace, RunHistory
from skillscale.laws.forms.nd import Array
from skillscale.simulation.baselines import Maker, largest
from skillscale.simulation.replay import NO_RUNS, Runs

_TRIES = 20  # draws for a run within the limits that the box of the parameters does not tell
NAMES = ("tpe", "gp")


def _sampler(name: str, seed: int) -> optuna.samplers.BaseSampler:
    if name == "gp":
        return optuna.samplers.GPSampler(seed=seed)
    return optuna.samplers.TPESampler(seed=seed, multivariate=True)


@dataclass(frozen=True, kw_only=True)
class OptunaBaseline:
    """Runs in ln C, ln D/N and number of the mix that an Optuna sampler asks for; running ones have no value yet."""

    space: DesignSpace = field(repr=False)
    sampler: str
    top: float = field(metadata={"unit": "FLOP of the largest run"})

    def next_runs(self, history: RunHistory, left: float, count: int, rng: np.random.Generator) -> Runs:
        """Asked of a study that has been told the history."""
        assert self.space.overhead is not None
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        study = optuna.create_study(sampler=_sampler(self.sampler, int(rng.integers(2**31))))
        study.add_trials(self._told(history))
        found: list[tuple[float, float, int]] = []
        for _ in range(count * _TRIES):
            C = min(self.top, left - self.space.overhead)
            if len(found) == count or self.space.flops[0] > C:
                break
            trial = study.ask(self._box)
            N, D = self._place({**trial.params, "log_C": min(trial.params["log_C"], math.log(C))})
            mix = int(trial.params.get("mix", 0))
            if not self.space.allows(N, D, None if self.space.mixes is None else self.space.mixes[mix][None]).all():
                study.tell(trial, state=optuna.trial.TrialState.FAIL)
                continue
            left -= float(self.space.cost(N, D)[0])
            found.append((float(N[0]), float(D[0]), mix))
        if not found:
            return NO_RUNS
        N, D = (np.array([one[i] for one in found]) for i in (0, 1))
        return N, D, None if self.space.mixes is None else self.space.mixes[[one[2] for one in found]]

    @property
    def _box(self) -> dict[str, optuna.distributions.BaseDistribution]:
        real = optuna.distributions.FloatDistribution
        box: dict[str, optuna.distributions.BaseDistribution] = {
            "log_C": real(math.log(self.space.flops[0]), math.log(self.top)),
            "log_ratio": real(math.log(self.space.ratio[0]), math.log(self.space.ratio[1])),
        }
        if self.space.n_mixes > 1:
            box["mix"] = optuna.distributions.CategoricalDistribution(range(self.space.n_mixes))
        return box

    def _place(self, params: Mapping[str, float]) -> tuple[Array, Array]:
        """N and D, (1,)."""
        C, ratio = math.exp(params["log_C"]), math.exp(params["log_ratio"])
        N = math.sqrt(C / (6 * ratio))
        if self.space.sizes:
            N = min(self.space.sizes, key=lambda size: abs(math.log(size / N)))
        return np.array([N]), np.array([C / (6 * N)])

    def _told(self, history: RunHistory) -> list[optuna.trial.FrozenTrial]:
        """The runs as trials: finished ones with the mean of the skills' ln L."""
        mean = np.mean(list(history.log_L.values()), axis=0) if len(history) else np.zeros(0)
        trials = []
        for at in range(len(history)):
            N, D = float(history.N[at]), float(history.D[at])
            params: dict[str, float | int] = {
                "log_C": _within(math.log(6 * N * D), (self.space.flops[0], self.top)),
                "log_ratio": _within(math.log(D / N), self.space.ratio),
            }
            if self.space.mixes is not None and history.h is not None and self.space.n_mixes > 1:
                params["mix"] = int(np.abs(self.space.mixes - history.h[at]).sum(1).argmin())
            known = bool(np.isfinite(mean[at]))
            trials.append(
                optuna.trial.create_trial(
                    params=params, distributions=self._box, value=float(mean[at]) if known else None,
                    state=optuna.trial.TrialState.COMPLETE if known else optuna.trial.TrialState.RUNNING,
                )
            )  # fmt: skip
        return trials


def _within(value: float, ends: tuple[float, float]) -> float:
    return min(max(value, math.log(ends[0])), math.log(ends[1]))


def _maker(sampler: str) -> Maker:
    return lambda space, wish, _seed: OptunaBaseline(space=space, sampler=sampler, top=largest(space, wish.budget))


MAKERS: Mapping[str, Maker] = {name: _maker(name) for name in NAMES}
