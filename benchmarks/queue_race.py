"""Whether Optuna's storages let two processes take one trial: four claim the same 150 trials of a storage at once.

python benchmarks/queue_race.py sqlite:////tmp/race.db
python benchmarks/queue_race.py postgresql+psycopg2://USER:PASSWORD@127.0.0.1/NAME
"""

import contextlib
import multiprocessing
import sys
import uuid

import optuna
from optuna.trial import TrialState

TRIALS, PROCESSES = 150, 4


def claim(url, ids, found, gate):
    """Take what one can; "database is locked", as sqlite says, takes nothing."""
    storage = optuna.storages.RDBStorage(url)
    gate.wait()
    won = []
    for one in ids:
        with contextlib.suppress(optuna.exceptions.StorageInternalError):
            if storage.set_trial_state_values(one, TrialState.RUNNING):
                won.append(one)
    found.put(won)


def main(url):
    """Claim with all processes at once, and count."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    storage = optuna.storages.RDBStorage(url)
    study = storage.create_new_study([optuna.study.StudyDirection.MINIMIZE], f"race {uuid.uuid4()}")
    waiting = optuna.trial.create_trial(state=TrialState.WAITING)
    ids = [storage.create_new_trial(study, waiting) for _ in range(TRIALS)]
    found, gate = multiprocessing.Queue(), multiprocessing.Barrier(PROCESSES)
    processes = [multiprocessing.Process(target=claim, args=(url, ids, found, gate)) for _ in range(PROCESSES)]
    for each in processes:
        each.start()
    won = [one for _ in processes for one in found.get()]
    for each in processes:
        each.join()
    print(f"{url.partition(':')[0]}: {len(won)} claims of {TRIALS} trials, {len(won) - len(set(won))} of them twice")


if __name__ == "__main__":
    main(sys.argv[1])
