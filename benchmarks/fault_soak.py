"""Fault drills over and over: what is lost or doubled of studies that are disturbed.

    python benchmarks/fault_soak.py --times 3                                    every drill on sqlite
    python benchmarks/fault_soak.py --times 2 --queue postgresql+psycopg2://...  the queue in a database
    python benchmarks/fault_soak.py --times 1 --drills server_killed             an MLflow server over sqlite
    python benchmarks/fault_soak.py --times 1 --drills postgres_killed --postgres /usr/lib/postgresql/15/bin

The drills are those of tests/support/fault_drills.py: studies of twelve points that cost nothing and always give
the same
losses. Each time another seed decides which worker is hit, and when. Then workers are started until no point waits.
**Lost**: neither finished nor failed with a reason. **Doubled**: finished twice, or a number written twice. **Left
running**: RUNNING without an owner. **Same law**: the fitted parameters equal those of the undisturbed study, digit by
digit. Each time adds a row to benchmarks/results/faults.csv (``--out``).
"""

import argparse
import csv
import os
import random
import shutil
import subprocess
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "1")
sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "support"))

from fault_drills import DRILLS, Outcome, Scene, Service, disturbed, free_port, mlflow_server, service_killed

RESULTS = Path(__file__).parent / "results" / "faults.csv"
SERVICES = ("server_killed", "postgres_killed")


def empty_store(folder: Path) -> Path:
    """A sqlite store with its schema, made once."""
    from skillscale.tracking import StudyStore

    StudyStore.open(f"sqlite:///{folder}/empty.db")
    return folder / "empty.db"


def on_server(folder: Path, empty: Path, chance: random.Random) -> Outcome:
    """The MLflow server is killed twice."""
    shutil.copy(empty, folder / "server.db")
    port = free_port()
    with mlflow_server(folder, f"sqlite:///{folder}/server.db", port) as service:
        scene = Scene(folder, f"http://127.0.0.1:{port}", chance=chance)
        service_killed(scene, service)
        scene.end()
        return scene.outcome()


def on_postgres(folder: Path, programs: Path, chance: random.Random) -> Outcome:
    """PostgreSQL, which workers write to directly, is killed twice."""
    port, data = free_port(), folder / "data"
    shutil.chown(folder, "postgres") if os.geteuid() == 0 else None
    as_owner = ["runuser", "-u", "postgres", "--"] if os.geteuid() == 0 else []
    made = [*as_owner, str(programs / "initdb"), "-D", str(data), "-A", "trust", "-U", "postgres"]
    subprocess.run(made, check=True, cwd=folder, stdout=subprocess.DEVNULL)
    words = [*as_owner, str(programs / "postgres"), "-D", str(data), "-p", str(port), "-h", "127.0.0.1", "-k", ""]
    with Service(words, folder, port) as service:
        scene = Scene(folder, f"postgresql+psycopg2://postgres@127.0.0.1:{port}/postgres", chance=chance)
        service_killed(scene, service)
        scene.end()
        return scene.outcome()


def once(name: str, seed: int, empty: Path, programs: Path, queue: str) -> Outcome:
    """One drill in a folder of its own."""
    chance = random.Random(f"{name} {seed}")  # noqa: S311
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as place:
        folder = Path(place)
        if queue:
            (folder / "queue").write_text(queue)
        if name == "server_killed":
            return on_server(folder, empty, chance)
        if name == "postgres_killed":
            return on_postgres(folder, programs, chance)
        shutil.copy(empty, folder / "runs.db")
        return disturbed(name, Scene(folder, chance=chance))


def main() -> None:
    """Drill, print and keep."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--drills", default=",".join(DRILLS))
    parser.add_argument("--times", type=int, default=1)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--postgres", type=Path, default=Path("/usr/lib/postgresql/15/bin"))
    parser.add_argument("--queue", default="", help="the queue in a storage of Optuna: journal, or its address")
    parser.add_argument("--out", type=Path, default=RESULTS)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        empty = empty_store(Path(place))
        for seed in range(args.first, args.first + args.times):
            for name in args.drills.split(","):
                outcome = once(name, seed, empty, args.postgres, args.queue)
                row = {
                    "drill": name,
                    "queue": args.queue.partition(":")[0] or "file",
                    "seed": seed,
                    **asdict(outcome),
                    "seconds": f"{outcome.seconds:.1f}",
                }
                print(row, flush=True)
                is_new = not args.out.exists()
                with args.out.open("a", newline="") as file:
                    writer = csv.DictWriter(file, fieldnames=list(row))
                    if is_new:
                        writer.writeheader()
                    writer.writerow(row)


if __name__ == "__main__":
    main()
