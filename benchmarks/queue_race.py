"""Whether Optuna's storages let two processes take one trial: four processes claim the same 150 trials at once.

python benchmarks/queue_race.py sqlite:////tmp/race.db
python benchmarks/queue_race.py postgresql+psycopg2://USER:PASSWORD@127.0.0.1/NAME
"""

import argparse
import contextlib
import multiprocessing
import uuid

import optuna
from optuna.trial import TrialState

TRIALS, PROCESSES = 150, 4


def claim(url, trial_ids, claims, gate):
    """Claim as many trials as possible; sqlite's "database is locked" claims none."""
    storage = optuna.storages.RDBStorage(url)
    gate.wait()
    claimed = []
    for trial_id in trial_ids:
        with contextlib.suppress(optuna.exceptions.StorageInternalError):
            if storage.set_trial_state_values(trial_id, TrialState.RUNNING):
                claimed.append(trial_id)
    claims.put(claimed)


def main():
    """Claim with all processes at once, and count the claims."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("url", help="address of the storage")
    url = parser.parse_args().url
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    storage = optuna.storages.RDBStorage(url)
    study = storage.create_new_study([optuna.study.StudyDirection.MINIMIZE], f"race {uuid.uuid4()}")
    waiting = optuna.trial.create_trial(state=TrialState.WAITING)
    trial_ids = [storage.create_new_trial(study, waiting) for _ in range(TRIALS)]
    claims, gate = multiprocessing.Queue(), multiprocessing.Barrier(PROCESSES)
    processes = [multiprocessing.Process(target=claim, args=(url, trial_ids, claims, gate)) for _ in range(PROCESSES)]
    for process in processes:
        process.start()
    claimed = [trial_id for _ in processes for trial_id in claims.get()]
    for process in processes:
        process.join()
    doubled = len(claimed) - len(set(claimed))
    print(f"{url.partition(':')[0]}: {len(claimed)} claims of {TRIALS} trials, {doubled} of them twice")


if __name__ == "__main__":
    main()
