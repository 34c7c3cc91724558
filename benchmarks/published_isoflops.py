"""Exponents a of N* ~ C^a from isoFLOP sweeps that others published, by each method, with 90 % intervals.

    python benchmarks/published_isoflops.py [--tables FOLDER]

prints the table and keeps it in benchmarks/results/published_isoflops.csv (minutes). FOLDER holds porian_isoflop.csv
and marin_isoflop.csv (by default $SKILLSCALE_TABLES, or ../shared/data beside the checkout).

Porian et al. 2024 (arXiv 2406.19146): 15 settings of data, tuning, warm-up and what N counts; C is nominal and
D = C / 6 N. Their own a, by local interpolation between sizes and all budgets, is about .88 in the setting of Kaplan et
al. and .5 tuned. Here the former lies at .82 to .86 (``near``): N* bends, steeper at small C, where a single size lies
below the optimum, so that most of those minima are refused. With no refusals, each budget alike, the methods give .83
to .88.

Marin: 3 corpora. C is counted operation by operation, and 6 N D misses it by up to 35 % at the smallest sizes, whose
embedding and head are most of N. So N is taken three ways: as the operations a token costs (``N=C/6D``), as the
parameters with the D that the budget leaves (``N=params D=C/6N``), and both as they are (``N=params``), where the fit
leaves out, and counts as ``unusable``, the runs that miss their budget by more than a tenth. What N counts moves a more
than the method does; an analysis of the same family of runs by Open-Athena has .39 (parabolas, N=params).

``sizes``: ``all`` of a budget, or ``near``: within 8x of its best run. Sweeps as wide as these (up to +-50x) reach
losses at which no low polynomial holds, nor a law. Choosing by the best run leans a little on its luck.

``law_minus_curve``: mean of ln N* by the law less ln N* by the curve; ``disagree``: budgets where the interval of that
difference misses 0.
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
BESIDE = Path(__file__).parents[2] / "shared" / "data"
SETTING = ["table", "dataset", "hparams", "warmup", "decay", "param_count", "loss_kind"]
NEAR = 8.0


def porian(folder: Path) -> pd.DataFrame:
    """The runs of the 15 settings; the setting is the mix."""
    runs = pd.read_csv(folder / "porian_isoflop.csv")
    mix = runs[SETTING].astype(str).agg(" ".join, axis=1)
    return _study(mix=mix, C=runs["flops"], N=runs["params"], D=runs["tokens"], loss=runs["loss"])


def marin(folder: Path) -> pd.DataFrame:
    """The runs of the 3 corpora, by each count of N and D."""
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
    """The runs within ``NEAR`` times the size of the best of their budget."""
    best = runs.loc[runs.groupby(["mix", "C"])["loss"].transform("idxmin"), "N"].to_numpy()
    return runs[np.abs(np.log(runs["N"] / best)) <= math.log(NEAR) + 1e-9]


def exponents(runs: pd.DataFrame, fits: StudyResults, *, sizes: str) -> list[dict[str, object]]:
    """One row a setting of one method, and one of the law beside it where the method is the default."""
    found = []
    for law, fit in zip(fits.power_laws, fits.laws, strict=True):
        minima = [m for m in fits.minima if m.mix == law.mix]
        beside = [f.disagreement for f in fits.curve_versus_law if f.mix == law.mix]
        mine = runs[runs["mix"] == law.mix]["run_id"]
        common = {
            "setting": law.mix,
            "sizes": sizes,
            "runs": len(mine),
            "unusable": len({u.run_id for u in fits.excluded} & set(mine)),
        }
        refused = Counter(_short(m.status, m.reason) for m in minima if m.status is not Status.OK)
        found.append(
            common
            | {"method": fits.curve}
            | _exponent(law.a)
            | {"bracketed": law.n_budgets, "refused": "; ".join(f"{count} {why}" for why, count in refused.items())}
            | {"law_minus_curve": f"{np.mean([d.value for d in beside]):+.3f}" if beside else ""}
            | {"disagree": f"{sum(d.excludes_zero for d in beside)} of {len(beside)}"}
        )
        if fits.curve == CURVES[0]:
            found.append(common | {"method": "law"} | _exponent(fit.a) | {"refused": fit.reason})
    return found


def _short(status: Status, reason: str) -> str:
    """A refusal in a few words."""
    return f"{status} ({'smallest' if 'smallest' in reason else 'largest'})" if "est size" in reason else str(status)


def _exponent(a: Interval) -> dict[str, str]:
    return {
        name: f"{x:.3f}" if math.isfinite(x) else ""
        for name, x in zip(("a", "lo", "hi"), (a.value, a.lo, a.hi), strict=True)
    }


def table(folder: Path) -> pd.DataFrame:
    """All settings by all methods."""
    runs = pd.concat([porian(folder), marin(folder)], ignore_index=True)
    found = []
    for sizes, chosen in (("all", runs), ("near", near(runs))):
        for curve in CURVES:
            found += exponents(chosen, fit_study(chosen, skills=["loss"], aggregates=[], curve=curve), sizes=sizes)
    rows = pd.DataFrame(found).astype({"bracketed": "Int64"})
    return rows.sort_values(["setting", "sizes", "method"], ignore_index=True)


def main() -> None:
    """Compute, keep and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tables", type=Path, default=Path(os.environ.get("SKILLSCALE_TABLES") or BESIDE))
    found = table(parser.parse_args().tables)
    RESULTS.mkdir(exist_ok=True)
    found.to_csv(RESULTS / "published_isoflops.csv", index=False)
    print(found.to_string(index=False))


if __name__ == "__main__":
    main()
