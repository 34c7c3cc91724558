"""Estimate the exponent a of N* ~ C^a from published isoFLOP sweeps, by each method, with 90 % intervals.

    python benchmarks/published_isoflops.py [--tables FOLDER]

prints the table and writes it to benchmarks/results/published_isoflops.csv (minutes). FOLDER contains
porian_isoflop.csv and marin_isoflop.csv (default: $SKILLSCALE_TABLES, or ../shared/data next to the checkout).

Porian et al. 2024 (arXiv 2406.19146): 15 settings of data, tuning, warm-up and convention of N. C is nominal and D = C
/ 6 N. Their a, by local interpolation between sizes and over all budgets, is about 0.88 in the setting of Kaplan et al.
and 0.5 after tuning. Here the former is 0.82 to 0.86 (``near``). N* is curved and steeper at small C. A single size
lies below the optimum there, so most of those minima are refused. Without refusals and with equal weights of the
budgets, the methods give 0.83 to 0.88.

Marin: 3 corpora. C is counted operation by operation. 6 N D differs from it by up to 35 % at the smallest sizes, where
embedding and head are most of N. So N is defined in three ways: as the operations per token (``N=C/6D``), as the
parameters with the D that the budget allows (``N=params D=C/6N``), and with both as they are (``N=params``). In the
last case the fit excludes the runs that miss their budget by more than a tenth, and counts them as ``unusable``. The
definition of N changes a more than the method does. An analysis of the same family of runs by Open-Athena has 0.39
(parabolas, N=params).

``sizes``: ``all`` of a budget, or ``near``: within 8x of its best run. Such wide sweeps (up to +-50x) reach losses
where neither a low polynomial nor a law holds. The choice by the best run depends a little on its noise.

``law_minus_curve``: mean of ln N* by the law less ln N* by the curve. ``disagree``: budgets where the interval of that
difference excludes 0.
"""

import argparse
import math
import os
from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd

from skillscale.laws.isoflop.curves import CURVES
from skillscale.laws.isoflop.study import fit_study
from skillscale.laws.results import Interval, Status, StudyResults

RESULTS = Path(__file__).parent / "results"
SHARED_TABLES = Path(__file__).parents[2] / "shared" / "data"
SETTING = ["table", "dataset", "hparams", "warmup", "decay", "param_count", "loss_kind"]
NEAR = 8.0


def porian(folder: Path) -> pd.DataFrame:
    """Read the runs of the 15 settings. The setting is the mix."""
    runs = pd.read_csv(folder / "porian_isoflop.csv")
    mix = runs[SETTING].astype(str).agg(" ".join, axis=1)
    return _study(mix=mix, C=runs["flops"], N=runs["params"], D=runs["tokens"], loss=runs["loss"])


def marin(folder: Path) -> pd.DataFrame:
    """Read the runs of the 3 corpora, with each definition of N and D."""
    runs = pd.read_csv(folder / "marin_isoflop.csv").astype({"params": float, "tokens": float})
    nominal = runs["flops"].map("{:.2g}".format).astype(float)
    counts = {
        "N=C/6D": (nominal / 6 / runs["tokens"], runs["tokens"]),
        "N=params D=C/6N": (runs["params"], nominal / 6 / runs["params"]),
        "N=params": (runs["params"], runs["tokens"]),
    }
    parts = [
        _study(mix=f"marin {named} " + runs["dataset"], C=nominal, N=N, D=D, loss=runs["loss_paloma_macro"])
        for named, (N, D) in counts.items()
    ]
    return pd.concat(parts)


def _study(**columns: pd.Series) -> pd.DataFrame:
    table = pd.DataFrame(columns)
    return table.assign(seed=0, run_id=table["mix"] + " " + table.index.astype(str))


def near(runs: pd.DataFrame) -> pd.DataFrame:
    """Select the runs within a factor ``NEAR`` of the size of their budget's best run."""
    best = runs.loc[runs.groupby(["mix", "C"])["loss"].transform("idxmin"), "N"].to_numpy()
    return runs[np.abs(np.log(runs["N"] / best)) <= math.log(NEAR) + 1e-9]


def exponents(runs: pd.DataFrame, fits: StudyResults, *, sizes: str) -> list[dict[str, object]]:
    """Return one row per setting for one method, and one for the law where the method is the default."""
    rows = []
    for law, fit in zip(fits.power_laws, fits.laws, strict=True):
        minima = [m for m in fits.minima if m.mix == law.mix]
        disagreements = [f.disagreement for f in fits.curve_versus_law if f.mix == law.mix]
        run_ids = runs[runs["mix"] == law.mix]["run_id"]
        common = {
            "setting": law.mix,
            "sizes": sizes,
            "runs": len(run_ids),
            "unusable": len({u.run_id for u in fits.excluded} & set(run_ids)),
        }
        refused = Counter(_short(m.status, m.reason) for m in minima if m.status is not Status.OK)
        rows.append(
            common
            | {"method": fits.curve}
            | _exponent(law.a)
            | {"bracketed": law.n_budgets, "refused": "; ".join(f"{count} {why}" for why, count in refused.items())}
            | {"law_minus_curve": f"{np.mean([d.value for d in disagreements]):+.3f}" if disagreements else ""}
            | {"disagree": f"{sum(d.excludes_zero for d in disagreements)} of {len(disagreements)}"}
        )
        if fits.curve == CURVES[0]:
            rows.append(common | {"method": "law"} | _exponent(fit.a) | {"refused": fit.reason})
    return rows


def _short(status: Status, reason: str) -> str:
    """Shorten a refusal to a few words."""
    return f"{status} ({'smallest' if 'smallest' in reason else 'largest'})" if "est size" in reason else str(status)


def _exponent(a: Interval) -> dict[str, str]:
    return {
        name: f"{x:.3f}" if math.isfinite(x) else ""
        for name, x in zip(("a", "lo", "hi"), (a.value, a.lo, a.hi), strict=True)
    }


def table(folder: Path) -> pd.DataFrame:
    """Fit all settings by all methods."""
    runs = pd.concat([porian(folder), marin(folder)], ignore_index=True)
    rows = []
    for sizes, chosen in (("all", runs), ("near", near(runs))):
        for curve in CURVES:
            rows += exponents(chosen, fit_study(chosen, skills=["loss"], aggregates=[], curve=curve), sizes=sizes)
    frame = pd.DataFrame(rows).astype({"bracketed": "Int64"})
    return frame.sort_values(["setting", "sizes", "method"], ignore_index=True)


def main() -> None:
    """Compute, write and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tables", type=Path, default=Path(os.environ.get("SKILLSCALE_TABLES") or SHARED_TABLES))
    rows = table(parser.parse_args().tables)
    RESULTS.mkdir(exist_ok=True)
    rows.to_csv(RESULTS / "published_isoflops.csv", index=False)
    print(rows.to_string(index=False))


if __name__ == "__main__":
    main()
