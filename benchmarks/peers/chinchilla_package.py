"""One fit by the package ``chinchilla``, run by a Python that has it: CPU seconds and parameters, as JSON.

    python benchmarks/peers/chinchilla_package.py TABLE.csv

The table has the columns N, D and loss. The grid of starts is that of the package's README (3125); the loss is its
``log_huber`` with the field's delta, for its own default is an asymmetric absolute error.
"""

import functools
import json
import os
import sys
import tempfile

os.environ["MPLBACKEND"] = "Agg"

import numpy as np
import pandas as pd
from chinchilla import Chinchilla
from chinchilla._metrics import log_huber

GRID = {
    "E": np.linspace(1, 2, 5),
    "a": np.linspace(1, 10, 5),
    "b": np.linspace(1, 10, 5),
    "alpha": np.linspace(0.1, 0.7, 5),
    "beta": np.linspace(0.1, 0.7, 5),
}


def cpu() -> float:
    """CPU seconds of this process and those that it has ended."""
    return sum(os.times()[:4])


def main() -> None:
    """Fit and print."""
    runs = pd.read_csv(sys.argv[1])
    with tempfile.TemporaryDirectory() as folder:
        runs.assign(C=6 * runs["N"] * runs["D"]).to_csv(f"{folder}/df.csv", index=False)
        law = Chinchilla(folder, param_grid=GRID, loss_fn=functools.partial(log_huber, delta=1e-3), log_level=50)
        law.visualizer.optim = lambda *_, **__: None  # the time is the fit's, not its figure's
        begin = cpu()
        law.fit(parallel=False)
        seconds = cpu() - begin
    print(json.dumps({"seconds": seconds, "theta": [law.params[name] for name in ("E", "A", "B", "alpha", "beta")]}))


if __name__ == "__main__":
    main()
