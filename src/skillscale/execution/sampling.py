"""Sample a study: propose points, train them with several workers, fit again, until the goal is reached.

The queue holds as many points as there are workers, so that no worker waits for another. Pending points count in the
fit. The store holds the whole state, so that the same command goes on where it stopped.
"""

import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from skillscale.config import Config
from skillscale.config.options import SampleOptions, TrainingOptions
from skillscale.design.model_averaging import estimate_targets
from skillscale.design.proposal import Recommendation
from skillscale.design.propose import START, propose
from skillscale.errors import InputError, TrainingError
from skillscale.execution.run_text import format_point
from skillscale.execution.session import check_pool, open_session, open_store, require_known_study, worker_pool
from skillscale.execution.status_publisher import StatusPublisher
from skillscale.execution.supervisor import Supervisor
from skillscale.execution.user_trainer import UserTrainer
from skillscale.execution.worker_pool import WorkerPool
from skillscale.formatting import JsonObject, format_flops, shorten
from skillscale.point import DesignPoint
from skillscale.record import RunRecord
from skillscale.sampler.study import (
    SAMPLING_PROBLEM,
    IntervalLog,
    IntervalReduction,
    SamplingProblem,
    StudyContext,
    build_problem,
    context_from_config,
    read_stored_problem,
    recommendation_as_dict,
    recommendation_text,
    run_history,
    to_points,
    to_reason,
)
from skillscale.tables import RunTable
from skillscale.tables.read import table_of_records, trained_table
from skillscale.tracking import PlannedPoint, Study, StudyStore

FAILURES = 5  # in a row, after which no more points are chosen
_POLL_S = 0.2
Progress = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class SamplingJob:
    """The state of a call of ``sample``.

    Args:
        store: The tracking store.
        study: The study.
        problem: Space of runs, targets, and when to stop.
        table_of: Function from the records of runs to their table.
        pool: Workers of the study.
        seed: Seed of the first point.
        points: Largest number of points of this call; None: as the budget allows.
        retry_failed: Train the failed points once more.
        progress: Receiver of a line for a person.
        began_ms: Time of the call, ms since the epoch.
    """

    store: StudyStore
    study: Study
    problem: SamplingProblem
    table_of: Callable[[Sequence[RunRecord]], RunTable]
    pool: WorkerPool
    seed: int
    points: int | None = None
    retry_failed: bool = False
    progress: Progress
    began_ms: int = field(default_factory=lambda: int(time.time() * 1000))


@dataclass(frozen=True, kw_only=True)
class Sampled:
    """The outcome of a call of ``sample``, and the sampler's last recommendation."""

    job: SamplingJob
    recommendation: Recommendation
    seconds: float

    @property
    def chosen(self) -> list[PlannedPoint]:
        """All points of the study that the sampler chose."""
        return [point for point in self.job.study.planned() if point.why is not None]

    @property
    def failed(self) -> int:
        """Points that failed in this call, or ever where this call trained none; 0 if one was finished."""
        planned = self.job.study.planned()
        ended = _ended(planned, self.job.began_ms) or _ended(planned, 0)
        return 0 if any(point.status == "FINISHED" for point in ended) else len(ended)

    def text(self) -> str:
        """Return the outcome for a person."""
        chosen, problem = self.chosen, self.job.problem
        states = Counter(point.status for point in chosen)
        counts = (
            f"study {self.job.study.name}: {len(chosen)} points chosen, {states['FINISHED']} finished, "
            f"{states['FAILED']} failed, {format_flops(_cost(chosen, problem))} of {format_flops(problem.budget)} FLOP "
            "spent"
        )
        return "\n".join([counts, recommendation_text(self.recommendation, (), problem)])

    def as_dict(self) -> JsonObject:
        """Return the values for ``--json``."""
        chosen = self.chosen
        states = Counter(point.status for point in chosen)
        return {
            "study": self.job.study.name, "tracking": self.job.store.place, "chosen": len(chosen),
            "finished": states["FINISHED"], "failed": states["FAILED"],
            "flops_spent": _cost(chosen, self.job.problem), "seconds": self.seconds,
            **recommendation_as_dict(self.recommendation, (), self.job.problem),
        }  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class SampledAfterGrid:
    """How much the runs after a grid narrowed the intervals.

    Args:
        ended: Reason of an early end; empty: there was none.
        text: Result for a person.
        values: Result for ``--json``.
    """

    ended: str = ""
    text: str = ""
    values: JsonObject = field(default_factory=dict)

    def as_dict(self) -> JsonObject:
        """Return the values for ``--json``."""
        return {"ended": self.ended, **self.values}


def sample_study(options: SampleOptions, config: Config, progress: Progress) -> Sampled:
    """Choose points, train them, fit again, until the intervals are narrow enough or the budget is spent."""
    began_s = time.monotonic()
    check_pool(options.training, config)
    job = _open_job(options, config, progress)
    for note in job.problem.notes:
        progress(f"note: {note}")
    _bind_problem(job, allow_new_goal=options.allow_new_goal)
    progress(f"study {job.study.name}: {len(job.study.runs.finished())} runs to begin with")
    recommendation = _sample(job)
    return Sampled(job=job, recommendation=recommendation, seconds=time.monotonic() - began_s)


def sample_after_grid(
    points: Sequence[DesignPoint], options: TrainingOptions, config: Config, progress: Progress
) -> SampledAfterGrid:
    """Sample some more points after the grid ``points`` of a study, and measure how much narrower the intervals got.

    Sampled runs may cost ``sample.share_after_grid`` of the grid's FLOPs, in as large a share of its number of runs.
    Runs that were sampled before count. Where nothing can be sampled, or runs fail, the grid's results stand.
    """
    store = open_store(options.study, options.queue)
    study = store.study(config.study.name)
    share = config.sample.share_after_grid
    settings = replace(
        config.sample, budget=share * sum(point.flops for point in points), runs=max(1, round(share * len(points)))
    )
    try:
        problem = build_problem(settings, context_from_config(config, study.notes.data_description()))
    except InputError as error:
        progress(f"note: nothing is sampled after the grid: {error}")
        return SampledAfterGrid(ended=str(error))
    job = SamplingJob(
        store=store, study=study, problem=problem, table_of=lambda records: trained_table(records, config),
        pool=worker_pool(options, config, store, sampled_only=True), seed=config.study.first_seed,
        retry_failed=options.queue.retry_failed, progress=progress,
    )  # fmt: skip
    try:
        _sample(job)
    except TrainingError as error:
        progress(f"note: sampling after the grid ended early: {error}")
        return _reduction(job, ended=str(error))
    return _reduction(job)


def _reduction(job: SamplingJob, ended: str = "") -> SampledAfterGrid:
    """Return how the sampled runs of a study changed its intervals."""
    finished = job.study.runs.finished()
    grid = [record for record in finished if not record.purpose]
    sampled, flops = len(finished) - len(grid), _flops(finished) - _flops(grid)
    lines = [
        f"sampled after the grid: {sampled} runs of {format_flops(flops)} FLOP; the grid took "
        f"{format_flops(_flops(grid))} FLOP"
    ]
    if len(grid) < START:
        lines.append(f"  the grid has fewer than {START} runs, too few to measure how the intervals changed")
        values = {"runs": sampled, "flops": flops, "flops_before": _flops(grid)}
        return SampledAfterGrid(ended=ended, text="\n".join(lines), values=values)
    before, after = (
        estimate_targets(run_history(job.table_of(records), job.problem), job.problem.space, job.problem.targets)
        for records in (grid, finished)
    )
    reduction = IntervalReduction(before=before, after=after, n_runs=sampled, flops=flops, flops_before=_flops(grid))
    return SampledAfterGrid(ended=ended, text="\n".join([*lines, *reduction.lines()]), values=reduction.as_dict())


def _open_job(options: SampleOptions, config: Config, progress: Progress) -> SamplingJob:
    """Open the study, and check before any training that the limits allow a run."""
    training, settings = options.training, config.sample
    table_of: Callable[[Sequence[RunRecord]], RunTable]
    if options.user_trainer.trainer:
        trainer = UserTrainer.parse(options.user_trainer.trainer)
        skills = settings.target_skills
        if not skills:
            raise InputError(
                "--trainer needs --target_skills: the skills whose losses the function returns, as in code,prose"
            )
        problem = build_problem(settings, StudyContext(skills=skills))
        store = open_store(training.study, training.queue)
        study = store.open_trainer_study(config.study.name, trainer=trainer.name, skills=skills)
        user_trainer = replace(options.user_trainer, trainer=str(trainer))
        table_of = lambda records: table_of_records(records, skills)  # noqa: E731
    else:
        require_known_study(training.study.study)
        if settings.max_epochs is None:
            build_problem(settings, context_from_config(config))  # refuse it before the data are prepared
        store = open_store(training.study, training.queue)
        study = open_session(store, config, training.study.cache, [], progress).study
        problem = build_problem(settings, context_from_config(config, study.notes.data_description()))
        user_trainer = None
        table_of = lambda records: trained_table(records, config)  # noqa: E731
    return SamplingJob(
        store=store, study=study, problem=problem, table_of=table_of,
        pool=worker_pool(training, config, store, user_trainer=user_trainer, sampled_only=True),
        seed=config.study.first_seed, points=options.points, retry_failed=training.queue.retry_failed,
        progress=progress,
    )  # fmt: skip


def _bind_problem(job: SamplingJob, *, allow_new_goal: bool) -> None:
    """Store the space and the targets of the study; refuse a change of them unless it is allowed.

    Raises:
        InputError: Naming what differs.
    """
    now, values = job.problem.as_dict(), job.study.notes.get_json(SAMPLING_PROBLEM)
    stored = None if values is None else read_stored_problem(values)
    if stored == now:
        return
    if stored is not None and not allow_new_goal:
        names = [name for name in now if stored.get(name) != now[name]]
        changes = "; ".join(
            f"{name} was {shorten(str(stored.get(name)))}, now {shorten(str(now[name]))}" for name in names
        )
        raise InputError(
            f"study {job.study.name!r} was sampled with another space or other targets: {changes}. Give the old "
            "values, or go on with the new ones by --allow_new_goal. Every run still counts."
        )
    job.study.notes.put_json(SAMPLING_PROBLEM, now)


def _sample(job: SamplingJob) -> Recommendation:
    """Choose and train points until the sampler stops; return the last recommendation."""
    try:
        # The lock is released before the workers are stopped, so that those that wait for points exit by themselves
        with Supervisor(job.pool) as supervisor, job.study.sampling_lock(), job.study.analysis(IntervalLog.KIND) as run:
            if job.pool.is_external:
                job.progress(job.pool.external_command().text)
            log = IntervalLog(job.study, job.problem, run)
            try:
                return _fill_queue(job, supervisor, log)
            finally:
                log.draw()
    finally:
        job.study.close_lost()
        StatusPublisher(job.study, job.progress).refresh(now=True)


def _fill_queue(job: SamplingJob, supervisor: Supervisor, log: IntervalLog) -> Recommendation:
    """Keep the queue filled until no point is proposed or pending; return the last recommendation."""
    publisher = StatusPublisher(job.study, job.progress)
    room = job.points or 10**9
    retry_before_ms = job.began_ms if job.retry_failed else 0
    recommendation, proposed_at = Recommendation(proposals=()), -1
    while True:
        planned = job.study.planned()
        _refuse_failures(planned, job.began_ms)
        ended = sum(_is_final(point, retry_before_ms) for point in planned)
        pending = [point for point in planned if point.why is not None and not _is_final(point, retry_before_ms)]
        free = min(job.pool.options.workers - len(pending), room)
        if proposed_at != ended and (free > 0 or not pending):
            recommendation = _propose(job, planned, max(free, 0), log)
            room -= len(recommendation.proposals)
            proposed_at = ended if len(recommendation.proposals) < max(free, 1) else -1
        elif not pending:
            return recommendation
        else:
            _tend(job, supervisor, ended)
            publisher.refresh()
            time.sleep(_POLL_S)


def _tend(job: SamplingJob, supervisor: Supervisor, ended: int) -> None:
    """Start the workers that are missing, except with an external launcher.

    Raises:
        TrainingError: All workers have died, and no point ended since they were started.
    """
    if job.pool.is_external:
        return
    if not supervisor.replace_missing(job.pool.options.workers, ended=ended, retry_failed=job.retry_failed):
        raise TrainingError("all workers stopped, for the reasons above. Run the same command to go on.")


def _propose(job: SamplingJob, planned: Sequence[PlannedPoint], count: int, log: IntervalLog) -> Recommendation:
    """Recommend points from the finished runs, and put them into the queue."""
    records = sorted(job.study.runs.finished(), key=lambda record: record.point.key)
    done = {record.point.key for record in records}  # maybe more than when the plan was read
    pending = [
        point.point for point in planned
        if point.point.key not in done and (point.why is not None or point.status)
    ]  # fmt: skip
    table = job.table_of(records) if records else None
    chosen = [point for point in planned if point.why is not None]
    spent = _cost(chosen, job.problem)
    recommendation = propose(
        run_history(table, job.problem, pending), job.problem.space, job.problem.goal(spent, len(chosen)),
        count=max(count, 1), seed=job.seed,
    )  # fmt: skip
    recommendation = replace(recommendation, proposals=recommendation.proposals[:count])
    points = to_points(recommendation.proposals, job.problem, _next_seed(planned, job.seed))
    reasons = {
        point.key: to_reason(proposal, recommendation)
        for point, proposal in zip(points, recommendation.proposals, strict=True)
    }
    job.study.add_points(points, reasons)
    for point in points:
        mix = f", on {point.mix}" if job.problem.space.categories else ""
        why = reasons[point.key].sentence
        job.progress(f"chosen: {format_point(point)}{mix}. {why[:1].upper()}{why[1:]}")
    log.log(recommendation.estimates, runs=len(records), finished=_flops(records), spent=spent)
    return recommendation


def _is_final(point: PlannedPoint, retry_before_ms: int) -> bool:
    """Return whether a point will not be trained again; points that failed before ``retry_before_ms`` will."""
    return point.status == "FINISHED" or (point.status == "FAILED" and point.end_ms >= retry_before_ms)


def _cost(chosen: Sequence[PlannedPoint], problem: SamplingProblem) -> float:
    """Return the FLOP of all points that the sampler chose, pending and failed ones included."""
    return sum(float(problem.space.cost(point.point.n_params, point.point.n_tokens)) for point in chosen)


def _flops(records: Sequence[RunRecord]) -> float:
    """Return the sum of 6 N D of runs."""
    return sum(record.point.flops for record in records)


def _next_seed(planned: Sequence[PlannedPoint], first: int) -> int:
    """Return a seed that no run of the study has."""
    return max((point.point.seed for point in planned), default=first - 1) + 1


def _ended(planned: Sequence[PlannedPoint], since_ms: int) -> list[PlannedPoint]:
    return [point for point in planned if point.status in ("FINISHED", "FAILED") and point.end_ms >= since_ms]


def _refuse_failures(planned: Sequence[PlannedPoint], began_ms: int) -> None:
    """Stop when the last runs all failed.

    Raises:
        TrainingError: With their reasons.
    """
    last = sorted(_ended(planned, began_ms), key=lambda point: point.end_ms)[-FAILURES:]
    if len(last) < FAILURES or any(point.status == "FINISHED" for point in last):
        return
    reasons = "; ".join(
        f"{count} x {reason}" for reason, count in Counter(point.reason for point in last).most_common()
    )
    raise TrainingError(
        f"the last {FAILURES} runs all failed, so no more are chosen: {reasons}. Repair the cause, and run the same "
        "command to go on. Add --retry_failed to train these points again."
    )
