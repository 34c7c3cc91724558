"""Fit a table of a million rows, and measure the time and the largest memory of the whole command.

    python benchmarks/million_rows.py [ROWS]

writes benchmarks/results/million_rows.csv (about five minutes for all tables). The tables: independent runs, a thousand
runs with a thousand checkpoints, 400 points that are repeated, and runs of a mix of three categories with four skills.
The limit that the tests hold a smaller table to: 3 minutes and 3 GB on 2 cores.
"""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml

KINDS = ("independent", "checkpoints", "repeated", "mixes")
_RESULT = Path(__file__).parent / "results" / "million_rows.csv"
_ROWS_OF_A_RUN = 1_000
_CATEGORIES = ("code", "prose", "web")


def million_rows(kind: str, n_rows: int, folder: Path) -> tuple[Path, Path]:
    """Write a table of a kind and its column map; return both paths."""
    rng = np.random.default_rng(0)
    n_runs = max(n_rows // _ROWS_OF_A_RUN, 1)
    N, D = 10 ** rng.uniform(7, 9.5, n_rows), 10 ** rng.uniform(9, 11.5, n_rows)
    run = np.arange(n_rows)
    if kind == "checkpoints":
        N, run = (
            np.repeat(10 ** rng.uniform(7, 9.5, n_runs), _ROWS_OF_A_RUN),
            np.repeat(np.arange(n_runs), _ROWS_OF_A_RUN),
        )
        D = np.tile(np.linspace(1e8, 1e11, _ROWS_OF_A_RUN), n_runs)
    elif kind == "repeated":
        N, D = rng.choice(np.geomspace(1e7, 3e9, 20), n_rows), rng.choice(np.geomspace(1e9, 3e11, 20), n_rows)
    skills = ("code", "prose", "facts", "sums") if kind == "mixes" else ("code", "prose")
    table = pd.DataFrame({"run": [f"run{at}" for at in run], "n": np.round(N), "d": np.round(D)})
    shares = rng.dirichlet([2, 3, 4], n_rows).round(3) if kind == "mixes" else np.zeros((n_rows, 0))
    columns: dict[str, Any] = {"n_params": "n", "n_tokens": "d", "run": "run", "checkpoints": "all", "skills": {}}
    if kind == "mixes":
        shares[:, -1] = (1 - shares[:, :-1].sum(axis=1)).round(3)
        table[[f"share_{name}" for name in _CATEGORIES]] = shares
        columns["mix"] = {name: f"share_{name}" for name in _CATEGORIES}
    for at, skill in enumerate(skills):
        law = (1.5 + 0.1 * at) + 406.4 * N**-0.34 + 410.7 * D**-0.28
        law = law * np.exp(-0.1 * shares[:, at % 3]) if kind == "mixes" else law
        table[f"loss_{skill}"] = law * np.exp(0.005 * rng.normal(size=n_rows))
        columns["skills"][skill] = f"loss_{skill}"
    path, mapping = folder / f"{kind}.csv", folder / f"{kind}.yaml"
    table.to_csv(path, index=False)
    mapping.write_text(yaml.safe_dump(columns, sort_keys=False))
    return path, mapping


def measure(path: Path, mapping: Path) -> Mapping[str, Any]:
    """Return seconds, largest memory in GB, exit code and last lines of ``fit`` on a table."""
    start = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-m", "skillscale", "fit", "--table", str(path), "--columns", str(mapping)],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    assert process.stdout is not None
    lines = process.stdout.read().splitlines()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    return {
        "seconds": round(time.perf_counter() - start, 1), "memory, GB": round(usage.ru_maxrss / 2**20, 2),
        "exit code": process.returncode, "lines of progress": sum("read" in line for line in lines),
    }  # fmt: skip


def main() -> None:
    """Measure every kind of table, and write the numbers."""
    n_rows = int(float(sys.argv[1])) if sys.argv[1:] else 1_000_000
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for kind in KINDS:
            rows.append({"table": kind, "rows": n_rows, **measure(*million_rows(kind, n_rows, Path(folder)))})
            print(rows[-1], flush=True)
    pd.DataFrame(rows).to_csv(_RESULT, index=False)


if __name__ == "__main__":
    main()
