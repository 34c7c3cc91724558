"""Fit planted sweeps by their mean setting, by the lowest loss and by ``best_of``: bias and coverage of ln N*.

    python benchmarks/best_of.py [--sweeps 30]

Each sweep has 20 points, four budgets by five sizes, with five learning rates, and five batches in two of the cases.
The loss rises faster above the best learning rate than below, and the best moves with N. Prints one line
a case and way.
"""

import argparse
import contextlib
import io
import json
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
import yaml

from skillscale.cli import COMMANDS, main

E, A, B, ALPHA, BETA = 1.8, 480.0, 2100.0, 0.35, 0.37
EXPONENT = BETA / (ALPHA + BETA)
FLOPS = 1e21
CASES = ((1, 0.003), (1, 0.01), (2, 0.003), (2, 0.01))  # settings, and noise of ln L


def optimum(flops: float) -> float:
    """Return N* of the planted law."""
    return float((ALPHA * A / (BETA * B)) ** (1 / (ALPHA + BETA)) * (flops / 6) ** EXPONENT)


def sweep(n_settings: int, noise: float, seed: int) -> pd.DataFrame:
    """Return a table with one row a setting and point."""
    rng = np.random.default_rng(seed)
    batches = np.geomspace(64, 1024, 5) if n_settings == 2 else np.array([256.0])
    rows = []
    for C in (1e18, 3e18, 1e19, 3e19):
        for shift in np.linspace(-1.2, 1.2, 5):
            N = round(optimum(C) * np.exp(shift))
            D = round(C / 6 / N)
            lr, batch = (grid.ravel() for grid in np.meshgrid(np.geomspace(1e-4, 1e-2, 5), batches))
            u = np.log(lr / 1e-3) + 0.25 * np.log(N / 1e8) + 0.2 * rng.standard_normal()
            v = (np.log(batch / 256) - 0.2 * np.log(D / 1e9)) * (n_settings == 2)
            above = 0.012 * 2 * (np.exp(0.4 * u) - 1 - 0.4 * u) / 0.4**2 + 0.01 * v**2 + 0.004 * u * v
            loss = (E + A * N**-ALPHA + B * D**-BETA) * np.exp(above + noise * rng.standard_normal(len(u)))
            rows.append(pd.DataFrame({"params": N, "tokens": D, "lr": lr, "batch": batch, "loss": loss}))
    return pd.concat(rows, ignore_index=True)


def fit(frame: pd.DataFrame, folder: Path, best_of: list[str]) -> tuple[float, float, float] | None:
    """Return N* and its interval, or None if there is none."""
    frame.to_csv(folder / "runs.csv", index=False)
    columns = {"n_params": "params", "n_tokens": "tokens", "skills": {"all": "loss"}, "best_of": best_of}
    (folder / "map.yaml").write_text(yaml.safe_dump(columns))
    answer = io.StringIO()
    words = ["--table", str(folder / "runs.csv"), "--columns", str(folder / "map.yaml"), "--flops", str(FLOPS)]
    with contextlib.redirect_stderr(io.StringIO()):
        main(["fit", *words, "--law", "chinchilla", "--laws.bootstrap", "laplace", "--json"], COMMANDS, answer)
    (best,) = json.loads(answer.getvalue())["skills"]["all"]["optima"]
    return (best["n_params"], *best["interval"]) if best["n_params"] else None


def report(n_sweeps: int) -> None:
    """Print bias, spread, coverage and width of ln N* for each case and way."""
    with tempfile.TemporaryDirectory() as name:
        for n_settings, noise in CASES:
            answers: dict[str, list[tuple[float, float, float]]] = {"mean": [], "lowest": [], "best_of": []}
            for seed in range(n_sweeps):
                frame = sweep(n_settings, noise, seed)
                lowest = frame.loc[frame.groupby(["params", "tokens"])["loss"].idxmin()]
                ways = {"mean": (frame, []), "lowest": (lowest, []), "best_of": (frame, ["lr", "batch"][:n_settings])}
                for way, (table, best_of) in ways.items():
                    if (answer := fit(table, Path(name), best_of)) is not None:
                        answers[way].append(answer)
            for way, values in answers.items():
                off = np.log(np.array(values) / optimum(FLOPS))
                held = ((off[:, 1] <= 0) & (off[:, 2] >= 0)).mean()
                print(
                    f"{n_settings} settings, noise {noise:.1%}, {way}: bias {off[:, 0].mean():+.3f}, sd "
                    f"{off[:, 0].std():.3f}, in the interval {held:.0%}, width {(off[:, 2] - off[:, 1]).mean():.2f}",
                    flush=True,
                )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sweeps", type=int, default=30)
    report(parser.parse_args().sweeps)
