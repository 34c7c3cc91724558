"""How far a study is: its points, FLOP, rates and intervals at a moment, and the description of it in the MLflow UI."""

import math
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from skillscale.errors import SkillscaleError
from skillscale.execution.grid import cost
from skillscale.formatting import format_count, format_flops, format_interval, plural
from skillscale.record import RunRecord
from skillscale.tracking import EVALUATED, TRAINER, PlannedPoint, Study, is_alive, link, run_path

FOUND = "found"  # what fits and reports keep with the plan, for the description
_EVERY_S = 30.0
_AFTER_FAILURE_S = 300.0
_LOGGED = ("half_width", "flops_finished", "runs", "flops_spent", "flops_budget")
_LIMIT = 4500  # characters; MLflow takes 5000
_ROWS = 12
_REASONS = 3
_TELLING_SHARE = 0.1  # of its tokens, from which a run tells how long it takes (not tuned)
_GAP = "&emsp;"
_Call = Mapping[str, list[tuple[int, float, int]]]  # what an analysis logged: (step, value, ms) by metric


@dataclass(frozen=True, kw_only=True)
class IntervalWidth:
    """The widest interval of N* that an analysis found: ``half_width`` in ln N, after ``runs`` runs of ``flops``.

    ``at_s``: when, since the epoch.
    """

    source: str
    half_width: float
    runs: int
    flops: float = field(metadata={"unit": "FLOP"})
    at_s: float = field(metadata={"unit": "s"})

    @property
    def factor(self) -> str:
        """N* up or down, as in ``1.3``."""
        return f"{math.exp(self.half_width):.3g}" if self.half_width < 50 else "not known"


@dataclass(frozen=True, kw_only=True)
class StudyStatus:
    """How far a study is.

    Args:
        study: its name.
        now_s, began_s: seconds since the epoch.
        points: those of the plan, with what became of them.
        alive: owners of running points that live, as far as can be known.
        tokens: that running points have trained on, by run id, as far as their curves are written.
        finished: every finished run, those that were imported included.
        widths: of the widest interval, as analyses came; one of each source and number of runs, the last.
        is_sampled: a sampler adds points to the queue.
        flops_left: what it may still spend.
        trainer: FILE.py:function of the user's that makes the runs; empty: no trainer does.
        is_evaluated: the runs are checkpoints that were trained elsewhere.
    """

    study: str
    now_s: float
    began_s: float
    points: tuple[PlannedPoint, ...]
    alive: frozenset[str] = frozenset()
    tokens: Mapping[str, int] = field(default_factory=dict)
    finished: tuple[RunRecord, ...] = ()
    widths: tuple[IntervalWidth, ...] = ()
    is_sampled: bool = False
    flops_left: float = 0.0
    trainer: str = ""
    is_evaluated: bool = False

    @property
    def counts(self) -> dict[str, int]:
        """Points by what became of them; ``waiting`` for a worker are also those whose process is gone."""
        found = Counter(each.status for each in self.points)
        running = len(self.running)
        return {
            "planned": max(len(self.points), len(self.finished)),
            "finished": len(self.finished),
            "running": running,
            "failed": found["FAILED"],
            "waiting": found[""] + found["KILLED"] + found["RUNNING"] - running,
        }

    @property
    def running(self) -> list[PlannedPoint]:
        """The points that a living process works on, the longest first."""
        now = [each for each in self.points if each.status == "RUNNING" and each.owner in self.alive]
        return sorted(now, key=lambda each: each.claimed_ms)

    def share(self, one: PlannedPoint) -> float | None:
        """Of the tokens of a running point; None where there is no curve."""
        done = self.tokens.get(one.run_id)
        return None if done is None else done / one.point.n_tokens

    @property
    def is_over(self) -> bool:
        """Whether nothing is left to train, and nobody adds anything."""
        counts = self.counts
        return not (counts["running"] or counts["waiting"] or self.is_sampled)

    @property
    def flops(self) -> tuple[float, float]:
        """6 N D of the finished runs, and of all points of the plan, FLOP."""
        done = math.fsum(one.point.flops for one in self.finished)
        return done, max(done, math.fsum(each.point.flops for each in self.points))

    @property
    def ended_s(self) -> float | None:
        """When the last run ended; None where none has, or nobody told, as of runs that were imported."""
        return max((each.end_ms / 1000 for each in self.points if each.end_ms), default=None)

    @property
    def expected_end_s(self) -> float | None:
        """When all will be done, by the rates of the runs so far; None where no worker is at work, or nothing is known.

        A run takes as long for its cost as those that ended took, and as those under way did for their share; the
        workers of now share what is left. Until one has ended, those that have hardly begun tell nothing: what a run
        takes once, such as loading, would count for all that is left of it.
        """
        busy = self.running
        ended = [each for each in self.points if each.status == "FINISHED" and each.end_ms > each.claimed_ms]
        least = 0.0 if ended else _TELLING_SHARE
        begun = [(each, share) for each in busy if (share := self.share(each)) and share >= least]
        took = math.fsum(each.end_ms - each.claimed_ms for each in ended) / 1000
        cost_of = math.fsum(cost(each.point) for each in ended)
        if not busy or not (ended or begun):
            return None
        rate = (took + math.fsum(self.now_s - each.claimed_ms / 1000 for each, _ in begun)) / (
            cost_of + math.fsum(share * cost(each.point) for each, share in begun)
        )
        rests = [self._rest_s(each, rate) for each in busy]
        waits = [each for each in self.points if each.status in ("", "KILLED", "RUNNING") and each not in busy]
        left = math.fsum(rests) + rate * math.fsum(cost(each.point) for each in waits)
        if self.flops_left > 0 and ended:
            left += self.flops_left * took / math.fsum(each.point.flops for each in ended)
        return self.now_s + max([left / len(busy), *rests])

    def _rest_s(self, one: PlannedPoint, rate: float) -> float:
        share = self.share(one)
        if share is not None:
            return rate * cost(one.point) * max(1 - share, 0.0)
        return max(rate * cost(one.point) - (self.now_s - one.claimed_ms / 1000), 0.0)

    @property
    def reasons(self) -> list[tuple[str, int]]:
        """Why points failed, the most frequent first."""
        return Counter(each.reason for each in self.points if each.status == "FAILED").most_common()


def study_status(study: Study) -> StudyStatus:
    """How far a study of the registry is.

    Raises:
        TrackingError: the store failed.
    """
    points = tuple(study.planned())
    busy = [each for each in points if each.status == "RUNNING" and is_alive(each.owner) is not False]
    curves = {
        each.run_id: study.runs.curve(each.run_id) for each in busy if each.run_id
    }  # one that is just held has none
    sampled, settings = study.is_sampling(), study.notes.settings()
    logged = study.analysis_metrics("sample", _LOGGED)
    fitted = study.analysis_metrics("fit", _LOGGED) + study.analysis_metrics("report", _LOGGED)
    return StudyStatus(
        study=study.name,
        now_s=time.time(),
        began_s=study.notes.began_ms() / 1000,
        points=points,
        alive=frozenset(each.owner for each in busy),
        tokens={run_id: curve[-1][0] for run_id, curve in curves.items() if curve},
        finished=tuple(study.runs.finished()),
        widths=tuple(sorted(_widths("sample", logged) + _widths("fit", fitted), key=lambda one: one.at_s)),
        is_sampled=sampled,
        flops_left=_left(logged) if sampled else 0.0,
        trainer=settings.get(TRAINER, ""),
        is_evaluated=EVALUATED in settings,
    )


def _widths(source: str, logged: Sequence[_Call]) -> list[IntervalWidth]:
    """One for each number of runs: the last that was found then."""
    found: dict[int, IntervalWidth] = {}
    for call in logged:
        flops = {runs: value for runs, value, _ in call.get("flops_finished", ())}
        for runs, half, at_ms in call.get("half_width", ()):
            if runs not in found or found[runs].at_s <= at_ms / 1000:
                found[runs] = IntervalWidth(
                    source=source, half_width=half, runs=runs, flops=flops.get(runs, math.nan), at_s=at_ms / 1000
                )
    return [found[runs] for runs in sorted(found)]


def _left(logged: Sequence[_Call]) -> float:
    """FLOP that the last call of the sampler may still spend."""
    last = logged[-1] if logged else {}
    budget, spent = last.get("flops_budget"), last.get("flops_spent")
    return max(budget[-1][1] - spent[-1][1], 0.0) if budget and spent else 0.0


def format_utc(seconds: float) -> str:
    """Seconds since the epoch as ``2026-01-31 14:05 UTC``: who reads it may be anywhere."""
    return time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(seconds))


def status_markdown(standing: StudyStatus, study: Study, found: Mapping[str, Any]) -> str:
    """The description of a study, in markdown.

    Args:
        standing: how far it is.
        study: for its links.
        found: what fits and reports kept, by kind.
    """
    lines = [f"**Study {standing.study}**: {_state(standing)}. {study.link}", ""]
    lines += [f"{_times(standing)}; {_cost(standing)}."]
    if standing.widths:
        last = max(standing.widths, key=lambda one: (one.runs, one.at_s))
        runs = plural(last.runs, "run")
        lines += [f"Widest interval of N*: a factor of {last.factor} up or down after {runs} ({last.source})."]
    lines += [f"Failed, {times} ×: {reason}" for reason, times in standing.reasons[:_REASONS]]
    newest_first = sorted(found.items(), key=lambda each: -each[1]["at_s"])
    lines += [line for kind, one in newest_first for line in ("", _files(kind, one, study))]
    lines += _optima(newest_first[0][1], study) if newest_first else []
    text = "\n".join(lines)
    return text if len(text) <= _LIMIT else text[:_LIMIT].rpartition("\n")[0] + "\n\n…"


def _state(standing: StudyStatus) -> str:
    counts = standing.counts
    others = [f"{counts[name]} {name}" for name in ("running", "failed", "waiting") if counts[name]]
    told = ", ".join([f"{counts['finished']} of {counts['planned']} points done", *others])
    if standing.is_over:
        return f"ended, {told}"
    if standing.running:
        return f"{'sampling' if standing.is_sampled else 'training'}, {told}"
    return f"{told}; nobody is at work, the same command goes on"


def _cost(standing: StudyStatus) -> str:
    done, planned = standing.flops
    return f"{format_flops(done)} of {format_flops(planned)} FLOP (6 N D) spent"


def _times(standing: StudyStatus) -> str:
    began = f"Begun {format_utc(standing.began_s)}"
    if standing.is_over:
        return began if standing.ended_s is None else f"{began}, last run ended {format_utc(standing.ended_s)}"
    end = standing.expected_end_s
    rate = f"{plural(len(standing.running), 'worker')} at work, told {format_utc(standing.now_s)}"
    return f"{began}, expected to end {format_utc(end)} ({rate})" if end else f"{began} ({rate})"


def _files(kind: str, one: Mapping[str, Any], study: Study) -> str:
    """The latest fit or report, with links to its files."""
    where, run_id = study.study_experiment_id, one["run_id"]
    files = " · ".join(link(name.rpartition("/")[2], run_path(where, run_id, name)) for name in one["files"])
    return f"{link(f'Last {kind}', run_path(where, run_id))} ({format_utc(one['at_s'])}, {plural(one['runs'], 'run')}): {files}"


def _optima(one: Mapping[str, Any], study: Study) -> list[str]:
    """The table of compute optima of a fit or report."""
    rows = one["optima"][:_ROWS]
    if not rows:
        return []
    table = link("Compute optima", run_path(study.study_experiment_id, one["run_id"], "tables/law_optima.csv"))
    rest = "; more skills there" if len(one["optima"]) > len(rows) else ""
    columns = ["skill", *(f"N* at {flops}" for flops in rows[0]["at"])]
    told = [_row([row["skill"], *row["at"].values()]) for row in rows]
    title = f"{table} by the laws, with {one['level']:.0%} intervals{rest}:"
    return ["", title, "", _row(columns), f"|{'---|' * len(columns)}", *told]


def _row(cells: Sequence[str]) -> str:
    """A row of a table; the UI itself leaves no room between columns."""
    return f"| {' | '.join(f'{cell}{_GAP}' for cell in cells)} |"


def optima_rows(frame: Sequence[Mapping[Any, Any]]) -> list[dict[str, Any]]:
    """Rows of ``law_optima.csv`` as texts, one for each skill: N* with its interval at each C."""
    rows: dict[str, dict[str, str]] = {}
    for one in frame:
        optimum = format_interval(one["N"], one["N_lo"], one["N_hi"], lambda N: format_count(N, 2))
        rows.setdefault(str(one["skill"]), {})[format_flops(one["C"])] = optimum
    return [{"skill": skill, "at": at} for skill, at in rows.items()]


class StatusPublisher:
    """Keeps the description of a study current; that it can't be written is told, and stops nothing.

    Args:
        study: to describe.
        progress: where a failure is told, once.
    """

    def __init__(self, study: Study, progress: Callable[[str], None]) -> None:
        self._study = study
        self._progress = progress
        self._next_s = time.monotonic() + _EVERY_S
        self._failed = False

    def refresh(self, *, now: bool = False) -> bool:
        """Describe the study, if nobody has for half a minute, or ``now``; whether it was."""
        if not now and time.monotonic() < self._next_s:
            return False
        self._next_s = time.monotonic() + _EVERY_S
        try:
            if not now and time.time() - self._study.notes.described_ms() / 1000 < _EVERY_S:
                return False
            publish_status(self._study)
        except (SkillscaleError, OSError) as error:
            self._next_s += _AFTER_FAILURE_S
            if not self._failed:
                self._progress(f"note: the study's description in the MLflow UI is not current: {error}")
            self._failed = True
            return False
        return True


def publish_status(study: Study) -> None:
    """Describe a study in the MLflow UI as it is now.

    Raises:
        TrackingError: the store failed.
    """
    standing = study_status(study)
    records = standing.finished
    skills = list(dict.fromkeys(name for one in records for name in one.skills))
    shares: dict[str, set[float]] = {}
    for one in records:
        for category, share in one.point.mix.shares.items():
            shares.setdefault(category, set()).add(share)
    mixed = len({one.point.mix for one in records}) > 1
    varied = [name for name, seen in shares.items() if mixed and (len(seen) > 1 or 0 not in seen)]
    note = status_markdown(standing, study, study.notes.get_json(FOUND) or {})
    study.describe(note, skills=skills, mixes=varied, per_byte=standing.is_evaluated)


def store_fit_summary(
    study: Study, kind: str, *, run_id: str, files: Sequence[str], optima: Sequence[Mapping[Any, Any]], runs: int,
    level: float,
) -> None:  # fmt: skip
    """Keep what a fit or a report found, for the description.

    Args:
        study: whose it is.
        kind: ``fit`` or ``report``.
        run_id: of the analysis.
        files: of its artifacts worth a link.
        optima: rows of ``law_optima.csv``.
        runs: that were fitted.
        level: of the intervals.
    """
    kept = study.notes.get_json(FOUND) or {}
    rows = optima_rows(optima)[: _ROWS + 1]
    one = {"run_id": run_id, "at_s": time.time(), "files": list(files), "runs": runs, "level": level, "optima": rows}
    study.notes.put_json(FOUND, {name: value for name, value in kept.items() if name != kind} | {kind: one})
