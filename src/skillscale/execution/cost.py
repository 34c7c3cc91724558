"""The cost of a grid: its points, FLOP and expected time on this machine, before training."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from skillscale.config import Config
from skillscale.execution.grid import tokens_to_train
from skillscale.formatting import JsonObject, format_count, format_duration, format_flops, format_number, format_percent
from skillscale.lm.model.shape import shape_for, size_ladder
from skillscale.lm.train import hyperparameters
from skillscale.lm.train.stepper import step_seconds
from skillscale.point import DesignPoint
from skillscale.record import ModelSize

_LARGEST_TIMED = 5e6
# Largest timed step: the cost of a token is constant by then, and larger batches take minutes and memory
_TIMED_FLOP = 1e11
_TIMED_SIZES = 5
_BYTES_PER_TOKEN = 2.0
_DEFAULT_ITEMS = 2000
_LONGEST_HERE_H = 30 * 24.0  # beyond it the answer gives the time of an accelerator


@dataclass(frozen=True, kw_only=True)
class Accelerator:
    """The accelerator for the cost of runs elsewhere.

    Args:
        flops_per_s: Peak, FLOP/s.
        utilisation: Model FLOPs utilisation, the share of the peak that 6 N D reaches.
    """

    flops_per_s: float
    utilisation: float

    def hours_each(self, points: Sequence[DesignPoint], config: Config) -> npt.NDArray[np.float64]:
        """Return the hours of one accelerator for training and evaluation of each point, (n,)."""
        return np.asarray(_work(points, config) / (self.flops_per_s * self.utilisation) / 3600)

    def hours(self, points: Sequence[DesignPoint], config: Config) -> float:
        """Return the hours of one accelerator for all points."""
        return float(self.hours_each(points, config).sum())


@dataclass(frozen=True, kw_only=True)
class GridCost:
    """The cost of a grid.

    Args:
        points: The points.
        config: Settings of the study.
        n_workers: Workers of this machine that share the points.
        seconds: Expected time of each point on this machine, s, (n,).
        accelerator: Accelerator for the cost of runs elsewhere.
    """

    points: Sequence[DesignPoint]
    config: Config
    n_workers: int
    seconds: npt.NDArray[np.float64]
    accelerator: Accelerator

    @property
    def hours(self) -> float:
        """Hours on this machine."""
        return float(self.seconds.sum()) / self.n_workers / 3600

    @property
    def flops(self) -> float:
        """6 N D of all points."""
        return float(_training(self.points, None).sum())

    @property
    def flops_spent(self) -> float:
        """6 N D that is trained: points of one trunk share its stable phase."""
        return float(_training(self.points, self.config).sum())

    def text(self) -> str:
        """Return the points and their cost for a person."""
        is_for_here = self.hours <= _LONGEST_HERE_H
        costs = self.seconds if is_for_here else self.accelerator.hours_each(self.points, self.config)
        lines = _point_lines(self.points, "s a run here" if is_for_here else "GPU-hours a run", costs, self.config)
        if self.flops_spent < self.flops:
            trunks = len({point.stable_phase for point in self.points})
            lines.append(
                f"{trunks} trunks serve the {len(self.points)} runs for {format_flops(self.flops_spent)} FLOP, "
                f"{format_percent(self.flops_spent / self.flops)} of the cost of separate runs. The last "
                f"{format_percent(self.config.train.cooldown_fraction)} of a run are not shared."
            )
        here = f"{format_duration(3600 * self.hours)} with {self.n_workers} workers"
        gpus = (
            f"{format_count(self.accelerator.hours(self.points, self.config))} GPU-hours at "
            f"{format_number(self.accelerator.utilisation)} of {format_flops(self.accelerator.flops_per_s)} FLOP/s "
            "(--mfu, --gpu_flops)"
        )
        first, second = f"{here} on this machine", f"elsewhere about {gpus}"
        if not is_for_here:
            first, second = gpus, f"on this machine it would take {here}"
        lines.append(
            f"{len(self.points)} runs, {format_flops(self.flops)} FLOP (6 N D), about {first}, with evaluation, "
            f"without preparation of the data\n{second}"
        )
        return "\n".join([*lines, *_ladder_lines(self._ladder())])

    def as_dict(self) -> JsonObject:
        """Return the values for ``--json``."""
        rows = [
            {**point.as_dict(), "flops": point.flops, "seconds": float(second)}
            for point, second in zip(self.points, self.seconds, strict=True)
        ]
        return {
            "points": rows, "flops": self.flops, "flops_spent": self.flops_spent, "hours": self.hours,
            "gpu_hours": self.accelerator.hours(self.points, self.config), "workers": self.n_workers,
            "ladder": self._ladder(),
        }  # fmt: skip

    def _ladder(self) -> Sequence[ModelSize]:
        return size_ladder(vocab_size=self.config.data.vocab_size, model=self.config.model)


def grid_cost(points: Sequence[DesignPoint], config: Config, n_workers: int, accelerator: Accelerator) -> GridCost:
    """Time some training steps on this machine, and estimate the cost of every point; train nothing."""
    return GridCost(
        points=points, config=config, n_workers=n_workers, seconds=expected_seconds(points, config),
        accelerator=accelerator,
    )  # fmt: skip


def _point_lines(
    points: Sequence[DesignPoint], title: str, costs: npt.NDArray[np.float64], config: Config
) -> list[str]:
    """Return a line for each N and D with its number of runs; its mixes and seeds cost the same."""
    runs = Counter((point.n_params, point.n_tokens) for point in points)
    mixes = Counter(point.mix for point in points)
    cost_of = {(point.n_params, point.n_tokens): float(cost) for point, cost in zip(points, costs, strict=True)}
    lines = [f"{'C':>10}{'N':>14}{'depth':>7}{'width':>7}{'D':>16}{'D/N':>9}{'runs':>6}{title:>17}"]
    for (n_params, n_tokens), cost in cost_of.items():
        size = shape_for(n_params, vocab_size=config.data.vocab_size, model=config.model)
        lines.append(
            f"{format_flops(6.0 * n_params * n_tokens):>10}{n_params:>14,}{size.depth:>7}{size.width:>7}{n_tokens:>16,}"
            f"{n_tokens / n_params:>9.3g}{runs[n_params, n_tokens]:>6}{cost:>17.3g}"
        )
    if len(mixes) > 1:
        lines += [f"{len(mixes)} mixes, with the runs of each:", *(f"{n:>6}  {mix}" for mix, n in mixes.items())]
    return lines


def expected_seconds(points: Sequence[DesignPoint], config: Config) -> npt.NDArray[np.float64]:
    """Return the seconds of training and evaluation of each point, interpolated between measured steps of some points.

    Sizes above 5e6 parameters are taken to reach the FLOP/s of the largest one timed (assumption, not measured).
    """
    timed = _spread([point for point in points if point.n_params <= _LARGEST_TIMED] or [_small(points[0], config)])
    rates = {point.n_params: _rate(point, config) for point in timed}
    sizes = sorted(rates)
    n = np.array([point.n_params for point in points], dtype=float)
    rate = np.exp(np.interp(np.log(n), np.log(sizes), np.log([rates[size] for size in sizes])))
    return np.asarray(_work(points, config) / rate)


def _work(points: Sequence[DesignPoint], config: Config) -> npt.NDArray[np.float64]:
    """Return the FLOP of training and evaluation of each point; a forward pass is a third of a training step."""
    n = np.array([point.n_params for point in points], dtype=float)
    return _training(points, config) + 6 * n * evaluation_tokens(config) / 3


def _training(points: Sequence[DesignPoint], config: Config | None) -> npt.NDArray[np.float64]:
    """Return 6 N times the tokens that each point trains itself, (n,); without ``config`` points share no trunk."""
    n = np.array([point.n_params for point in points], dtype=float)
    branches = config is not None and config.train.schedule == "wsd"
    tokens = (
        tokens_to_train(points, config.train.cooldown_fraction) if config and branches else [p.n_tokens for p in points]
    )
    return np.asarray(6 * n * np.array(tokens, dtype=float))


def _ladder_lines(ladder: Sequence[ModelSize]) -> list[str]:
    """Return every doubling of the ladder of sizes; ``--json`` has every size."""
    smallest, largest = ladder[0].n_params, ladder[-1].n_params
    lines = [
        f"\nmodels can have {len(ladder)} sizes from {smallest:,} to {largest:,}; some of them:",
        f"{'N':>16}{'non-embedding':>16}{'embedding':>14}{'depth':>7}{'width':>7}{'heads':>7}",
    ]
    least = smallest
    for size in ladder:
        if size.n_params >= least:
            lines.append(
                f"{size.n_params:>16,}{size.n_params_nonembed:>16,}{size.n_params_embed:>14,}"
                f"{size.depth:>7}{size.width:>7}{size.n_heads:>7}"
            )
            least = 2 * size.n_params
    return lines


def evaluation_tokens(config: Config) -> float:
    """Return the largest number of tokens of an evaluation: items fill the context, a token is about two bytes."""
    items = sum(item_set.max_items or _DEFAULT_ITEMS for item_set in config.skills.sets) * config.model.context
    return items + sum(category.validation_bytes for category in config.data.categories) / _BYTES_PER_TOKEN


def _spread(points: Sequence[DesignPoint]) -> list[DesignPoint]:
    """Return a few points from the smallest size to the largest."""
    ordered = sorted({point.n_params: point for point in points}.values(), key=lambda point: point.n_params)
    return [ordered[round(at)] for at in np.linspace(0, len(ordered) - 1, min(_TIMED_SIZES, len(ordered)))]


def _small(point: DesignPoint, config: Config) -> DesignPoint:
    size = shape_for(_LARGEST_TIMED, vocab_size=config.data.vocab_size, model=config.model)
    return replace(point, n_params=size.n_params)


def _rate(point: DesignPoint, config: Config) -> float:
    """Return 6 N times the tokens per second of a worker, FLOP/s. Its devices share without loss (assumption)."""
    size = shape_for(point.n_params, vocab_size=config.data.vocab_size, model=config.model)
    sequences = hyperparameters.optimizer_plan(point, size, config.train, context=config.model.context).batch_sequences
    sequences = min(sequences, max(1, int(_TIMED_FLOP / (6 * size.n_params * config.model.context))))
    seconds = step_seconds(size, batch_sequences=sequences, config=config.train)
    return 6 * size.n_params * sequences * config.model.context * config.train.n_devices / seconds
