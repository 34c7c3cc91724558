"""Speed of training steps on a CPU, against torch's kernels, a plain PyTorch loop, and Hugging Face's Trainer.

    python benchmarks/train_speed.py [--sizes 3e4,2e5,1e6,1e7] [--sequences 2,8] [--turns 7] [--turn_s 0.3] [--out FILE]

One thread per process (set OMP_NUM_THREADS=1). All methods alternate in one process, and ratios are medians over turns,
so that other load affects all equally. For the same reason times are CPU times of the process, which on an idle machine
equal the clock. Both peaks are measured in the same turns, as square products of 1024: torch's (MKL) and oneDNN's, the
faster one on a processor that is not Intel's.

    now      the training step of skillscale: Fabric, schedule, clipping, update
    before   the same step with torch's kernels for products and loss
    plain    the shortest PyTorch loop of the same model: forward, backward, clip, update
    trainer  Hugging Face's Trainer on a GPT-2 of the same width, depth, heads and vocabulary, if transformers and
             accelerate are installed. GPT-2 has learned positions and biases: up to 30 % more parameters at 3e4. CPU
             time between the ends of its steps
    two      steps of two simultaneous processes over those of one process: 2 is perfect
"""

import argparse
import multiprocessing
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from unittest import mock

import numpy as np
import pandas as pd
import torch
from torch import nn

from skillscale.config import load
from skillscale.lm.model import cpu_kernels, flops
from skillscale.lm.model.shape import shape_for
from skillscale.lm.model.transformer import Transformer
from skillscale.lm.train.stepper import TrainStepper
from skillscale.record import ModelSize

Step = Callable[[], object]
SIDE = 1024


@dataclass(frozen=True, kw_only=True)
class Row:
    """One size and batch. Shares are FLOP/s over a peak. Ratios are the other method's time over ``now``."""

    n_params: int
    depth: int
    width: int
    sequences: int
    step_ms: float
    share_6nd: float
    share_exact: float
    share_6nd_of_onednn: float
    over_before: float
    over_plain: float
    over_trainer: float
    two_workers: float
    peak_gflops: float
    onednn_peak_gflops: float


def with_torch_kernels(step: Step) -> Step:
    """Return the step with torch's kernels."""

    def plain() -> None:
        with mock.patch.object(cpu_kernels, "HAS_ONEDNN", new=False):
            step()

    return plain


def training_step(size: ModelSize, ids: np.ndarray) -> Step:
    """Return the step of the training loop."""
    stepper = TrainStepper(size, load().train, lr=1e-6, seed=0)
    return lambda: stepper.step(ids, lr=1e-6)


def bare_step(size: ModelSize, ids: np.ndarray) -> Step:
    """Return the step of the shortest loop."""
    model = Transformer(size, seed=0)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-6, fused=True)

    def step() -> None:
        batch = torch.from_numpy(ids)
        model(batch[:, :-1], batch[:, 1:]).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return with_torch_kernels(step)


def trainer_seconds(size: ModelSize, ids: np.ndarray, steps: int) -> float:
    """Return the median CPU seconds between the ends of the Trainer's steps; NaN if it is not installed."""
    try:
        import accelerate  # noqa: F401  the Trainer needs it
        from transformers import GPT2Config, GPT2LMHeadModel, Trainer, TrainerCallback, TrainingArguments
    except ImportError:
        return float("nan")
    ends: list[float] = []

    class Clock(TrainerCallback):
        def on_step_end(self, *args: object, **more: object) -> None:  # noqa: ARG002  the protocol's
            ends.append(time.process_time())

    shape = GPT2Config(
        vocab_size=size.vocab_size, n_positions=size.context, n_embd=size.width, n_layer=size.depth, n_head=size.n_heads
    )
    rows = [{"input_ids": row, "labels": row} for row in torch.from_numpy(ids[:, :-1].copy())]
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        arguments = TrainingArguments(
            folder, per_device_train_batch_size=len(rows), max_steps=steps, use_cpu=True, report_to=[],
            save_strategy="no", logging_strategy="no", disable_tqdm=True,
        )  # fmt: skip
        Trainer(GPT2LMHeadModel(shape), arguments, train_dataset=rows * steps, callbacks=[Clock()]).train()
    return statistics.median(np.diff(ends[2:]))


def cpu_seconds(step: Step, count: int) -> float:
    """Return the CPU seconds per step, over ``count`` steps."""
    began = time.process_time()
    for _ in range(count):
        step()
    return (time.process_time() - began) / count


def worker(size: ModelSize, ids: np.ndarray, seconds: float, done: object) -> None:
    """Train for some seconds by the clock, and put the rate in steps per CPU second."""
    torch.set_num_threads(1)
    step = training_step(size, ids)
    cpu_seconds(step, 3)
    began, cpu, count = time.monotonic(), time.process_time(), 0
    while time.monotonic() - began < seconds:
        step()
        count += 1
    done.put(count / (time.process_time() - cpu))  # type: ignore[attr-defined]


def two_workers(size: ModelSize, ids: np.ndarray, seconds: float) -> float:
    """Return the summed rate of two processes over that of one, in CPU time: they share caches and memory."""
    context = multiprocessing.get_context("spawn")

    def rate(n: int) -> float:
        done = context.SimpleQueue()
        processes = [context.Process(target=worker, args=(size, ids, seconds, done)) for _ in range(n)]
        for process in processes:
            process.start()
        total = sum(done.get() for _ in processes)
        for process in processes:
            process.join()
        return total

    return rate(2) / rate(1)


def measure_step(n_params: float, sequences: int, *, turns: int, turn_s: float, two_s: float) -> Row:
    """Measure one size and batch: all methods alternate."""
    config = load()
    size = shape_for(n_params, vocab_size=config.data.vocab_size, model=config.model)
    ids = np.random.default_rng(0).integers(0, size.vocab_size, (sequences, size.context + 1))
    square = torch.randn(SIDE, SIDE)
    methods = {
        "now": training_step(size, ids),
        "before": with_torch_kernels(training_step(size, ids)),
        "plain": bare_step(size, ids),
        "mkl": lambda: square @ square,
        "onednn": lambda: cpu_kernels.matmul(square, square) if cpu_kernels.HAS_ONEDNN else square @ square,
    }
    counts = {
        name: max(1, round(turn_s / min(cpu_seconds(step, 1) for _ in range(3)))) for name, step in methods.items()
    }
    took = {name: np.array([]) for name in methods} | {"trainer": np.array([])}
    for turn in range(turns):
        for name in (*list(methods)[turn % len(methods) :], *list(methods)[: turn % len(methods)]):
            took[name] = np.append(took[name], cpu_seconds(methods[name], counts[name]))
        if turn % 3 == 0:
            took["trainer"] = np.append(took["trainer"], trainer_seconds(size, ids, min(counts["now"], 20) + 5))
    rate = sequences * size.context / took["now"]
    peak, onednn = (2 * SIDE**3 / took[name] for name in ("mkl", "onednn"))
    return Row(
        n_params=size.n_params,
        depth=size.depth,
        width=size.width,
        sequences=sequences,
        step_ms=1e3 * float(np.median(took["now"])),
        share_6nd=float(np.median(6 * size.n_params * rate / peak)),
        share_exact=float(np.median(flops.flops_per_token(size) * rate / peak)),
        share_6nd_of_onednn=float(np.median(6 * size.n_params * rate / onednn)),
        over_before=float(np.median(took["before"] / took["now"])),
        over_plain=float(np.median(took["plain"] / took["now"])),
        over_trainer=float(np.median(took["trainer"] / took["now"][::3])),
        two_workers=two_workers(size, ids, two_s) if two_s else float("nan"),
        peak_gflops=float(np.median(peak)) / 1e9,
        onednn_peak_gflops=float(np.median(onednn)) / 1e9,
    )


def format_table(rows: list[Row]) -> str:
    """Format the rows as a table."""
    head = f"{'N':>11}{'seq':>5}{'ms':>9}{'6ND/MKL':>9}{'exact':>7}{'6ND/oneDNN':>12}{'before':>8}{'plain':>7}"
    lines = [f"{head}{'Trainer':>9}{'two':>6}{'MKL':>6}{'oneDNN':>8}"]
    lines += [
        f"{row.n_params:>11,}{row.sequences:>5}{row.step_ms:>9.1f}{row.share_6nd:>9.0%}{row.share_exact:>7.0%}"
        f"{row.share_6nd_of_onednn:>12.0%}{row.over_before:>8.2f}{row.over_plain:>7.2f}{row.over_trainer:>9.2f}"
        f"{row.two_workers:>6.2f}{row.peak_gflops:>6.0f}{row.onednn_peak_gflops:>8.0f}"
        for row in rows
    ]
    return "\n".join([*lines, "before, plain, Trainer: their time over that of now. Peaks in GFLOP/s of one thread."])


def main() -> None:
    """Measure every size and batch, print the table, write the file."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", default="3e4,2e5,1e6,1e7")
    parser.add_argument("--sequences", default="2,8")
    parser.add_argument("--turns", type=int, default=7)
    parser.add_argument("--turn_s", type=float, default=0.3, help="CPU seconds of one method in a turn")
    parser.add_argument("--two_s", type=float, default=5.0, help="seconds of each of the two processes; 0 skips this")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "train_speed.csv")
    args = parser.parse_args()
    torch.set_num_threads(1)
    rows = []
    for n_params in map(float, args.sizes.split(",")):
        for sequences in map(int, args.sequences.split(",")):
            rows.append(measure_step(n_params, sequences, turns=args.turns, turn_s=args.turn_s, two_s=args.two_s))
            print(format_table(rows[-1:]), file=sys.stderr)
            pd.DataFrame([asdict(row) for row in rows]).to_csv(args.out, index=False, float_format="%.4g")
    print(format_table(rows))


if __name__ == "__main__":
    main()
