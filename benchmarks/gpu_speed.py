"""Speed of training on one GPU by size, compilation, activation checkpointing, precision and number of workers.

    python benchmarks/gpu_speed.py [--sizes 1e6,1e7,1e8,3e8,1e9] [--compile off,default,reduce-overhead]
        [--checkpoint false,true] [--precision 32-true,bf16-mixed] [--workers 1,2,4,8,16] [--out FILE]

Every row runs in separate processes, so that running out of memory affects no other row. Each row is written as soon as
it is measured: the same command resumes where it was stopped, and tries failed rows again. Several workers start their
measured seconds together. To measure NVIDIA's MPS, start it first.

    tokens_per_s     of all workers together
    share_6nd        6 N tokens_per_s over the peak of a square bf16 product, measured in the same process
    share_exact      the same with the exact count of attention and head
    memory_gb        largest memory of a worker: allocated by torch on a GPU, of the whole process on a CPU
    points_per_hour  runs of D = 20 N tokens that all workers together finish in an hour, without evaluation
    first_s          seconds to the end of the first step: compilation, from the cache if it has it

Without a GPU nothing is measured. `--device cpu` tries the script out.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields, replace
from itertools import product
from pathlib import Path

OUT = Path(__file__).parent / "results" / "gpu_speed.csv"
TOKENS_PER_PARAMETER = 20
WARM_STEPS = 3
TIMEOUT_S = 1800


@dataclass(frozen=True, kw_only=True)
class Case:
    """The settings of a row."""

    device: str
    n_params: float
    compile: str
    checkpoint: bool
    precision: str
    workers: int
    context: int
    vocab_size: int
    tokens: int  # per step

    @property
    def key(self) -> tuple[object, ...]:
        """Key of the case, independent of the types that a table reads."""
        return tuple(float(value) if isinstance(value, int | float) else str(value) for value in asdict(self).values())


@dataclass(frozen=True, kw_only=True)
class WorkerResult:
    """The measurements of one worker."""

    machine: str
    n_exact: int
    first_s: float
    tokens_per_s: float
    peak_tflops: float
    flops_per_token: int
    memory_gb: float


def serve(case: Case, seconds: float) -> None:
    """Run a worker: warm up, print "ready", wait for a line, measure, print the result."""
    import numpy as np
    import torch

    from skillscale.config import load
    from skillscale.lm.model import flops
    from skillscale.lm.model.shape import shape_for
    from skillscale.lm.train.stepper import TrainStepper

    config = replace(
        load().train, device=case.device, compile=case.compile, checkpoint_activations=case.checkpoint,
        precision=case.precision,
    )  # fmt: skip
    size = shape_for(case.n_params, vocab_size=case.vocab_size, model=replace(load().model, context=case.context))
    sequences = max(1, case.tokens // case.context)
    ids = np.random.default_rng(0).integers(0, size.vocab_size, (sequences, size.context + 1))
    peak = flops.matmul_peak(case.device, "bf16-mixed")
    if case.device == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    began = time.perf_counter()
    stepper = TrainStepper(size, config, lr=1e-6, seed=0)
    stepper.step(ids, lr=1e-6).item()
    first_s = time.perf_counter() - began
    for _ in range(WARM_STEPS):
        began = time.perf_counter()
        stepper.step(ids, lr=1e-6).item()
    steps = max(2, round(seconds / (time.perf_counter() - began)))
    print("ready", flush=True)
    sys.stdin.readline()
    began = time.perf_counter()
    for _ in range(steps):
        loss = stepper.step(ids, lr=1e-6)
    loss.item()  # waits for all steps
    rate = steps * sequences * size.context / (time.perf_counter() - began)
    result = WorkerResult(
        machine=torch.cuda.get_device_name() if case.device == "cuda" else "cpu",
        n_exact=size.n_params,
        first_s=first_s,
        tokens_per_s=rate,
        peak_tflops=peak / 1e12,
        flops_per_token=flops.flops_per_token(size),
        memory_gb=peak_memory(case.device) / 1e9,
    )
    print(json.dumps(asdict(result)), flush=True)


def peak_memory(device: str) -> float:
    """Return the largest memory of this process, in bytes."""
    if device == "cuda":
        import torch

        return float(torch.cuda.max_memory_allocated())
    import resource

    return 1024.0 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def run_workers(case: Case, seconds: float) -> list[WorkerResult]:
    """Run the workers of a case at the same time.

    Raises:
        RuntimeError: a worker failed; the message is its last line.
    """
    words = [sys.executable, str(Path(__file__).resolve()), "--serve", json.dumps(asdict(case)), str(seconds)]
    workers = [
        subprocess.Popen(
            words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            env={**os.environ, "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1")},
        )
        for _ in range(case.workers)
    ]  # fmt: skip
    try:
        if all(worker.stdout.readline() == "ready\n" for worker in workers):  # type: ignore[union-attr]
            for worker in workers:
                worker.stdin.write("go\n")  # type: ignore[union-attr]
                worker.stdin.flush()  # type: ignore[union-attr]
        outputs = [worker.communicate(timeout=TIMEOUT_S) for worker in workers]
    finally:
        for worker in workers:
            worker.kill()
            worker.wait()
    for worker, (_, err) in zip(workers, outputs, strict=True):
        if worker.returncode:
            lines = err.strip().splitlines() or [f"exit code {worker.returncode}"]
            raise RuntimeError(next((line for line in lines if "out of memory" in line), lines[-1])[:200])
    return [WorkerResult(**json.loads(out.splitlines()[-1])) for out, _ in outputs]


def measure_case(case: Case, seconds: float) -> dict[str, object]:
    """Return a row: the case with its measurements, or with the reason of a failure."""
    try:
        results = run_workers(case, seconds)
    except RuntimeError as error:
        return {**asdict(case), "failed": str(error)}
    rate = sum(result.tokens_per_s for result in results)
    peak = 1e12 * max(result.peak_tflops for result in results)
    n_params = results[0].n_exact
    return {
        **asdict(case),
        "machine": results[0].machine,
        "tokens_per_s": rate,
        "share_6nd": 6 * n_params * rate / peak,
        "share_exact": results[0].flops_per_token * rate / peak,
        "peak_tflops": peak / 1e12,
        "memory_gb": max(result.memory_gb for result in results),
        "points_per_hour": 3600 * rate / (TOKENS_PER_PARAMETER * n_params),
        "first_s": max(result.first_s for result in results),
        "failed": "",
    }


def cases(args: argparse.Namespace) -> list[Case]:
    """List all settings of each size with one worker, and several workers for small models without checkpointing."""
    listed_cases = []
    combinations = product(args.sizes, args.compile, args.checkpoint, args.precision, args.workers)
    for n_params, mode, checkpoint, precision, workers in combinations:
        if workers > 1 and (n_params > args.most_shared or checkpoint):
            continue
        listed_cases.append(
            Case(
                device=args.device, n_params=n_params, compile=mode, checkpoint=checkpoint, precision=precision,
                workers=workers, context=args.context, vocab_size=args.vocab_size, tokens=args.tokens,
            )
        )  # fmt: skip
    return listed_cases


def format_row(row: dict[str, object]) -> str:
    """Format a row as a line."""
    head = (
        f"{float(str(row['n_params'])):>8.0e} {row['compile']!s:<16}{'recomputed' if row['checkpoint'] else 'kept':<11}"
        f"{row['precision']!s:<11}{row['workers']!s:>3} workers"
    )
    if row["failed"]:
        return f"{head}  failed: {row['failed']}"
    rate, share, memory_gb, points = (
        float(str(row[name])) for name in ("tokens_per_s", "share_6nd", "memory_gb", "points_per_hour")
    )
    return f"{head}{rate:>14,.0f} tokens/s{share:>8.1%} of the peak{memory_gb:>8.2f} GB{points:>12.3g} points/h"


def read_rows(path: Path) -> dict[tuple[object, ...], dict[str, object]]:
    """Read the rows that an earlier call measured."""
    import pandas as pd

    if not path.exists():
        return {}
    names = [item.name for item in fields(Case)]
    rows = pd.read_csv(path, keep_default_na=False).to_dict("records")
    done = [row for row in rows if not row["failed"]]
    return {Case(**{name: row[name] for name in names}).key: row for row in done}


def parse_args(words: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)

    def list_of(kind: type) -> "object":
        return lambda text: [kind(item) for item in text.split(",")]

    flags = lambda text: [item == "true" for item in text.split(",")]  # noqa: E731
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--sizes", type=list_of(float), default=[1e6, 1e7, 1e8, 3e8, 1e9])
    parser.add_argument("--compile", type=list_of(str), default=["off", "default", "reduce-overhead"])
    parser.add_argument("--checkpoint", type=flags, default=[False, True], help="activations: false, true or both")
    parser.add_argument("--precision", type=list_of(str), default=["32-true", "bf16-mixed"])
    parser.add_argument(
        "--workers", type=list_of(int), default=[1, 2, 4, 8, 16], help="workers at the same time on the GPU"
    )
    parser.add_argument("--most_shared", type=float, default=1e7, help="largest N for several workers")
    parser.add_argument("--context", type=int, default=1024)
    parser.add_argument("--vocab_size", type=int, default=32_768)
    parser.add_argument("--tokens", type=int, default=32_768, help="tokens per step")
    parser.add_argument("--seconds", type=float, default=5.0, help="measured seconds per row")
    parser.add_argument("--out", type=Path, default=OUT)
    return parser.parse_args(words)


def main(words: Sequence[str] | None = None) -> int:
    """Measure the missing rows, print and write each."""
    import pandas as pd
    import torch

    args = parse_args(words)
    if args.device == "cuda" and not torch.cuda.is_available():
        print("torch sees no CUDA device, so nothing is measured. Use --device cpu --sizes 1e5 to try the script out.")
        return 1
    rows = read_rows(args.out)
    for case in cases(args):
        if case.key not in rows:
            rows[case.key] = measure_case(case, args.seconds)
            args.out.parent.mkdir(parents=True, exist_ok=True)
            pd.DataFrame(rows.values()).to_csv(args.out, index=False, float_format="%.6g")
        print(format_row(rows[case.key]), flush=True)
    return 0


if __name__ == "__main__":
    if sys.argv[1:2] == ["--serve"]:
        serve(Case(**json.loads(sys.argv[2])), float(sys.argv[3]))
    else:
        sys.exit(main())
