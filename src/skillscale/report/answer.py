"""The answer in one line: for C, train N* parameters on D* tokens. MLflow shows it before everything else."""

import math

from skillscale.formatting import format_count, format_flops, format_interval, format_number
from skillscale.laws.optimum.optimum import Optimum

_INSIDE = 1.01  # times the largest run, which rounding reaches
_SKILLS = 6  # skills in a line


def answer_line(optimum: Optimum, mix: str = "") -> str:
    """Return as in ``For 1e12 FLOP, train 23k parameters on 7.2M tokens``.

    Args:
        optimum: the optimum at the budget.
        mix: name of its mix, where several have laws of their own.
    """
    budget = f"For {format_flops(optimum.C)} FLOP{f' on {mix}' if mix else ''}"
    if not math.isfinite(optimum.N.value):
        return f"{budget}, the runs decide no best size"
    size, tokens = (format_count(value.value, 2) for value in (optimum.N, optimum.D))
    return f"{budget}, train {size} parameters on {tokens} tokens"


def interval_line(optimum: Optimum, level: str) -> str:
    """Return the interval of N*, and how far the budget is beyond the runs."""
    N = format_interval(optimum.N.value, optimum.N.lo, optimum.N.hi, lambda size: format_count(size, 2))
    beyond = f"{format_number(optimum.extrapolation, 2)} times the largest run"
    return f"N* {N}, {level} interval; the budget is {beyond if optimum.extrapolation > _INSIDE else 'within the runs'}"


def losses_line(optimum: Optimum, prefix: str = "") -> str:
    """Return the expected losses of the skills, as in ``code 3.91, prose 4.11``.

    Args:
        optimum: the optimum at the budget.
        prefix: part of every skill's name that is not shown.
    """
    losses = {name.removeprefix(prefix): loss.value for name, loss in optimum.losses.items()}
    texts = [f"{name} {loss:.2f}" for name, loss in losses.items() if math.isfinite(loss)]
    rest = [f"{len(texts) - _SKILLS} more"] * (len(texts) > _SKILLS)
    return ", ".join([*texts[:_SKILLS], *rest])
