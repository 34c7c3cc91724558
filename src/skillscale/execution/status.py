"""The status of a study at a moment: its points, FLOP, rates and intervals."""

import math
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from skillscale.execution.grid import cost
from skillscale.record import RunRecord
from skillscale.tracking import EVALUATED, IMPORTED, TRAINER, PlannedPoint, Study, is_alive

_LOGGED = ("half_width", "flops_finished", "runs", "flops_spent", "flops_budget")
_LEAST_SHARE = 0.1  # of its tokens, from which on a first run shows how long it takes (not tuned)
_AnalysisMetrics = Mapping[str, list[tuple[int, float, int]]]  # (step, value, ms) by metric


@dataclass(frozen=True, kw_only=True)
class IntervalWidth:
    """The widest interval of N* that an analysis computed.

    Args:
        source: Kind of the analysis: sample, fit or report.
        half_width: Half width in ln N.
        runs: Number of finished runs.
        flops: 6 N D of these runs, FLOP.
        at_s: Time of the analysis, seconds since the epoch.
    """

    source: str
    half_width: float
    runs: int
    flops: float = field(metadata={"unit": "FLOP"})
    at_s: float = field(metadata={"unit": "s"})

    @property
    def factor(self) -> str:
        """Factor of N* up or down, as in ``1.3``."""
        return f"{math.exp(self.half_width):.3g}" if self.half_width < 50 else "unknown"


@dataclass(frozen=True, kw_only=True)
class StudyStatus:
    """The status of a study at a moment.

    Args:
        study: Name of the study.
        now_s: Time of this status, seconds since the epoch.
        began_s: Time at which the study began, seconds since the epoch.
        points: Points of the plan with their states.
        alive: Owners of running points that are alive, as far as can be known.
        tokens: Tokens that running points were trained on, by run id, as far as their curves are written.
        finished: Every finished run, imported runs included.
        widths: Widest intervals in the order of their analyses; the last one of each source and number of runs.
        is_sampled: Whether a sampler adds points to the queue.
        flops_left: FLOP that the sampler may still spend.
        trainer: FILE.py:function of the user's trainer; empty: skillscale trains.
        is_evaluated: Whether the runs are checkpoints that were trained elsewhere.
        surplus: Ids of finished runs that are not used, because their point has another finished run.
        damaged: Names and reasons of runs that could not be read.
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
    surplus: tuple[str, ...] = ()
    damaged: tuple[tuple[str, str], ...] = ()

    @property
    def counts(self) -> dict[str, int]:
        """Numbers of points by state; those whose process is gone wait for a worker."""
        states = Counter(point.status for point in self.points)
        running = len(self.running)
        return {
            "planned": max(len(self.points), len(self.finished)),
            "finished": len(self.finished),
            "running": running,
            "failed": states["FAILED"],
            "waiting": states[""] + states["KILLED"] + states["RUNNING"] - running,
        }

    @property
    def running(self) -> list[PlannedPoint]:
        """Points that a living process works on, the longest first."""
        running = [point for point in self.points if point.status == "RUNNING" and point.owner in self.alive]
        return sorted(running, key=lambda point: point.claimed_ms)

    def share(self, point: PlannedPoint) -> float | None:
        """Return the share of its tokens that a running point was trained on; None without a curve."""
        tokens = self.tokens.get(point.run_id)
        return None if tokens is None else tokens / point.point.n_tokens

    @property
    def is_over(self) -> bool:
        """Whether no point remains to be trained, and no sampler adds points."""
        counts = self.counts
        return not (counts["running"] or counts["waiting"] or self.is_sampled)

    @property
    def flops(self) -> tuple[float, float]:
        """6 N D of the finished runs, and of all points of the plan, FLOP."""
        done = math.fsum(record.point.flops for record in self.finished)
        return done, max(done, math.fsum(point.point.flops for point in self.points))

    @property
    def ended_s(self) -> float | None:
        """Time at which the last run ended; None where no run has ended, or only imported runs."""
        return max((point.end_ms / 1000 for point in self.points if point.end_ms), default=None)

    @property
    def expected_end_s(self) -> float | None:
        """Time at which all points will be done, by the rates of the runs so far; None without workers or rates.

        The rate is time per cost, over the ended runs and the trained share of the running ones. The present workers
        share the rest. Until a run has ended, runs that have hardly begun do not count: the time that a run takes once,
        for loading, would be extrapolated.
        """
        running = self.running
        ended = [point for point in self.points if point.status == "FINISHED" and point.end_ms > point.claimed_ms]
        least = 0.0 if ended else _LEAST_SHARE
        shares = [(point, share) for point in running if (share := self.share(point)) and share >= least]
        took_s = math.fsum(point.end_ms - point.claimed_ms for point in ended) / 1000
        cost_of_ended = math.fsum(cost(point.point) for point in ended)
        if not running or not (ended or shares):
            return None
        rate = (took_s + math.fsum(self.now_s - point.claimed_ms / 1000 for point, _ in shares)) / (
            cost_of_ended + math.fsum(share * cost(point.point) for point, share in shares)
        )
        rests_s = [self._rest_s(point, rate) for point in running]
        waiting = [point for point in self.points if point.status in ("", "KILLED", "RUNNING") and point not in running]
        total_s = math.fsum(rests_s) + rate * math.fsum(cost(point.point) for point in waiting)
        if self.flops_left > 0 and ended:
            total_s += self.flops_left * took_s / math.fsum(point.point.flops for point in ended)
        return self.now_s + max([total_s / len(running), *rests_s])

    def _rest_s(self, point: PlannedPoint, rate: float) -> float:
        """Return the expected remaining time of a running point, s."""
        share = self.share(point)
        if share is not None:
            return rate * cost(point.point) * max(1 - share, 0.0)
        return max(rate * cost(point.point) - (self.now_s - point.claimed_ms / 1000), 0.0)

    @property
    def reasons(self) -> list[tuple[str, int]]:
        """Reasons of the failed points with their counts, the most frequent first."""
        return Counter(point.reason for point in self.points if point.status == "FAILED").most_common()


def study_status(study: Study) -> StudyStatus:
    """Return the status of a study of the tracking store.

    Raises:
        TrackingError: The store failed.
    """
    points = tuple(study.planned())
    running = [point for point in points if point.status == "RUNNING" and is_alive(point.owner) is not False]
    with_run = [point for point in running if point.run_id]  # a point that was just claimed has no run
    curves = {point.run_id: study.runs.curve(point.run_id) for point in with_run}
    is_sampled, settings = study.is_sampling(), study.notes.settings()
    sampled = study.analysis_metrics("sample", _LOGGED)
    fitted = study.analysis_metrics("fit", _LOGGED) + study.analysis_metrics("report", _LOGGED)
    return StudyStatus(
        study=study.name,
        now_s=time.time(),
        began_s=study.notes.began_ms() / 1000,
        points=points,
        alive=frozenset(point.owner for point in running),
        tokens={run_id: curve[-1][0] for run_id, curve in curves.items() if curve},
        finished=tuple(study.runs.finished()),
        widths=tuple(sorted(_widths("sample", sampled) + _widths("fit", fitted), key=lambda width: width.at_s)),
        is_sampled=is_sampled,
        flops_left=_flops_left(sampled) if is_sampled else 0.0,
        trainer=settings.get(TRAINER, ""),
        is_evaluated=EVALUATED in settings,
        surplus=() if {EVALUATED, IMPORTED} & settings.keys() else study.runs.surplus(),
        damaged=tuple((run.name, run.reason) for run in (*study.runs.damaged, *study.runs.incomplete)),
    )


def _widths(source: str, analyses: Sequence[_AnalysisMetrics]) -> list[IntervalWidth]:
    """Return the last width at each number of runs."""
    widths: dict[int, IntervalWidth] = {}
    for metrics in analyses:
        flops = {runs: value for runs, value, _ in metrics.get("flops_finished", ())}
        for runs, half_width, at_ms in metrics.get("half_width", ()):
            if runs not in widths or widths[runs].at_s <= at_ms / 1000:
                widths[runs] = IntervalWidth(
                    source=source, half_width=half_width, runs=runs, flops=flops.get(runs, math.nan),
                    at_s=at_ms / 1000,
                )  # fmt: skip
    return [widths[runs] for runs in sorted(widths)]


def _flops_left(analyses: Sequence[_AnalysisMetrics]) -> float:
    """Return the FLOP that the last call of the sampler may still spend."""
    last = analyses[-1] if analyses else {}
    budget, spent = last.get("flops_budget"), last.get("flops_spent")
    return max(budget[-1][1] - spent[-1][1], 0.0) if budget and spent else 0.0
