"""What a grid would cost: its points, FLOP and expected time on this machine, before anything is trained."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt

from skillscale.config import Config
from skillscale.lm import rule
from skillscale.lm.shape import ladder, shape_for
from skillscale.lm.train import step_seconds
from skillscale.output import Output
from skillscale.point import DesignPoint
from skillscale.record import Size

_LARGEST_TIMED = 2e7
_TIMED_SIZES = 5
_BYTES_PER_TOKEN = 2.0
_DEFAULT_ITEMS = 2000


def dry_run(points: Sequence[DesignPoint], config: Config, n_workers: int, out: Output) -> dict[str, Any]:
    """List the points with FLOP and expected seconds on this machine; train nothing."""
    out.progress("timing some training steps on this machine")
    seconds = expected_seconds(points, config)
    rows = [
        {**point.as_dict(), "flops": point.flops, "seconds": float(second)}
        for point, second in zip(points, seconds, strict=True)
    ]
    out.text(f"{'C':>10}{'N':>14}{'depth':>7}{'width':>7}{'D':>16}{'D/N':>9}{'seed':>6}{'expected s':>12}")
    for point, second in zip(points, seconds, strict=True):
        size = shape_for(point.n_params, vocab_size=config.data.vocab_size, model=config.model)
        out.text(
            f"{point.flops:>10.3g}{point.n_params:>14,}{size.depth:>7}{size.width:>7}{point.n_tokens:>16,}"
            f"{point.n_tokens / point.n_params:>9.3g}{point.seed:>6}{second:>12.3g}"
        )
    total = sum(point.flops for point in points)
    hours = float(seconds.sum()) / n_workers / 3600
    out.text(
        f"{len(points)} points, {total:.3g} FLOP (6 N D), about {hours:.3g} hours ({hours * 60:.3g} minutes) with "
        f"{n_workers} workers on this machine, evaluation included, preparation of the data not"
    )
    rungs = ladder(vocab_size=config.data.vocab_size, model=config.model)
    _tell_ladder(rungs, out)
    return {"points": rows, "flops": total, "hours": hours, "workers": n_workers, "ladder": rungs}


def expected_seconds(points: Sequence[DesignPoint], config: Config) -> npt.NDArray[np.float64]:
    """Seconds of training and evaluation for each point: measured steps of some points, the others between them.

    Sizes above 2e7 parameters are taken to reach the FLOP/s of the largest one timed (assumption, not measured).
    """
    timed = _spread([point for point in points if point.n_params <= _LARGEST_TIMED] or [_small(points[0], config)])
    rates = {point.n_params: _rate(point, config) for point in timed}
    known = sorted(rates)
    n = np.array([point.n_params for point in points], dtype=float)
    rate = np.exp(np.interp(np.log(n), np.log(known), np.log([rates[size] for size in known])))
    tokens = np.array([point.n_tokens for point in points], dtype=float)
    # A forward pass is a third of a training step
    return np.asarray(6 * n * (tokens + evaluation_tokens(config) / 3) / rate)


def _tell_ladder(rungs: Sequence[Size], out: Output) -> None:
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
    """6 N tokens per second of one process, in FLOP/s."""
    size = shape_for(point.n_params, vocab_size=config.data.vocab_size, model=config.model)
    sequences = rule.derive(point, size, config.train, context=config.model.context).batch_sequences
    seconds = step_seconds(size, batch_sequences=sequences, config=config.train)
    return 6 * size.n_params * sequences * config.model.context / seconds
