"""``train``: train and measure one point of a study."""

from skillscale.cli.output import Output
from skillscale.config import Config, check_mix
from skillscale.config.options import TrainOptions
from skillscale.errors import InputError
from skillscale.execution.grid import nearest_size
from skillscale.execution.run_text import format_point
from skillscale.execution.session import follower_runs, open_session, open_store
from skillscale.execution.status_publisher import StatusPublisher
from skillscale.execution.worker import train_claimed
from skillscale.formatting import JsonObject
from skillscale.point import DesignPoint
from skillscale.record import RunState, split_metrics
from skillscale.tracking import point_note

_NOT_TRAINED = {
    RunState.FINISHED: "the study holds this point already, so it is not trained again",
    RunState.FAILED: "this point failed before. --retry_failed trains it once more.",
    RunState.RUNNING: "another process is training this point",
    RunState.KILLED: "this point was killed, and could not be resumed",
}


def train(options: TrainOptions, config: Config, out: Output) -> JsonObject:
    """Train and measure one point, unless the study holds it already."""
    runs = follower_runs(config)
    if runs is not None:
        return {"study": config.study.name, "along": runs}
    point = _point(options, config)
    store = open_store(options.study, options.queue)
    session = open_session(store, config, options.study.cache, [point], out.progress)
    study = session.study
    study.add_points([point])
    writer = study.claim(only=point.key, retry_failed=options.queue.retry_failed)
    if writer is not None:
        train_claimed(writer, session.worker_context(out.progress), study)
    StatusPublisher(study, out.progress).refresh(now=True)
    record = next(record for record in reversed(study.runs.records()) if record.point.key == point.key)
    if writer is None:
        out.progress(_NOT_TRAINED[record.state])
    out.text(f"{format_point(point)}: {record.state} {record.reason}".rstrip())
    for name, value in record.skills.items():
        out.text(f"  {name:<22}{value.loss:8.4f} ± {value.sem:.4f} nats/token  {value.bpb:7.4f} bits/byte")
    if record.state is not RunState.FINISHED:
        out.fail(f"the point is {record.state}{f': {record.reason}' if record.reason else ''}")
    store.annotate_mlflow_project_run(
        study, note=point_note(point, record.skills, state=str(record.state)), metrics=split_metrics(record)[0]
    )
    return {
        "run_id": record.run_id, "study": record.study, "state": record.state, "reason": record.reason,
        "point": record.point.as_dict(), "trained": writer is not None, "skills": record.skills, "sets": record.sets,
    }  # fmt: skip


def _point(options: TrainOptions, config: Config) -> DesignPoint:
    mix = options.mix or config.study.mix_values[0]
    check_mix(mix, config.data)
    if (options.n_tokens is None) == (options.flops is None):
        raise InputError("a point needs either --n_tokens or --flops. Give one of them.")
    n_params = nearest_size(options.n_params, config)
    n_tokens = options.n_tokens or round((options.flops or 0) / (6 * n_params))
    return DesignPoint(n_params=n_params, n_tokens=n_tokens, mix=mix, seed=options.seed)
