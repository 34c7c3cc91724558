"""The answer as text and as plain values: for C, train N* parameters on D* tokens, and what speaks against it.

The page, the end of ``fit`` and ``main``, and the descriptions in MLflow print these lines.
"""

import math
from collections import Counter
from collections.abc import Mapping

from skillscale.formatting import (
    JsonObject,
    format_count,
    format_flops,
    format_interval,
    format_number,
    format_percent,
    join_first,
    join_words,
)
from skillscale.laws.optimum.answer import Answer
from skillscale.laws.optimum.optimum import Optimum
from skillscale.laws.results import Interval
from skillscale.report.optimum_text import interval_ends, loss_text, optimum_as_dict, size_text

_INSIDE = 1.01  # times the largest run, which rounding reaches
_SKILLS = 6  # skills in a line


def answer_line(optimum: Optimum, mix: str = "", refusal: str = "") -> str:
    """Return as in ``For 1e12 FLOP, train 23k parameters on 7.2M tokens (D/N 310)``.

    Args:
        optimum: the optimum at the budget.
        mix: name of its mix, where several have laws of their own.
        refusal: why there is no size to train.
    """
    budget = f"For {format_flops(optimum.C)} FLOP{f' on {mix}' if mix else ''}"
    if refusal:
        return f"{budget}, no size can be named: {refusal}"
    if not math.isfinite(optimum.N.value):
        return f"{budget}, the runs decide no best size"
    size, tokens = (format_count(value.value, 2) for value in (optimum.N, optimum.D))
    ratio = format_number(optimum.D.value / optimum.N.value, 2)
    return f"{budget}, train {size} parameters on {tokens} tokens (D/N {ratio})"


def interval_line(optimum: Optimum, level: str) -> str:
    """Return the interval of N*, and how far the budget is beyond the runs."""
    N = format_interval(optimum.N.value, optimum.N.lo, optimum.N.hi, lambda size: format_count(size, 2))
    beyond = f"{format_number(optimum.extrapolation, 2)} times the largest run"
    return f"N* {N}, {level} interval; the budget is {beyond if optimum.extrapolation > _INSIDE else 'within the runs'}"


def losses_line(losses: Mapping[str, Interval]) -> str:
    """Return the expected losses of the skills, as in ``code 3.91, prose 4.11``."""
    return join_first(
        [f"{name} {loss.value:.2f}" for name, loss in losses.items() if math.isfinite(loss.value)], _SKILLS
    )


def answer_lines(answer: Answer) -> list[str]:
    """Return the answer as sentences: what to train, the losses, how far it is from the runs, and the next runs."""
    lines = [f"{answer_line(answer.optimum, answer.mix, answer.refusal)}."]
    if not answer.refusal:
        lines += [sizes_line(answer), _expected_losses(answer.losses)]
    return [*lines, f"{reach_line(answer)} {held_out_line(answer)}", next_line(answer), *_doubts_line(answer)]


def sizes_line(answer: Answer) -> str:
    """Return the intervals of N* and D*."""
    level, optimum = format_percent(answer.level, 3), answer.optimum
    return f"{level} intervals: N* {size_text(optimum.N)}, D* {size_text(optimum.D)}."


def _expected_losses(losses: Mapping[str, Interval]) -> str:
    return f"Expected loss: {join_first([f'{name} {loss_text(loss)}' for name, loss in losses.items()], _SKILLS)}."


def reach_line(answer: Answer) -> str:
    """Return how far the budget is beyond the runs, and how it was chosen."""
    times = answer.optimum.extrapolation
    chosen = "" if answer.named_budget else " Name another with --flops."
    if times <= _INSIDE:
        return f"The budget is within the runs.{chosen}"
    return f"Extrapolation: the budget is {format_number(times, 2)} times the largest run.{chosen}"


def held_out_line(answer: Answer) -> str:
    """Return how well the laws predicted held-out larger runs, or how to test that."""
    command = f" Test: skillscale backtest {answer.source}." if answer.source else ""
    if not answer.held_out:
        return f"No larger run was held out to test the laws.{command}"
    worst = max(answer.held_out, key=lambda name: answer.held_out[name])
    skill = f", {worst} by {format_percent(answer.held_out[worst], 2)}" if len(answer.held_out) > 1 else ""
    return f"Fitted to smaller runs, they missed larger ones by {format_percent(answer.mean_error, 2)}{skill}."


def next_line(answer: Answer) -> str:
    """Return the next runs, or the command that gives them."""
    if not answer.next_runs:
        mix = f" --mix {answer.mix}" if answer.mix else ""
        return f"Next runs: skillscale suggest {answer.source}{mix}".rstrip() + "."
    numbers = Counter(f"{format_count(run.N, 2)} on {format_count(run.D, 2)} tokens" for run in answer.next_runs)
    runs = [f"{number} of {run} with other seeds" if number > 1 else run for run, number in numbers.items()]
    return f"Next runs: {join_words(runs)}."


def _doubts_line(answer: Answer) -> list[str]:
    if not answer.doubts:
        return []
    return [f"Doubts about {join_first(list(answer.doubts), _SKILLS)}."]


def answer_as_dict(answer: Answer) -> JsonObject:
    """Return the answer for ``--json``. Its optimum has the fields of a plan."""
    optimum = optimum_as_dict(answer.optimum)
    return {
        **optimum, "mix": answer.mix, "tokens_interval": interval_ends(answer.optimum.D),
        "losses": {
            name: {"loss": loss.value, "interval": interval_ends(loss)} for name, loss in answer.losses.items()
        },
        "extrapolation": answer.optimum.extrapolation, "level": answer.level, "named_budget": answer.named_budget,
        "refusal": answer.refusal, "held_out": dict(answer.held_out),
        "next_runs": [{"n_params": run.N, "n_tokens": run.D} for run in answer.next_runs],
        "doubts": dict(answer.doubts), "text": answer_lines(answer),
    }  # fmt: skip
