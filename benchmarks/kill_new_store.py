"""Stop the first command of a new store at random moments; the next command must work.

    python benchmarks/kill_new_store.py kills [--starts 60]
    python benchmarks/kill_new_store.py workers [--rounds 50]

``kills``: a command that makes a store, imports a table and fits is stopped by SIGINT, SIGTERM or SIGKILL, in turns, at
a random moment within its first 15 s. Then ``import`` and ``fit`` run on what is there. ``workers``: eight processes
open an empty store at once. Rows are appended to benchmarks/results/kill_new_store.csv, so that the command can be
stopped and goes on.
"""

import argparse
import csv
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

RESULTS = Path(__file__).parent / "results" / "kill_new_store.csv"
EXAMPLES = Path(__file__).parents[1] / "examples"
SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGKILL)
WITHIN_S = 15.0
WORKERS = 8
COLUMNS = ("mode", "number", "signal", "after_s", "ended_by", "next_import", "next_fit", "runs")
TABLE = ["--table", str(EXAMPLES / "planted.csv"), "--columns", str(EXAMPLES / "planted.yaml")]
IMPORT = ["import", *TABLE, "--study", "theirs"]
FIT = ["fit", "--study", "theirs", "--law", "separable", "--laws.bootstrap", "laplace", "--json"]


def main() -> None:
    """Run what is missing of one mode, and print its table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("mode", choices=("kills", "workers"))
    parser.add_argument("--starts", type=int, default=60)
    parser.add_argument("--rounds", type=int, default=50)
    given = parser.parse_args()
    rows = [row for row in read_rows() if row["mode"] == given.mode]
    if given.mode == "kills":
        for number in range(len(rows), given.starts):
            append(kill_once(number))
    else:
        for number in range(len(rows), given.rounds):
            append(start_workers(number))
    rows = [row for row in read_rows() if row["mode"] == given.mode]
    bricked = [row for row in rows if row["next_import"] != "0" or row["next_fit"] != "0"]
    print(f"{given.mode}: {len(rows)} times, {len(bricked)} without a store to use")
    for name in ("SIGINT", "SIGTERM", "SIGKILL"):
        stopped = [row for row in rows if row["signal"] == name]
        if stopped:
            early = sum(row["ended_by"] != "0" for row in stopped)
            print(f"  {name}: {len(stopped)} starts, {early} stopped before their end")


def kill_once(number: int) -> dict[str, str]:
    """Stop one first command, and run the next two."""
    sent = SIGNALS[number % len(SIGNALS)]
    after_s = np.random.default_rng(number).uniform(0.0, WITHIN_S)
    with tempfile.TemporaryDirectory() as folder:
        process = subprocess.Popen(
            ["/bin/bash", "-c", f"{' '.join(words(IMPORT))} && {' '.join(words(FIT))}"], cwd=folder,
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
        )  # fmt: skip
        try:
            ended_by = process.wait(after_s)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, sent)
            ended_by = process.wait()
        time.sleep(0.2)
        imported, fitted = run(IMPORT, folder), run(FIT, folder)
        runs = '"n_runs": 60' in fitted.stdout
        return {
            "mode": "kills", "number": str(number), "signal": sent.name, "after_s": f"{after_s:.1f}",
            "ended_by": str(ended_by), "next_import": str(imported.returncode), "next_fit": str(fitted.returncode),
            "runs": "60" if runs else "other",
        }  # fmt: skip


def start_workers(number: int) -> dict[str, str]:
    """Let eight processes open an empty store at once, then import and fit."""
    code = "from skillscale.tracking import StudyStore; StudyStore.open().study_names()"
    with tempfile.TemporaryDirectory() as folder:
        workers = [
            subprocess.Popen([sys.executable, "-c", code], cwd=folder, stderr=subprocess.DEVNULL)
            for _ in range(WORKERS)
        ]
        failed = sum(worker.wait() != 0 for worker in workers)
        imported, fitted = run(IMPORT, folder), run(FIT, folder)
        return {
            "mode": "workers", "number": str(number), "signal": "", "after_s": "", "ended_by": str(failed),
            "next_import": str(imported.returncode), "next_fit": str(fitted.returncode),
            "runs": "60" if '"n_runs": 60' in fitted.stdout else "other",
        }  # fmt: skip


def words(command: list[str]) -> list[str]:
    """Return the words of a command."""
    return [str(Path(sys.executable).with_name("skillscale")), *command]


def run(command: list[str], folder: str) -> "subprocess.CompletedProcess[str]":
    """Run a command to its end."""
    return subprocess.run(words(command), cwd=folder, capture_output=True, text=True, check=False)


def read_rows() -> list[dict[str, str]]:
    """Return the rows that are there."""
    return list(csv.DictReader(RESULTS.open())) if RESULTS.exists() else []


def append(row: dict[str, str]) -> None:
    """Append a row, so that the command goes on after a stop."""
    with RESULTS.open("a", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS)
        if file.tell() == 0:
            writer.writeheader()
        writer.writerow(row)
    print(row, flush=True)


if __name__ == "__main__":
    main()
