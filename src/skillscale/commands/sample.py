"""The entry ``sample``: ask for the next points, train them with several workers, fit again, until it is enough.

The queue is kept as full as there are workers, so that none waits for another; points that are under way count. All
that is known is in the registry: the same command goes on where it was stopped.
"""

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from skillscale.cli.output import Output
from skillscale.config import Config
from skillscale.design.model_averaging import estimate_targets
from skillscale.design.proposal import Recommendation
from skillscale.design.propose import START, propose
from skillscale.errors import InputError, TrainingError
from skillscale.execution.launchers import WorkerHandle
from skillscale.execution.session import open_study, require_known_study
from skillscale.execution.status import StatusPublisher
from skillscale.execution.user_trainer import UserTrainer
from skillscale.execution.worker import format_point
from skillscale.execution.worker_pool import (
    check_launcher,
    is_external_launcher,
    print_worker_command,
    start_worker,
    stop_workers,
    worker_options,
)
from skillscale.formatting import shorten
from skillscale.point import DesignPoint
from skillscale.record import RunRecord
from skillscale.runs import RunTable
from skillscale.runs.read import table_of_records, trained_table
from skillscale.sampler.study import (
    SAMPLING_PROBLEM,
    IntervalLog,
    IntervalReduction,
    SamplingProblem,
    StudyContext,
    apply_options,
    build_problem,
    context_from_config,
    print_recommendation,
    recommendation_as_dict,
    run_history,
    to_points,
    to_reason,
)
from skillscale.tracking import PlannedPoint, Study, StudyStore

FAILURES = 5  # in a row, after which no more points are chosen
_LOOK_EVERY_S = 0.2


@dataclass(frozen=True, kw_only=True)
class _Job:
    """What a call of the command works on."""

    study: Study
    order: SamplingProblem
    table_of: Callable[[Sequence[RunRecord]], RunTable]
    seed: int
    out: Output
    began_ms: int = field(default_factory=lambda: int(time.time() * 1000))


def sample(arguments: Mapping[str, Any], config: Config, out: Output) -> dict[str, Any]:
    """Choose points, train them, fit again, until the intervals are narrow enough or the budget is spent."""
    began = time.monotonic()
    arguments = worker_options(arguments, config)
    check_launcher(arguments)
    job, arguments = _opened(arguments, config, out)
    for note in job.order.notes:
        out.progress(f"note: {note}")
    _agree(job, replan=arguments["replan"])
    out.progress(f"study {job.study.name}: {len(job.study.runs.finished())} runs to begin with")
    advice = _sampled(job, arguments)
    chosen = [each for each in job.study.planned() if each.why is not None]
    states = Counter(each.status for each in chosen)
    out.text(
        f"study {job.study.name}: {len(chosen)} points chosen, {states['FINISHED']} finished, {states['FAILED']} "
        f"failed, {_spent(chosen, job.order):.3g} of {job.order.budget:.3g} FLOP spent"
    )
    print_recommendation(advice, (), job.order, out)
    return {
        "study": job.study.name,
        "tracking": arguments["tracking"],
        "chosen": len(chosen),
        "finished": states["FINISHED"],
        "failed": states["FAILED"],
        "flops_spent": _spent(chosen, job.order),
        "seconds": time.monotonic() - began,
        **recommendation_as_dict(advice, (), job.order),
    }


def sample_after(
    points: Sequence[DesignPoint], arguments: Mapping[str, Any], config: Config, out: Output
) -> dict[str, Any]:
    """Sample some more points after the grid ``points`` of a study; tell how much narrower the intervals got.

    They may cost a share of the grid's FLOPs, in as many runs of its number (``sample.after_grid``); those that were
    sampled before count. Where there is nothing to sample, or runs fail, the grid's results stand: it says why.
    """
    registry = StudyStore.open(arguments["tracking"], cache=arguments["cache"], queue=arguments.get("storage", ""))
    study = registry.study(config.study.name)
    share = config.sample.after_grid
    asked = replace(
        config.sample, budget=share * sum(point.flops for point in points), runs=max(1, round(share * len(points)))
    )
    try:
        order = build_problem(asked, context_from_config(config, study.notes.data_description()))
    except InputError as error:
        out.progress(f"note: nothing is sampled after the grid: {error}")
        return {"ended": str(error)}
    job = _Job(
        study=study, order=order, table_of=lambda records: trained_table(records, config),
        seed=config.study.first_seed, out=out,
    )  # fmt: skip
    ended = ""
    try:
        _sampled(job, {**worker_options(arguments, config), "tracking": registry.uri, "points": None})
    except TrainingError as error:
        ended = str(error)
        out.progress(f"note: sampling after the grid ended early: {error}")
    return {"ended": ended, **_narrowed(job)}


def _narrowed(job: _Job) -> dict[str, Any]:
    """What the sampled runs of a study changed about its intervals, told and as values."""
    finished = job.study.runs.finished()
    grid = [one for one in finished if not one.purpose]
    sampled, spent = len(finished) - len(grid), _flops(finished) - _flops(grid)
    job.out.text(f"sampled after the grid: {sampled} runs of {spent:.3g} FLOP, to the {_flops(grid):.3g} FLOP of it")
    if len(grid) < START:
        job.out.text(f"  with fewer than {START} runs before, nothing tells how much narrower the intervals got")
        return {"runs": sampled, "flops": spent, "flops_before": _flops(grid)}
    before, after = (
        estimate_targets(run_history(job.table_of(records), job.order), job.order.space, job.order.targets)
        for records in (grid, finished)
    )
    found = IntervalReduction(before=before, after=after, n_runs=sampled, flops=spent, flops_before=_flops(grid))
    for line in found.lines():
        job.out.text(line)
    return found.as_dict()


def _opened(arguments: Mapping[str, Any], config: Config, out: Output) -> tuple[_Job, Mapping[str, Any]]:
    """The study to work on, and the arguments with addresses that hold in another process."""
    asked = apply_options(config.sample, arguments)
    if arguments["trainer"]:
        trainer = UserTrainer.parse(arguments["trainer"])
        if not asked.wanted:
            raise InputError("--trainer needs --wanted: the skills whose losses the function returns, as in code,prose")
        order = build_problem(asked, StudyContext(skills=asked.wanted))
        registry = StudyStore.open(
            arguments["tracking"], cache=arguments["cache"], queue=arguments["storage"],
            heartbeat_timeout_s=arguments["patience_s"],
        )  # fmt: skip
        study = registry.open_trainer_study(config.study.name, trainer=trainer.name, skills=asked.wanted)
        arguments = {**arguments, "trainer": str(trainer), "tracking": registry.uri}
        table_of: Callable[[Sequence[RunRecord]], RunTable] = lambda records: table_of_records(records, asked.wanted)  # noqa: E731
    else:
        require_known_study(arguments)
        if asked.epochs is None:
            build_problem(asked, context_from_config(config))  # refused before the long work of preparing data
        opened = open_study(arguments, config, out, [])
        study, arguments = opened.study, {**arguments, "tracking": opened.registry.uri}
        order = build_problem(asked, context_from_config(config, study.notes.data_description()))
        table_of = lambda records: trained_table(records, config)  # noqa: E731
    job = _Job(study=study, order=order, table_of=table_of, seed=config.study.first_seed, out=out)
    return job, arguments


def _agree(job: _Job, *, replan: bool) -> None:
    """Keep what may be run and what is asked with the study; refuse another unless it is wanted.

    Raises:
        InputError: naming what differs.
    """
    now, stored = job.order.as_dict(), job.study.notes.get_json(SAMPLING_PROBLEM)
    if stored == now:
        return
    if stored is not None and not replan:
        differ = [name for name in now if stored.get(name) != now[name]]
        told = "; ".join(
            f"{name} was {shorten(str(stored.get(name)))}, now {shorten(str(now[name]))}" for name in differ
        )
        raise InputError(
            f"study {job.study.name!r} was sampled with another space or other targets: {told}. Give those values, or "
            "go on with the new ones with --replan: every run still counts"
        )
    job.study.notes.put_json(SAMPLING_PROBLEM, now)


def _sampled(job: _Job, arguments: Mapping[str, Any]) -> Recommendation:
    """Choose and train until it is enough; return the last advice."""
    workers: list[WorkerHandle] = []
    try:
        with job.study.sampling_lock(), job.study.analysis(IntervalLog.KIND) as summary:
            chart = IntervalLog(job.study, job.order, summary)
            try:
                return _run(job, arguments, workers, chart)
            finally:
                chart.draw()
    finally:
        stop_workers(workers)  # the queue is closed by now: those that wait end by themselves
        StatusPublisher(job.study, job.out.progress).refresh(now=True)


def _run(job: _Job, arguments: Mapping[str, Any], workers: "list[WorkerHandle]", chart: IntervalLog) -> Recommendation:
    """Keep the queue filled until nothing is proposed any more and nothing is under way; return the last advice."""
    crew = _Crew(workers, arguments)
    if is_external_launcher(arguments):
        print_worker_command(arguments, job.out, sampled=True)
    describer = StatusPublisher(job.study, job.out.progress)
    room = arguments["points"] or 10**9
    again = job.began_ms if arguments["retry_failed"] else 0
    advice, asked_at = Recommendation(proposals=()), -1
    while True:
        planned = job.study.planned()
        _refuse_failures(planned, job.began_ms)
        ended = sum(_is_ended(each, again) for each in planned)
        under_way = [each for each in planned if each.why is not None and not _is_ended(each, again)]
        free = min(arguments["workers"] - len(under_way), room)
        if asked_at != ended and (free > 0 or not under_way):
            advice = _ask(job, planned, max(free, 0), chart)
            room -= len(advice.proposals)
            asked_at = ended if len(advice.proposals) < max(free, 1) else -1
        elif not under_way:
            return advice
        else:
            crew.tend(ended)
            describer.refresh()
            time.sleep(_LOOK_EVERY_S)


def _ask(job: _Job, planned: Sequence[PlannedPoint], count: int, chart: IntervalLog) -> Recommendation:
    """Advice on the runs there are; its points go into the queue."""
    records = sorted(job.study.runs.finished(), key=lambda one: one.point.key)
    done = {one.point.key for one in records}  # more than when the plan was read, maybe
    pending = [each.point for each in planned if each.point.key not in done and (each.why is not None or each.status)]
    table = job.table_of(records) if records else None
    chosen = [each for each in planned if each.why is not None]
    spent = _spent(chosen, job.order)
    advice = propose(
        run_history(table, job.order, pending),
        job.order.space,
        job.order.wish(spent, len(chosen)),
        count=max(count, 1),
        seed=job.seed,
    )
    advice = replace(advice, proposals=advice.proposals[:count])
    points = to_points(advice.proposals, job.order, _next_seed(planned, job.seed))
    reasons = {point.key: to_reason(one, advice) for point, one in zip(points, advice.proposals, strict=True)}
    job.study.add_points(points, reasons)
    for point in points:
        mix = f", on {point.mix}" if job.order.space.categories else ""
        job.out.progress(f"chosen: {format_point(point)}{mix}; {reasons[point.key].sentence}")
    chart.log(advice.answer, runs=len(records), finished=_flops(records), spent=spent)
    return advice


def _is_ended(each: PlannedPoint, again: int) -> bool:
    """Whether nothing more becomes of a point; those that failed before ``again``, in ms, are tried once more."""
    return each.status == "FINISHED" or (each.status == "FAILED" and each.end_ms >= again)


def _spent(chosen: Sequence[PlannedPoint], order: SamplingProblem) -> float:
    """FLOP of all points that the sampler chose, those under way and those that failed included."""
    return sum(float(order.space.cost(each.point.n_params, each.point.n_tokens)) for each in chosen)


def _flops(records: Sequence[RunRecord]) -> float:
    """6 N D of runs, summed."""
    return sum(one.point.flops for one in records)


def _next_seed(planned: Sequence[PlannedPoint], first: int) -> int:
    """A seed that no run of the study has."""
    return max((each.point.seed for each in planned), default=first - 1) + 1


def _refuse_failures(planned: Sequence[PlannedPoint], began_ms: int) -> None:
    """Stop when the last runs all failed.

    Raises:
        TrainingError: their reasons.
    """
    ended = [each for each in planned if each.status in ("FINISHED", "FAILED") and each.end_ms >= began_ms]
    last = sorted(ended, key=lambda each: each.end_ms)[-FAILURES:]
    if len(last) < FAILURES or any(each.status == "FINISHED" for each in last):
        return
    reasons = Counter(each.reason for each in last)
    told = "; ".join(f"{count} x {reason}" for reason, count in reasons.most_common())
    raise TrainingError(
        f"the last {FAILURES} runs all failed, and no more are chosen: {told}. Mend that, and run the same command to "
        "go on (--retry_failed tries these points again)"
    )


class _Crew:
    """The workers of this command, replaced when they die as long as points are ended between.

    Those that somebody else starts are waited for.
    """

    def __init__(self, workers: "list[WorkerHandle]", arguments: Mapping[str, Any]) -> None:
        self._workers = workers
        self._arguments = arguments
        self._ended = -1
        self._elsewhere = is_external_launcher(arguments)

    def tend(self, ended: int) -> None:
        """Start those that are missing.

        Raises:
            TrainingError: all have died, and nothing was ended since they were started.
        """
        if self._elsewhere:
            return
        self._workers[:] = [each for each in self._workers if each.poll() is None]
        if len(self._workers) < self._arguments["workers"] and ended > self._ended:
            self._ended = ended
            while len(self._workers) < self._arguments["workers"]:
                self._workers.append(self._start())
        if not self._workers:
            raise TrainingError("all workers stopped (the lines above say why); run the same command to go on")

    def _start(self) -> WorkerHandle:
        retry = bool(self._arguments["retry_failed"])
        return start_worker(self._arguments, self._arguments["tracking"], retry_failed=retry, sampled=True)
