"""Designs that search for the lowest mean loss with Optuna's samplers, as a study without laws would.

A search knows nothing of cost. A run costs at most what leaves several runs in the budget, and in the end what remains.
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

_ATTEMPTS = 20  # draws for a run within the limits that are not in the box of the parameters
NAMES = ("tpe", "gp")


def _sampler(name: str, seed: int) -> optuna.samplers.BaseSampler:
    if name == "gp":
        return optuna.samplers.GPSampler(seed=seed)
    return optuna.samplers.TPESampler(seed=seed, multivariate=True)


@dataclass(frozen=True, kw_only=True)
class OptunaBaseline:
    """Runs that an Optuna sampler suggests in ln C, ln D/N and the index of the mix.

    ``top``: cost of the largest run.
    """

    space: DesignSpace = field(repr=False)
    sampler: str
    top: float = field(metadata={"unit": "FLOP"})

    def next_runs(self, history: RunHistory, budget: float, count: int, rng: np.random.Generator) -> Runs:
        """Return the suggestions of a study that holds the history; runs under way have no value."""
        assert self.space.overhead is not None
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        study = optuna.create_study(sampler=_sampler(self.sampler, int(rng.integers(2**31))))
        study.add_trials(self._trials(history))
        runs: list[tuple[float, float, int]] = []
        for _ in range(count * _ATTEMPTS):
            C = min(self.top, budget - self.space.overhead)
            if len(runs) == count or self.space.flops[0] > C:
                break
            trial = study.ask(self._box)
            N, D = self._size({**trial.params, "log_C": min(trial.params["log_C"], math.log(C))})
            mix = int(trial.params.get("mix", 0))
            if not self.space.allows(N, D, None if self.space.mixes is None else self.space.mixes[mix][None]).all():
                study.tell(trial, state=optuna.trial.TrialState.FAIL)
                continue
            budget -= float(self.space.cost(N, D)[0])
            runs.append((float(N[0]), float(D[0]), mix))
        if not runs:
            return NO_RUNS
        N, D = (np.array([run[i] for run in runs]) for i in (0, 1))
        return N, D, None if self.space.mixes is None else self.space.mixes[[run[2] for run in runs]]

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

    def _size(self, params: Mapping[str, float]) -> tuple[Array, Array]:
        """Return N and D, (1,)."""
        C, ratio = math.exp(params["log_C"]), math.exp(params["log_ratio"])
        N = math.sqrt(C / (6 * ratio))
        if self.space.sizes:
            N = min(self.space.sizes, key=lambda size: abs(math.log(size / N)))
        return np.array([N]), np.array([C / (6 * N)])

    def _trials(self, history: RunHistory) -> list[optuna.trial.FrozenTrial]:
        """Return the runs as trials; finished ones have the mean of the skills' ln L as value."""
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
            is_finished = bool(np.isfinite(mean[at]))
            trials.append(
                optuna.trial.create_trial(
                    params=params, distributions=self._box, value=float(mean[at]) if is_finished else None,
                    state=optuna.trial.TrialState.COMPLETE if is_finished else optuna.trial.TrialState.RUNNING,
                )
            )  # fmt: skip
        return trials


def _within(value: float, ends: tuple[float, float]) -> float:
    return min(max(value, math.log(ends[0])), math.log(ends[1]))


def _maker(sampler: str) -> Maker:
    return lambda space, goal, _seed: OptunaBaseline(space=space, sampler=sampler, top=largest(space, goal.budget))


OPTUNA_BASELINES: Mapping[str, Maker] = {name: _maker(name) for name in NAMES}
