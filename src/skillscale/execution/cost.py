"""What a grid would cost: its points, FLOP and expected time on this machine, before anything is trained."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from skillscale.cli.output import Output
from skillscale.config import Config
from skillscale.execution.grid import tokens_to_train
from skillscale.formatting import format_count, format_duration, format_flops, format_number, format_percent
from skillscale.lm.model.shape import shape_for, size_ladder
from skillscale.lm.train import hyperparameters
from skillscale.lm.train.loop import step_seconds
from skillscale.point import DesignPoint
from skillscale.record import ModelSize

_LARGEST_TIMED = 5e6
# A timed step is this long at most: what a token costs is settled by then, and large batches take minutes and memory
_TIMED_FLOP = 1e11
_TIMED_SIZES = 5
_BYTES_PER_TOKEN = 2.0
_DEFAULT_ITEMS = 2000
_LONGEST_HERE_H = 30 * 24.0  # beyond it nobody trains here, and the answer counts an accelerator's time


@dataclass(frozen=True, kw_only=True)
class Accelerator:
    """What runs elsewhere are counted on: ``flops_per_s`` at its peak, and the share of it that 6 N D reaches."""

    flops_per_s: float
    utilisation: float

    def hours_each(self, points: Sequence[DesignPoint], config: Config) -> npt.NDArray[np.float64]:
        """Hours of one accelerator for training and evaluation of each point, (n,)."""
        return np.asarray(_work(points, config) / (self.flops_per_s * self.utilisation) / 3600)

    def hours(self, points: Sequence[DesignPoint], config: Config) -> float:
        """Hours of one accelerator for all of them."""
        return float(self.hours_each(points, config).sum())


def print_cost(
    points: Sequence[DesignPoint], config: Config, n_workers: int, out: Output, *, accelerator: Accelerator
) -> dict[str, Any]:
    """List the points with FLOP and expected seconds on this machine, and the hours elsewhere; train nothing."""
    out.progress("timing some training steps on this machine")
    seconds = expected_seconds(points, config)
    rows = [
        {**point.as_dict(), "flops": point.flops, "seconds": float(second)}
        for point, second in zip(points, seconds, strict=True)
    ]
    total, spent = (float(_training(points, each).sum()) for each in (None, config))
    hours, elsewhere = float(seconds.sum()) / n_workers / 3600, accelerator.hours(points, config)
    is_for_here = hours <= _LONGEST_HERE_H
    costs = ("s a run here", seconds) if is_for_here else ("GPU-hours a run", accelerator.hours_each(points, config))
    _tell_points(points, *costs, config, out)
    if spent < total:
        trunks = len({point.stable_phase for point in points})
        out.text(
            f"{trunks} trunks serve the {len(points)} runs for {format_flops(spent)} FLOP, "
            f"{format_percent(spent / total, 3)} of what they take each by itself; the last {format_percent(config.train.decay_share)} of a run are its own"
        )
    here = f"{format_duration(3600 * hours)} with {n_workers} workers"
    gpus = (
        f"{format_count(elsewhere)} GPU-hours at {format_number(accelerator.utilisation)} of "
        f"{format_flops(accelerator.flops_per_s)} FLOP/s (--mfu, --gpu_flops)"
    )
    first, second = f"{here} on this machine", f"elsewhere about {gpus}"
    if not is_for_here:
        first, second = gpus, f"on this machine it would take {here}"
    out.text(
        f"{len(points)} runs, {format_flops(total)} FLOP (6 N D), about {first}, evaluation included, "
        f"preparation of the data not\n{second}"
    )
    rungs = size_ladder(vocab_size=config.data.vocab_size, model=config.model)
    _tell_ladder(rungs, out)
    return {
        "points": rows,
        "flops": total,
        "flops_spent": spent,
        "hours": hours,
        "gpu_hours": elsewhere,
        "workers": n_workers,
        "ladder": rungs,
    }


def _tell_points(
    points: Sequence[DesignPoint], title: str, costs: npt.NDArray[np.float64], config: Config, out: Output
) -> None:
    """A line for each N and D, with the number of runs and what one costs: its mixes and seeds cost the same."""
    runs = Counter((point.n_params, point.n_tokens) for point in points)
    mixes = Counter(point.mix for point in points)
    each = {(point.n_params, point.n_tokens): float(one) for point, one in zip(points, costs, strict=True)}
    out.text(f"{'C':>10}{'N':>14}{'depth':>7}{'width':>7}{'D':>16}{'D/N':>9}{'runs':>6}{title:>17}")
    for (n_params, n_tokens), cost in each.items():
        size = shape_for(n_params, vocab_size=config.data.vocab_size, model=config.model)
        out.text(
            f"{6.0 * n_params * n_tokens:>10.3g}{n_params:>14,}{size.depth:>7}{size.width:>7}{n_tokens:>16,}"
            f"{n_tokens / n_params:>9.3g}{runs[n_params, n_tokens]:>6}{cost:>17.3g}"
        )
    if len(mixes) > 1:
        out.text(f"{len(mixes)} mixes, with the runs of each:")
        for mix, count in mixes.items():
            out.text(f"{count:>6}  {mix}")


def expected_seconds(points: Sequence[DesignPoint], config: Config) -> npt.NDArray[np.float64]:
    """Seconds of training and evaluation for each point: measured steps of some points, the others between them.

    Sizes above 5e6 parameters are taken to reach the FLOP/s of the largest one timed (assumption, not measured).
    """
    timed = _spread([point for point in points if point.n_params <= _LARGEST_TIMED] or [_small(points[0], config)])
    rates = {point.n_params: _rate(point, config) for point in timed}
    known = sorted(rates)
    n = np.array([point.n_params for point in points], dtype=float)
    rate = np.exp(np.interp(np.log(n), np.log(known), np.log([rates[size] for size in known])))
    return np.asarray(_work(points, config) / rate)


def _work(points: Sequence[DesignPoint], config: Config) -> npt.NDArray[np.float64]:
    """FLOP of training and evaluation for each point; a forward pass is a third of a training step."""
    n = np.array([point.n_params for point in points], dtype=float)
    return _training(points, config) + 6 * n * evaluation_tokens(config) / 3


def _training(points: Sequence[DesignPoint], config: Config | None) -> npt.NDArray[np.float64]:
    """6 N times the tokens that each point takes itself, (n,); all of its own where there is no ``config``."""
    n = np.array([point.n_params for point in points], dtype=float)
    branches = config is not None and config.train.schedule == "trunk"
    own = tokens_to_train(points, config.train.decay_share) if config and branches else [p.n_tokens for p in points]
    return np.asarray(6 * n * np.array(own, dtype=float))


def _tell_ladder(rungs: Sequence[ModelSize], out: Output) -> None:
    """Every doubling of the ladder of sizes; ``--json`` has every rung."""
    out.text(
        f"\nmodels can have {len(rungs)} sizes from {rungs[0].n_params:,} to {rungs[-1].n_params:,}; some of them:"
    )
    out.text(f"{'N':>16}{'non-embedding':>16}{'embedding':>14}{'depth':>7}{'width':>7}{'heads':>7}")
    wanted = rungs[0].n_params
    for rung in rungs:
        if rung.n_params >= wanted:
            out.text(
                f"{rung.n_params:>16,}{rung.n_params_nonembed:>16,}{rung.n_params_embed:>14,}"
                f"{rung.depth:>7}{rung.width:>7}{rung.n_heads:>7}"
            )
            wanted = 2 * rung.n_params


def evaluation_tokens(config: Config) -> float:
    """Tokens a run is measured on, at most: items fill the context, and a token is about two bytes."""
    items = sum(one.max_items or _DEFAULT_ITEMS for one in config.skills.sets) * config.model.context
    return items + sum(one.validation_bytes for one in config.data.categories) / _BYTES_PER_TOKEN


def _spread(points: Sequence[DesignPoint]) -> list[DesignPoint]:
    """A few points from the smallest size to the largest."""
    ordered = sorted({point.n_params: point for point in points}.values(), key=lambda point: point.n_params)
    return [ordered[round(at)] for at in np.linspace(0, len(ordered) - 1, min(_TIMED_SIZES, len(ordered)))]


def _small(point: DesignPoint, config: Config) -> DesignPoint:
    size = shape_for(_LARGEST_TIMED, vocab_size=config.data.vocab_size, model=config.model)
    return replace(point, n_params=size.n_params)


def _rate(point: DesignPoint, config: Config) -> float:
    """6 N tokens per second of one worker, in FLOP/s: its devices are taken to lose nothing by sharing (assumption)."""
    size = shape_for(point.n_params, vocab_size=config.data.vocab_size, model=config.model)
    wanted = hyperparameters.optimizer_plan(point, size, config.train, context=config.model.context).batch_sequences
    sequences = min(wanted, max(1, int(_TIMED_FLOP / (6 * size.n_params * config.model.context))))
    seconds = step_seconds(size, batch_sequences=sequences, config=config.train)
    return 6 * size.n_params * sequences * config.model.context * config.train.n_devices / seconds
