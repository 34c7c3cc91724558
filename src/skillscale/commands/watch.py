"""The entry ``watch``: how far a study is, told again and again while workers run, from the registry alone."""

import shlex
import time
from collections.abc import Sequence
from typing import Any

from skillscale.cli.output import Output
from skillscale.config import Config
from skillscale.config.options import WatchOptions
from skillscale.execution.status import IntervalWidth, StudyStatus, format_utc, study_status
from skillscale.execution.worker import format_point
from skillscale.formatting import format_duration, format_flops, plural
from skillscale.tracking import PlannedPoint, StudyStore

_WIDTHS = 6  # steps that are shown of how the interval falls
_REASONS = 3


def watch(options: WatchOptions, config: Config, out: Output) -> dict[str, Any]:  # noqa: ARG001
    """Tell how far a study is until nothing is left to train; with ``once`` tell it and end.

    Raises:
        TrackingError: the registry is not there, has no such study, or fails.
    """
    registry = StudyStore.open(options.tracking, create=False, queue=options.queue)
    study = registry.study(options.study)
    once, every_s = options.once, options.interval_s
    shown = 0
    while True:
        standing = study_status(study)
        last = once or standing.is_over
        shown = _show(status_lines(standing), shown, out)
        if last:
            return status_as_dict(standing)
        time.sleep(every_s)


def status_lines(standing: StudyStatus) -> list[str]:
    """For a person."""
    counts = standing.counts
    done, planned = standing.flops
    share = f" ({done / planned:.0%})" if planned else ""
    points = ", ".join(f"{counts[name]} {name}" for name in ("running", "failed", "waiting") if counts[name])
    lines = [
        f"study {standing.study}, {format_utc(standing.now_s)}",
        f"points     {counts['finished']} of {counts['planned']} done{f', {points}' if points else ''}",
        f"FLOP       {format_flops(done)} of {format_flops(planned)} spent{share}",
        f"time       {_time(standing)}",
    ]
    lines += [line for source in ("sample", "fit") if (line := _falling(source, standing.widths))]
    lines += [f"{'workers' if not at else '':<11}{_worker(each, standing)}" for at, each in enumerate(standing.running)]
    lines += [f"failed     {times} x {reason}" for reason, times in standing.reasons[:_REASONS]]
    return lines


def _time(standing: StudyStatus) -> str:
    began = f"begun {format_utc(standing.began_s)}"
    if standing.is_over:
        return began if standing.ended_s is None else f"{began}, the last run ended {format_utc(standing.ended_s)}"
    ago = f"{began}, {format_duration(standing.now_s - standing.began_s)} ago"
    end = standing.expected_end_s
    if end is not None:
        return f"{ago}; expected to end {format_utc(end)}, in {format_duration(end - standing.now_s)}"
    if standing.running:
        return f"{ago}; when it will end is not known yet"
    if standing.is_sampled:
        return f"{ago}; the next points are being chosen"
    return f"{ago}; {_nobody(standing)}"


def _nobody(standing: StudyStatus) -> str:
    """That no process is at work, and which would be."""
    study = shlex.quote(standing.study)
    if standing.is_evaluated:
        return f"nothing is being measured: the same `skillscale evaluate --study {study}` goes on"
    trainer = f" --trainer {shlex.quote(standing.trainer)}" if standing.trainer else ""
    return f"no worker is at work: `skillscale worker --study {study}{trainer}` would be one"


def _falling(source: str, widths: Sequence[IntervalWidth]) -> str:
    """How the widest interval fell, of one kind of analysis; empty where it found none."""
    found = [one for one in widths if one.source == source]
    if not found:
        return ""
    told = ", ".join(f"{one.factor} ({plural(one.runs, 'run')})" for one in found[-_WIDTHS:])
    return f"interval   widest of N*, a factor up or down, by {source}: {told}"


def _worker(one: PlannedPoint, standing: StudyStatus) -> str:
    share, owner = standing.share(one), one.owner.rpartition(":")[0]  # without what tells processes of one number apart
    at = f", {share:.0%} of its tokens" if share is not None else ""
    return f"{owner}: {format_point(one.point)}, for {format_duration(standing.now_s - one.claimed_ms / 1000)}{at}"


def _show(lines: Sequence[str], shown: int, out: Output) -> int:
    """Write the lines, at a terminal over those of before; return how many there are then."""
    if shown and out.answer.isatty():
        out.text(f"\x1b[{shown}F\x1b[J" + "\n".join(lines))
    else:
        out.text("\n".join([*[""] * bool(shown), *lines]))
    return len(lines)


def status_as_dict(standing: StudyStatus) -> dict[str, Any]:
    """As plain values; times in seconds since the epoch."""
    done, planned = standing.flops
    return {
        "study": standing.study,
        "at_s": standing.now_s,
        "began_s": standing.began_s,
        "ended_s": standing.ended_s if standing.is_over else None,
        "expected_end_s": standing.expected_end_s,
        "is_over": standing.is_over,
        "is_sampled": standing.is_sampled,
        "points": standing.counts,
        "flops": done,
        "flops_planned": planned,
        "widths": [
            {
                "source": one.source, "runs": one.runs, "flops": one.flops, "half_width": one.half_width,
                "at_s": one.at_s,
            }
            for one in standing.widths
        ],
        "workers": [
            {
                "owner": each.owner, "run_id": each.run_id, "point": each.point.as_dict(),
                "seconds": standing.now_s - each.claimed_ms / 1000, "share": standing.share(each),
            }
            for each in standing.running
        ],
        "failures": [{"reason": reason, "count": times} for reason, times in standing.reasons],
    }  # fmt: skip
