"""Points and runs as one line for a person."""

from skillscale.formatting import format_count, format_flops
from skillscale.point import DesignPoint
from skillscale.record import RunRecord, RunState


def format_point(point: DesignPoint) -> str:
    """Write a point as ``C 1.6e11, N 31k, D 860k, seed 0``."""
    size, tokens = format_count(point.n_params), format_count(point.n_tokens)
    return f"C {format_flops(point.flops, 2)}, N {size}, D {tokens}, seed {point.seed}"


def describe_run(record: RunRecord) -> str:
    """Return one line about a run that ended: its point with its losses, or with the reason of its failure."""
    losses = ", ".join(f"{name} {value.loss:.3f}" for name, value in record.skills.items())
    outcome = losses if record.state is RunState.FINISHED else f"{record.state}: {record.reason}"
    return f"{format_point(record.point)}: {outcome}"
