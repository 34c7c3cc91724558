"""Runs of several processes, as a worker makes them: ``python team_runs.py FOLDER JSON`` prints their results.

The JSON is a list of runs: training settings (``train``), sequences per batch (``batch``, 4), ``stop_after`` steps, a
checkpoint name (``checkpoint``), and the event at a progress report (``progress``). ``fail``: another worker takes the
point. ``kill``: the follower is killed. ``die``: this process is killed.
"""

import json
import os
import signal
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from skillscale.config import load
from skillscale.errors import LeaseLostError, SkillscaleError
from skillscale.lm.data.mixture import MixStream
from skillscale.lm.data.token_arrays import open_tokens
from skillscale.lm.model.shape import shape_for
from skillscale.lm.train import hooks
from skillscale.lm.train.follower import announce_run
from skillscale.lm.train.loop import train as train_point
from skillscale.lm.train.process_group import process_group_for
from skillscale.point import DesignPoint, Mix
from skillscale.record import OptimizerPlan

STEPS, CONTEXT = 12, 32
SIZE = shape_for(6e3, vocab_size=300, model=replace(load().model, context=CONTEXT))


def write_text(folder: Path) -> Path:
    """Write tokens that a model can learn: each is three more than the last, with breaks."""
    ids = (3 * np.arange(20_000) + np.arange(20_000) // 97) % 300
    folder.mkdir(exist_ok=True)
    (folder / "tokens.bin").write_bytes(ids.astype("uint16").tobytes())
    header = {"dtype": "uint16", "n_tokens": len(ids), "n_documents": 1, "n_bytes": len(ids)}
    (folder / "tokens.json").write_text(json.dumps(header))
    return folder


def followers() -> list[int]:
    """Return the processes that this one started."""
    return [int(pid) for pid in Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()]


def run(folder: Path, *, train=None, batch=4, stop_after=None, progress="", checkpoint=""):
    """Return the curve and weights of a run, or its error."""
    config = replace(load().train, **(train or {}))
    plan = OptimizerPlan(lr=0.01, batch_sequences=batch, steps=STEPS, warmup_steps=2)
    point = DesignPoint(n_params=SIZE.n_params, n_tokens=STEPS * batch * CONTEXT, mix=Mix({"text": 1.0}))
    categories = {"text": open_tokens(write_text(folder / "text"))}
    group = process_group_for(config, "cpu")
    announce_run(group, point, SIZE, plan, config, categories)
    calls = iter(range(stop_after if stop_after is not None else 10**9))

    def on_progress(_):
        if progress == "fail":
            raise LeaseLostError("another has it")
        if progress in ("kill", "die"):
            print(*followers(), flush=True)
            os.kill(followers()[0] if progress == "kill" else os.getpid(), signal.SIGKILL)

    hooks.PROGRESS_EVERY_S = -1.0 if progress else 1.0
    try:
        done = train_point(
            point,
            size=SIZE,
            optimizer_plan=plan,
            stream=MixStream(categories, point.mix, seed=0, context=CONTEXT),
            config=config,
            checkpoint=folder / checkpoint if checkpoint else None,
            group=group,
            on_progress=on_progress,
            should_stop=lambda: next(calls, None) is None,
        )
    except SkillscaleError as error:
        return {"error": f"{type(error).__name__}: {error}"}
    weights = torch.cat([weight.detach().flatten() for weight in done.model.parameters()])
    return {"losses": [loss for _, loss in done.curve], "weights": weights.tolist(), "n_tokens": done.n_tokens}


if __name__ == "__main__":
    folder, runs = Path(sys.argv[1]), json.loads(sys.argv[2])
    print(json.dumps([run(folder, **options) for options in runs]))
