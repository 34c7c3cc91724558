"""Speed over the ladder of sizes: tokens/s, share of the machine's matmul peak, and what Lightning and tracking cost.

    python benchmarks/ladder.py [--json] [--seconds 6] [--out benchmarks/results/ladder.csv]

One process, one thread (set OMP_NUM_THREADS=1). The overhead is relative to a bare PyTorch loop of the same model on
the same tokens. The two alternate, and the overhead is the median ratio of neighbours, so that other load on the
machine affects both equally. Tracking is the record of a run in a new sqlite store: claim, begin, a curve of 100 rows,
finish. It is given in seconds per run, and as a share of a run of the default study's middle budget at that size.
"""

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import nn
from torch.nn import functional

from skillscale.config import Config, load
from skillscale.lm.model import flops
from skillscale.lm.model.shape import shape_for
from skillscale.lm.model.transformer import Transformer
from skillscale.lm.train import hyperparameters
from skillscale.lm.train.loop import train
from skillscale.point import DesignPoint, Mix
from skillscale.record import DataSet, ModelSize, OptimizerPlan, Provenance, RunCost
from skillscale.tracking import StudyStore

SIZES = (3e4, 5e4, 1e5, 3e5, 1e6, 3e6, 1e7)
SEQUENCES = 8
TURN_S = 0.4
MIN_TURNS = 5


@dataclass(frozen=True, kw_only=True)
class Row:
    """The speed at one size. ``overhead``: of the training loop, 0.05 is 5 %; ``tracking_share``: of a run's time."""

    n_params: int
    depth: int
    width: int
    ktokens_per_s: float
    gflops_per_s: float
    matmul_share: float
    matmul_share_exact: float
    overhead: float
    tracking_s: float
    tracking_share: float
    turns: int


class Tokens:
    """Random tokens, drawn before the clock starts."""

    def __init__(self, size: ModelSize) -> None:
        rng = np.random.default_rng(0)
        self.ids = rng.integers(0, size.vocab_size, (SEQUENCES, size.context + 1))

    def batch(self, first: int, count: int) -> np.ndarray:  # noqa: ARG002  the protocol's
        """Return the same sequences every time."""
        return self.ids[:count]


def bare_steps(model: nn.Module, optimizer: torch.optim.Optimizer, stream: Tokens, steps: int) -> float:
    """Return the seconds of the shortest equivalent loop: forward, backward, clip, update."""
    began = time.perf_counter()
    for step in range(steps):
        ids = torch.from_numpy(stream.batch(step, SEQUENCES))
        logits = model(ids[:, :-1])
        functional.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten()).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    return time.perf_counter() - began


def measure_size(
    n_params: float, config: Config, *, seconds: float, record: Callable[[DesignPoint, ModelSize], float]
) -> Row:
    """Measure one size: alternate the bare loop and the training loop until ``seconds`` have passed."""
    size = shape_for(n_params, vocab_size=config.data.vocab_size, model=config.model)
    stream = Tokens(size)
    model = Transformer(size, seed=0)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-6, fused=True)
    bare_steps(model, optimizer, stream, 2)
    steps = max(2, round(TURN_S / (bare_steps(model, optimizer, stream, 2) / 2)))
    plan = OptimizerPlan(lr=1e-6, batch_sequences=SEQUENCES, steps=steps, warmup_steps=0)
    point = DesignPoint(n_params=size.n_params, n_tokens=steps * SEQUENCES * size.context, mix=Mix({"random": 1.0}))

    def training_loop() -> float:
        return train(point, size=size, optimizer_plan=plan, stream=stream, config=config.train).seconds

    ratios, per_step = [], []
    training_loop()
    began = time.perf_counter()
    while time.perf_counter() - began < seconds or len(ratios) < MIN_TURNS:
        before, between, after = (
            bare_steps(model, optimizer, stream, steps),
            training_loop(),
            bare_steps(model, optimizer, stream, steps),
        )
        ratios.append(2 * between / (before + after))
        per_step.append(between / steps)
    rate = SEQUENCES * size.context / statistics.median(per_step)
    budget = statistics.median(config.study.budgets)
    tracking = record(point, size)
    return Row(
        n_params=size.n_params,
        depth=size.depth,
        width=size.width,
        ktokens_per_s=rate / 1e3,
        gflops_per_s=6 * size.n_params * rate / 1e9,
        matmul_share=6 * size.n_params * rate / flops.matmul_peak(),
        matmul_share_exact=flops.flops_per_token(size) * rate / flops.matmul_peak(),
        overhead=statistics.median(ratios) - 1,
        tracking_s=tracking,
        tracking_share=tracking / (tracking + budget / (6 * size.n_params) / rate),
        turns=len(ratios),
    )


def tracking_timer(folder: Path, config: Config) -> Callable[[DesignPoint, ModelSize], float]:
    """Return a function that records a run in a new store, and returns the seconds that this takes."""
    study = StudyStore.open(f"sqlite:///{folder / 'runs.db'}", cache=folder).open_study("speed", config)

    def record(point: DesignPoint, size: ModelSize) -> float:
        mix = config.study.mix_values[0]
        planned = replace(point, mix=mix)
        study.add_points([planned])
        cost = RunCost(flops_exact=1.0, tokens_per_s=1.0, matmul_share=0.5, train_s=1.0, eval_s=0.1)
        began = time.perf_counter()
        writer = study.claim()
        assert writer is not None
        with writer:
            writer.begin(
                size=size,
                optimizer_plan=hyperparameters.optimizer_plan(planned, size, config.train, context=size.context),
                provenance=Provenance(config_hash=config.hash, data_hash="0", code_version="0"),
                config_yaml="{}",
                data=[DataSet(name=name, digest="0", role="training", source="random") for name in mix.shares],
            )
            for tokens in range(1, 101):
                writer.curve(tokens, 5.0)
            writer.finish(cost=cost, sets={}, skills={}, skills_held_out={}, data_use={}, exposures=None)
        return time.perf_counter() - began

    return record


def format_table(rows: list[Row]) -> str:
    """Format the rows as a table."""
    head = f"{'N':>11}{'depth':>6}{'width':>6}{'ktok/s':>9}{'GFLOP/s':>9}{'6ND/peak':>10}{'exact/peak':>12}"
    lines = [f"{head}{'Fabric':>9}{'tracking s':>12}{'tracking':>10}"]
    lines += [
        f"{row.n_params:>11,}{row.depth:>6}{row.width:>6}{row.ktokens_per_s:>9.1f}{row.gflops_per_s:>9.1f}"
        f"{row.matmul_share:>10.0%}{row.matmul_share_exact:>12.0%}{row.overhead:>9.1%}{row.tracking_s:>12.2f}"
        f"{row.tracking_share:>10.1%}"
        for row in rows
    ]
    return "\n".join([*lines, f"matmul peak of one thread: {flops.matmul_peak() / 1e9:.0f} GFLOP/s (float32)"])


def main() -> None:
    """Measure every size, print the table, write the file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="print one JSON object on standard output")
    parser.add_argument("--seconds", type=float, default=6.0, help="time to spend on each size")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "ladder.csv")
    args = parser.parse_args()
    torch.set_num_threads(1)
    config = load()
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        record = tracking_timer(Path(folder), config)
        for n_params in SIZES:
            print(f"{n_params:.0e} parameters", file=sys.stderr)
            rows.append(measure_size(n_params, config, seconds=args.seconds, record=record))
    args.out.parent.mkdir(parents=True, exist_ok=True)
    pd.DataFrame([asdict(row) for row in rows]).to_csv(args.out, index=False, float_format="%.4g")
    peak = flops.matmul_peak()
    print(json.dumps({"peak_flops": peak, "rows": [asdict(row) for row in rows]}) if args.json else format_table(rows))


if __name__ == "__main__":
    main()
