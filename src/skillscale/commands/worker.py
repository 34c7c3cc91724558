"""``worker``: train the points that wait in the queue of a study until there are none."""

from skillscale.cli.output import Output
from skillscale.config import Config, overridden
from skillscale.config.options import WorkerOptions
from skillscale.execution.session import follower_runs, open_session, open_store, require_known_study
from skillscale.execution.worker import train_claimed, work
from skillscale.formatting import JsonObject, plural


def worker(options: WorkerOptions, config: Config, out: Output) -> JsonObject:
    """Train the points that wait in the study's queue until there are none, and no sampler adds more."""
    which = {
        "retry_failed": options.queue.retry_failed, "sampled_only": options.sampled_only,
        "wait_for_others": options.wait_for_others,
    }  # fmt: skip
    name, store = config.study.name, open_store(options.study, options.queue)
    if options.user_trainer.trainer:
        from skillscale.execution.user_trainer import train_with_user_trainer

        before = store.study(name).progress().finished
        ended = train_with_user_trainer(store, name, options.user_trainer, out.progress, **which)
        _check_finished(ended, store.study(name).progress().finished - before, out)
        return {"study": name, "ended": ended}
    if name in store.study_names():
        texts = {setting: text for setting, text in config.overrides.items() if setting != "study.name"}
        config = overridden(store.stored_config(name), texts)
    else:
        require_known_study(options.study.study)
    runs = follower_runs(config)
    if runs is not None:
        return {"study": name, "along": runs}
    session = open_session(store, config, options.study.cache, [], out.progress, keep=False)
    context = session.worker_context(out.progress)
    before = session.study.progress().finished
    ended = work(session.study, lambda writer: train_claimed(writer, context, session.study), out.progress, **which)
    _check_finished(ended, session.study.progress().finished - before, out)
    return {"study": name, "ended": ended}


def _check_finished(n_ended: int, n_finished: int, out: Output) -> None:
    """Let the command fail where every run that this worker made failed."""
    if n_ended and n_finished <= 0:
        out.fail(f"{plural(n_ended, 'point')} failed, and none was finished. Their runs hold the reasons.")
