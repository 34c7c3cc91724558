"""Speed of training on one GPU: sizes by compilation, checkpointed activations and precision, and workers at once.

    python benchmarks/gpu_speed.py [--sizes 1e6,1e7,1e8,3e8,1e9] [--compile off,default,reduce-overhead]
        [--checkpoint false,true] [--precision 32-true,bf16-mixed] [--workers 1,2,4,8,16] [--out FILE]

Every row has processes of its own, so that one which runs out of memory takes no other with it, and is kept as soon as
it is there: the same command goes on where it was stopped. Rows that failed are tried again. Several workers begin
their measured seconds together; start NVIDIA's MPS before, to see what it gives.

    tokens_per_s     of all workers together
    share_6nd        6 N tokens_per_s over the peak of a square bf16 product, measured in the same process
    share_exact      the same with attention and the head counted as they are
    memory_gb        the largest of a worker's: on a GPU as torch allocated it, on a CPU of the whole process
    points_per_hour  runs of D = 20 N tokens that all workers together would end in an hour, evaluation left out
    first_s          seconds to the end of the first step: compilation, from the cache where it is there

Without a GPU nothing is measured, unless `--device cpu` asks for it, to try the script out.
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
TOKENS_A_PARAMETER = 20
WARM_STEPS = 3
TIMEOUT_S = 1800


@dataclass(frozen=True, kw_only=True)
class Case:
    """What a row measures."""

    device: str
    n_params: float
    compile: str
    checkpoint: bool
    precision: str
    workers: int
    context: int
    vocab_size: int
    tokens: int  # a step

    @property
    def key(self) -> tuple[object, ...]:
        """What two rows of one case have in common, whatever types a table reads them as."""
        return tuple(float(value) if isinstance(value, int | float) else str(value) for value in asdict(self).values())


@dataclass(frozen=True, kw_only=True)
class Measured:
    """What one worker tells."""

    machine: str
    n_exact: int
    first_s: float
    tokens_per_s: float
    peak_tflops: float
    flops_a_token: int
    memory_gb: float


def serve(case: Case, seconds: float) -> None:
    """What a worker does: warm up, say so, wait for the word, measure, tell."""
    import numpy as np
    import torch

    from skillscale.config import load
    from skillscale.lm.model import flops
    from skillscale.lm.model.shape import shape_for
    from skillscale.lm.train.loop import _Loop
    from skillscale.record import OptimizerPlan

    config = replace(
        load().train, device=case.device, compile=case.compile, checkpoint_activations=case.checkpoint,
        precision=case.precision,
    )  # fmt: skip
    size = shape_for(case.n_params, vocab_size=case.vocab_size, model=replace(load().model, context=case.context))
    sequences = max(1, case.tokens // case.context)
    plan = OptimizerPlan(lr=1e-6, batch_sequences=sequences, steps=1 << 30, warmup_steps=0)
    ids = np.random.default_rng(0).integers(0, size.vocab_size, (sequences, size.context + 1))
    peak = flops.matmul_peak(case.device, "bf16-mixed")
    if case.device == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    began = time.perf_counter()
    loop = _Loop(size, plan, config, seed=0)
    loop.step(ids, 0).item()
    first_s = time.perf_counter() - began
    for _ in range(WARM_STEPS):
        began = time.perf_counter()
        loop.step(ids, 0).item()
    steps = max(2, round(seconds / (time.perf_counter() - began)))
    print("ready", flush=True)
    sys.stdin.readline()
    began = time.perf_counter()
    for _ in range(steps):
        loss = loop.step(ids, 0)
    loss.item()  # waits for all of them
    rate = steps * sequences * size.context / (time.perf_counter() - began)
    told = Measured(
        machine=torch.cuda.get_device_name() if case.device == "cuda" else "cpu",
        n_exact=size.n_params,
        first_s=first_s,
        tokens_per_s=rate,
        peak_tflops=peak / 1e12,
        flops_a_token=flops.flops_per_token(size),
        memory_gb=memory(case.device) / 1e9,
    )
    print(json.dumps(asdict(told)), flush=True)


def memory(device: str) -> float:
    """Most bytes that this process held."""
    if device == "cuda":
        import torch

        return float(torch.cuda.max_memory_allocated())
    import resource

    return 1024.0 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def in_processes(case: Case, seconds: float) -> list[Measured]:
    """The workers of a case, measured at the same time.

    Raises:
        RuntimeError: one of them failed; with its last line.
    """
    words = [sys.executable, str(Path(__file__).resolve()), "--serve", json.dumps(asdict(case)), str(seconds)]
    crew = [
        subprocess.Popen(
            words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            env={**os.environ, "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1")},
        )
        for _ in range(case.workers)
    ]  # fmt: skip
    try:
        if all(one.stdout.readline() == "ready\n" for one in crew):  # type: ignore[union-attr]
            for one in crew:
                one.stdin.write("go\n")  # type: ignore[union-attr]
                one.stdin.flush()  # type: ignore[union-attr]
        ended = [one.communicate(timeout=TIMEOUT_S) for one in crew]
    finally:
        for one in crew:
            one.kill()
            one.wait()
    for one, (_, err) in zip(crew, ended, strict=True):
        if one.returncode:
            lines = err.strip().splitlines() or [f"exit code {one.returncode}"]
            raise RuntimeError(next((line for line in lines if "out of memory" in line), lines[-1])[:200])
    return [Measured(**json.loads(out.splitlines()[-1])) for out, _ in ended]


def row(case: Case, seconds: float) -> dict[str, object]:
    """A case with what was measured of it, or with the reason why not."""
    try:
        told = in_processes(case, seconds)
    except RuntimeError as error:
        return {**asdict(case), "failed": str(error)}
    rate = sum(one.tokens_per_s for one in told)
    peak = 1e12 * max(one.peak_tflops for one in told)
    n_params = told[0].n_exact
    return {
        **asdict(case),
        "machine": told[0].machine,
        "tokens_per_s": rate,
        "share_6nd": 6 * n_params * rate / peak,
        "share_exact": told[0].flops_a_token * rate / peak,
        "peak_tflops": peak / 1e12,
        "memory_gb": max(one.memory_gb for one in told),
        "points_per_hour": 3600 * rate / (TOKENS_A_PARAMETER * n_params),
        "first_s": max(one.first_s for one in told),
        "failed": "",
    }


def cases(asked: argparse.Namespace) -> list[Case]:
    """All ways of each size with one worker; several workers where models are small, without checkpointing."""
    found = []
    listed = product(asked.sizes, asked.compile, asked.checkpoint, asked.precision, asked.workers)
    for n_params, mode, checkpoint, precision, workers in listed:
        if workers > 1 and (n_params > asked.most_shared or checkpoint):
            continue
        found.append(
            Case(
                device=asked.device, n_params=n_params, compile=mode, checkpoint=checkpoint, precision=precision,
                workers=workers, context=asked.context, vocab_size=asked.vocab_size, tokens=asked.tokens,
            )
        )  # fmt: skip
    return found


def told(one: dict[str, object]) -> str:
    """A row for a person."""
    head = (
        f"{float(str(one['n_params'])):>8.0e} {one['compile']!s:<16}{'again' if one['checkpoint'] else 'kept':<6}"
        f"{one['precision']!s:<11}{one['workers']!s:>3} workers"
    )
    if one["failed"]:
        return f"{head}  failed: {one['failed']}"
    rate, share, memory_gb, points = (
        float(str(one[name])) for name in ("tokens_per_s", "share_6nd", "memory_gb", "points_per_hour")
    )
    return f"{head}{rate:>14,.0f} tokens/s{share:>8.1%} of the peak{memory_gb:>8.2f} GB{points:>12.3g} points/h"


def kept(path: Path) -> dict[tuple[object, ...], dict[str, object]]:
    """Rows of an earlier call that need no second one."""
    import pandas as pd

    if not path.exists():
        return {}
    names = [one.name for one in fields(Case)]
    rows = pd.read_csv(path, keep_default_na=False).to_dict("records")
    done = [one for one in rows if not one["failed"]]
    return {Case(**{name: one[name] for name in names}).key: one for one in done}


def parsed(words: Sequence[str] | None) -> argparse.Namespace:
    """What is asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)

    def listed(kind: type) -> "object":
        return lambda text: [kind(one) for one in text.split(",")]

    flags = lambda text: [one == "true" for one in text.split(",")]  # noqa: E731
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--sizes", type=listed(float), default=[1e6, 1e7, 1e8, 3e8, 1e9])
    parser.add_argument("--compile", type=listed(str), default=["off", "default", "reduce-overhead"])
    parser.add_argument("--checkpoint", type=flags, default=[False, True], help="activations: false, true or both")
    parser.add_argument("--precision", type=listed(str), default=["32-true", "bf16-mixed"])
    parser.add_argument("--workers", type=listed(int), default=[1, 2, 4, 8, 16], help="at once on the GPU")
    parser.add_argument("--most_shared", type=float, default=1e7, help="the largest N that several workers train")
    parser.add_argument("--context", type=int, default=1024)
    parser.add_argument("--vocab_size", type=int, default=32_768)
    parser.add_argument("--tokens", type=int, default=32_768, help="of a step")
    parser.add_argument("--seconds", type=float, default=5.0, help="that are measured of each row")
    parser.add_argument("--out", type=Path, default=OUT)
    return parser.parse_args(words)


def main(words: Sequence[str] | None = None) -> int:
    """Measure what is not there yet, print, keep."""
    import pandas as pd
    import torch

    asked = parsed(words)
    if asked.device == "cuda" and not torch.cuda.is_available():
        print("torch sees no CUDA device: nothing is measured (--device cpu --sizes 1e5 tries the script out)")
        return 1
    rows = kept(asked.out)
    for case in cases(asked):
        if case.key not in rows:
            rows[case.key] = row(case, asked.seconds)
            asked.out.parent.mkdir(parents=True, exist_ok=True)
            pd.DataFrame(rows.values()).to_csv(asked.out, index=False, float_format="%.6g")
        print(told(rows[case.key]), flush=True)
    return 0


if __name__ == "__main__":
    if sys.argv[1:2] == ["--serve"]:
        serve(Case(**json.loads(sys.argv[2])), float(sys.argv[3]))
    else:
        sys.exit(main())
