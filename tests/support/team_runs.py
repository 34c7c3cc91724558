"""Runs of several processes, as a worker makes them: ``python team_runs.py FOLDER JSON`` prints what came of each.

The JSON is a list of runs, with settings of training (``train``), sequences a batch (``batch``, 4), ``stop_after``
steps, the name of a checkpoint (``checkpoint``), and what happens when the run tells how far it is (``progress``):
``fail``: another worker has taken the point; ``kill``: the other process is lost; ``die``: this one is.
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
from skillscale.lm.train import loop as training
from skillscale.lm.train.follower import announce_run
from skillscale.lm.train.process_group import process_group_for
from skillscale.point import DesignPoint, Mix
from skillscale.record import OptimizerPlan

STEPS, CONTEXT = 12, 32
SIZE = shape_for(6e3, vocab_size=300, model=replace(load().model, context=CONTEXT))


def write_text(folder: Path) -> Path:
    """Tokens that a model can learn: each is three more than the one before, with breaks."""
    ids = (3 * np.arange(20_000) + np.arange(20_000) // 97) % 300
    folder.mkdir(exist_ok=True)
    (folder / "tokens.bin").write_bytes(ids.astype("uint16").tobytes())
    header = {"dtype": "uint16", "n_tokens": len(ids), "n_documents": 1, "n_bytes": len(ids)}
    (folder / "tokens.json").write_text(json.dumps(header))
    return folder


def others() -> list[int]:
    """The processes that this one started."""
    return [int(pid) for pid in Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()]


def run(folder: Path, *, train=None, batch=4, stop_after=None, progress="", checkpoint=""):
    """Curve and weights of a run; the error where it ended with one."""
    config = replace(load().train, **(train or {}))
    plan = OptimizerPlan(lr=0.01, batch_sequences=batch, steps=STEPS, warmup_steps=2)
    point = DesignPoint(n_params=SIZE.n_params, n_tokens=STEPS * batch * CONTEXT, mix=Mix({"text": 1.0}))
    categories = {"text": open_tokens(write_text(folder / "text"))}
    team = process_group_for(config, "cpu")
    announce_run(team, point, SIZE, plan, config, categories)
    left = iter(range(stop_after if stop_after is not None else 10**9))

    def told(_):
        if progress == "fail":
            raise LeaseLostError("another has it")
        if progress in ("kill", "die"):
            print(*others(), flush=True)
            os.kill(others()[0] if progress == "kill" else os.getpid(), signal.SIGKILL)

    training._LOOK_EVERY_S = -1.0 if progress else 1.0
    try:
        done = training.train(
            point,
            size=SIZE,
            optimizer_plan=plan,
            stream=MixStream(categories, point.mix, seed=0, context=CONTEXT),
            config=config,
            checkpoint=folder / checkpoint if checkpoint else None,
            team=team,
            on_progress=told,
            should_stop=lambda: next(left, None) is None,
        )
    except SkillscaleError as error:
        return {"error": f"{type(error).__name__}: {error}"}
    weights = torch.cat([weight.detach().flatten() for weight in done.model.parameters()])
    return {"losses": [loss for _, loss in done.curve], "weights": weights.tolist(), "n_tokens": done.n_tokens}


if __name__ == "__main__":
    folder, runs = Path(sys.argv[1]), json.loads(sys.argv[2])
    print(json.dumps([run(folder, **one) for one in runs]))
