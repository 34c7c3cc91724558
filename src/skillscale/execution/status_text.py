"""The status of a study for people: lines for a terminal, markdown for the MLflow UI, values for ``--json``."""

import shlex
import time
from collections.abc import Mapping, Sequence
from typing import Any

from skillscale.execution.run_text import format_point
from skillscale.execution.status import StudyStatus
from skillscale.formatting import JsonObject, format_duration, format_flops, format_percent, join_first, plural
from skillscale.tracking import PlannedPoint, Study, image, link, run_path

_STEPS = 6  # steps of the falling interval that a terminal shows
_REASONS = 3
_ROWS = 12
_LIMIT = 4500  # characters; MLflow takes 5000
_GAP = "&emsp;"
_FIGURES = {"isoflop.png": "isoFLOP curves", "law-optima.png": "N* by budget"}  # one is a click away


def format_utc(seconds: float) -> str:
    """Write seconds since the epoch as ``2026-01-31 14:05 UTC``, because readers may be anywhere."""
    return time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(seconds))


# For a terminal


def status_lines(status: StudyStatus) -> list[str]:
    """Return the lines that ``watch`` shows."""
    counts = status.counts
    done, planned = status.flops
    share = f" ({done / planned:.0%})" if planned else ""
    states = ", ".join(f"{counts[name]} {name}" for name in ("running", "failed", "waiting") if counts[name])
    lines = [
        f"study {status.study}, {format_utc(status.now_s)}",
        f"points     {counts['finished']} of {counts['planned']} done{f', {states}' if states else ''}",
        f"FLOP       {format_flops(done)} of {format_flops(planned)} spent{share}",
        f"time       {time_text(status)}",
    ]
    lines += [line for source in ("sample", "fit") if (line := _interval_line(status, source))]
    lines += [f"{'' if at else 'workers':<11}{_worker_text(point, status)}" for at, point in enumerate(status.running)]
    lines += [f"failed     {count} x {reason}" for reason, count in status.reasons[:_REASONS]]
    if status.surplus:
        runs = plural(len(status.surplus), "run")
        lines.append(f"surplus    {runs} of a point that has another: {join_first(status.surplus)}. Delete them")
    lines += [f"damaged    {name}: {reason}" for name, reason in status.damaged[:_REASONS]]
    return lines


def time_text(status: StudyStatus) -> str:
    """Return when the study began, and when it ended or is expected to end."""
    began = f"began {format_utc(status.began_s)}"
    if status.is_over:
        return began if status.ended_s is None else f"{began}, the last run ended {format_utc(status.ended_s)}"
    ago = f"{began}, {format_duration(status.now_s - status.began_s)} ago"
    end = status.expected_end_s
    if end is not None:
        return f"{ago}; expected to end {format_utc(end)}, in {format_duration(end - status.now_s)}"
    if status.running:
        return f"{ago}; no estimate of the end yet"
    if status.is_sampled:
        return f"{ago}; the sampler is choosing the next points"
    return f"{ago}; {_idle_text(status)}"


def _idle_text(status: StudyStatus) -> str:
    """Say that no process works on the study, and which command would."""
    study = shlex.quote(status.study)
    if status.is_evaluated:
        return f"no checkpoint is being measured. Go on with the same `skillscale evaluate --study {study}`"
    trainer = f" --trainer {shlex.quote(status.trainer)}" if status.trainer else ""
    return f"no worker is running. Start one with `skillscale worker --study {study}{trainer}`"


def _interval_line(status: StudyStatus, source: str) -> str:
    """Return how the widest interval fell, by one kind of analysis; empty without such an analysis."""
    widths = [width for width in status.widths if width.source == source]
    if not widths:
        return ""
    steps = ", ".join(f"{width.factor} ({plural(width.runs, 'run')})" for width in widths[-_STEPS:])
    return f"interval   widest of N*, x/÷, by {source}: {steps}"


def _worker_text(point: PlannedPoint, status: StudyStatus) -> str:
    share = status.share(point)
    owner = point.owner.rpartition(":")[0]  # without the start time of the process
    progress = f", {100 * share:.0f} % of its tokens" if share is not None else ""
    seconds = format_duration(status.now_s - point.claimed_ms / 1000)
    return f"{owner}: {format_point(point.point)}, for {seconds}{progress}"


def status_as_dict(status: StudyStatus) -> JsonObject:
    """Return the values for ``--json``; times are in seconds since the epoch."""
    done, planned = status.flops
    return {
        "study": status.study,
        "at_s": status.now_s,
        "began_s": status.began_s,
        "ended_s": status.ended_s if status.is_over else None,
        "expected_end_s": status.expected_end_s,
        "is_over": status.is_over,
        "is_sampled": status.is_sampled,
        "points": status.counts,
        "flops": done,
        "flops_planned": planned,
        "widths": [
            {
                "source": width.source, "runs": width.runs, "flops": width.flops, "half_width": width.half_width,
                "at_s": width.at_s,
            }
            for width in status.widths
        ],
        "workers": [
            {
                "owner": point.owner, "run_id": point.run_id, "point": point.point.as_dict(),
                "seconds": status.now_s - point.claimed_ms / 1000, "share": status.share(point),
            }
            for point in status.running
        ],
        "failures": [{"reason": reason, "count": count} for reason, count in status.reasons],
        "surplus": status.surplus,
    }  # fmt: skip


# For the MLflow UI


def status_markdown(status: StudyStatus, study: Study, summaries: Mapping[str, Any]) -> str:
    """Return the description of a study in markdown.

    Args:
        status: Status of the study.
        study: The study, for its links.
        summaries: Summaries of the last fit and report, by kind.
    """
    newest_first = sorted(summaries.items(), key=lambda item: -item[1]["at_s"])
    state, answer = f"Study {status.study}: {_state_text(status)}.", _answer(newest_first, study)
    lines = [f"{answer}{study.link}", "", state] if answer else [f"{state} {study.link}", ""]
    lines += [f"{_times_text(status)}; {_cost_text(status)}."]
    if status.widths:
        last = max(status.widths, key=lambda width: (width.runs, width.at_s))
        lines += [f"Widest interval of N*: x/÷ {last.factor} after {plural(last.runs, 'run')} ({last.source})."]
    lines += [f"Failed, {count} ×: {reason}" for reason, count in status.reasons[:_REASONS]]
    lines += _figure_lines(newest_first)  # before the lists, whose end may be cut
    lines += [line for kind, summary in newest_first for line in ("", _files_line(kind, summary, study))]
    lines += _optima_lines(newest_first[0][1], study) if newest_first else []
    return clip_markdown("\n".join(lines))


def clip_markdown(text: str) -> str:
    """Return a description that fits into a tag of MLflow, cut at the end of a line."""
    return text if len(text) <= _LIMIT else text[:_LIMIT].rpartition("\n")[0] + "\n\n…"


def preformatted(text: str) -> str:
    """Return what a command prints as a description: lines of equal width, cut where MLflow takes no more."""
    return "\n".join(["```", clip_markdown(text), "```"])


def markdown_table(columns: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Return the lines of a table."""
    return [_row(columns), f"|{'---|' * len(columns)}", *(_row(row) for row in rows)]


def _answer(newest_first: Sequence[tuple[str, Mapping[str, Any]]], study: Study) -> str:
    """Return the answer of the newest fit or report, whose losses link to the runs, and a link to its figure."""
    summary = next((summary for _, summary in newest_first if summary.get("answer")), None)
    if summary is None:
        return ""
    losses = f": {link(summary['losses'], study.runs_path)}" if summary["losses"] else ""
    named = {file.rpartition("/")[2]: file for file in summary["files"]}
    figures = [
        f"{link(text, run_path(study.study_experiment_id, summary['run_id'], named[name]))} · "
        for name, text in _FIGURES.items() if name in named
    ]  # fmt: skip
    return f"{summary['answer']}{losses} · {''.join(figures[:1])}"


def _figure_lines(newest_first: Sequence[tuple[str, Mapping[str, Any]]]) -> list[str]:
    """Return the figure of the newest fit or report that has one."""
    for kind, summary in newest_first:
        if preview := summary.get("preview"):
            return ["", image(f"Figure of the last {kind}", summary["run_id"], preview)]
    return []


def _state_text(status: StudyStatus) -> str:
    counts = status.counts
    others = [f"{counts[name]} {name}" for name in ("running", "failed", "waiting") if counts[name]]
    text = ", ".join([f"{counts['finished']} of {counts['planned']} points done", *others])
    if status.is_over:
        return f"ended, {text}"
    if status.running:
        return f"{'sampling' if status.is_sampled else 'training'}, {text}"
    return f"{text}; no worker is running. Run the same command to go on"


def _cost_text(status: StudyStatus) -> str:
    done, planned = status.flops
    return f"{format_flops(done)} of {format_flops(planned)} FLOP (6 N D) spent"


def _times_text(status: StudyStatus) -> str:
    began = f"Began {format_utc(status.began_s)}"
    if status.is_over:
        return began if status.ended_s is None else f"{began}, last run ended {format_utc(status.ended_s)}"
    end = status.expected_end_s
    workers = f"{plural(len(status.running), 'worker')} running at {format_utc(status.now_s)}"
    return f"{began}, expected to end {format_utc(end)} ({workers})" if end else f"{began} ({workers})"


def _files_line(kind: str, summary: Mapping[str, Any], study: Study) -> str:
    """Return the last fit or report, with links to its files."""
    experiment, run_id = study.study_experiment_id, summary["run_id"]
    files = " · ".join(link(name.rpartition("/")[2], run_path(experiment, run_id, name)) for name in summary["files"])
    run = link(f"Last {kind}", run_path(experiment, run_id))
    return f"{run} ({format_utc(summary['at_s'])}, {plural(summary['runs'], 'run')}): {files}"


def _optima_lines(summary: Mapping[str, Any], study: Study) -> list[str]:
    """Return the table of compute optima of a fit or report."""
    rows = summary["optima"][:_ROWS]
    if not rows:
        return []
    table = link("Compute optima", run_path(study.study_experiment_id, summary["run_id"], "tables/law_optima.csv"))
    rest = "; the file holds more skills" if len(summary["optima"]) > len(rows) else ""
    columns = ["skill", *(f"N* at {flops}" for flops in rows[0]["at"])]
    cells = markdown_table(columns, [[row["skill"], *row["at"].values()] for row in rows])
    title = f"{table} by the laws, with {format_percent(summary['level'])} intervals{rest}:"
    return ["", title, "", *cells]


def _row(cells: Sequence[str]) -> str:
    """Return a row of a table; the UI itself leaves no room between columns."""
    return f"| {' | '.join(f'{cell}{_GAP}' for cell in cells)} |"
