"""One fit by the package ``simple-scaling-laws``, run by a Python that has it: CPU seconds and parameters, as JSON.

    python benchmarks/peers/simple_scaling_laws_package.py TABLE.csv RESAMPLES

The table has the columns N, D and loss. The package fits least squares on L, and bootstraps on every fit: one
resample is the least. A and B are its terms at a reference size, carried here to N = D = 1.
"""

import json
import sys
import time

import polars as pl
import simple_scaling_laws as package


def main() -> None:
    """Fit and print."""
    runs = pl.read_csv(sys.argv[1])
    table = pl.DataFrame(
        {
            "training_run_id": [str(row) for row in range(len(runs))],
            "model_size__n": runs["N"],
            "dataset_size__d": runs["D"],
            "test_loss__l": runs["loss"],
        }
    )
    begin = time.process_time()
    model = package.fit(table, n_draws=int(sys.argv[2]))
    seconds = time.process_time() - begin
    found, at = model.params("test_loss__l"), model.manifest["predictors"]
    A = found["A"] * at["model_size__n"]["reference"] ** found["alpha"]
    B = found["B"] * at["dataset_size__d"]["reference"] ** found["beta"]
    print(json.dumps({"seconds": seconds, "theta": [found["E"], A, B, found["alpha"], found["beta"]]}))


if __name__ == "__main__":
    main()
