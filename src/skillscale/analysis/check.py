"""Check a table or a study before any fit: what its columns are, and what its runs can and can't determine."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from skillscale.analysis.fit_laws import data_by_skill
from skillscale.formatting import JsonObject, format_count, format_flops, format_number, join_first, plural
from skillscale.laws.selection.selection import ineligible_reason
from skillscale.tables import RunTable
from skillscale.tables.read import LoadedRuns, exclusion_lines

_FEW_RUNS = 12  # independent runs below which the noise is hardly known
_LEAST_LEVELS = 3  # sizes, and numbers of tokens, that a law in N and D needs
_NARROW = 3.0  # spread of D about a power law of N, as a factor, below which N and D are confounded


@dataclass(frozen=True, kw_only=True)
class TableCheck:
    """What the runs of a table or a study are.

    Args:
        facts: Words by what they describe.
        problems: What the runs can't determine, each with its cure.
        notes: Notes of the table on what is odd.
        excluded: Reasons of what is excluded.
    """

    facts: Mapping[str, str]
    problems: tuple[str, ...]
    notes: tuple[str, ...]
    excluded: tuple[str, ...]

    def text(self) -> str:
        """Return the check for a person."""
        width = max(map(len, self.facts))
        lines = [f"{name:<{width}}  {words}" for name, words in self.facts.items()]
        lines += [f"note: {note}" for note in self.notes]
        lines += list(self.excluded)
        lines += [f"problem: {problem}" for problem in self.problems] or ["No problem found."]
        return "\n".join(lines)

    def as_dict(self) -> JsonObject:
        """Return the check as plain values."""
        return {
            "facts": dict(self.facts), "problems": list(self.problems), "notes": list(self.notes),
            "excluded": list(self.excluded),
        }  # fmt: skip


def check_runs(runs: LoadedRuns) -> TableCheck:
    """Describe the runs, and say what they can't determine.

    Args:
        runs: The runs of a table or a study.
    """
    table = runs.table
    return TableCheck(
        facts=_facts(runs), problems=tuple(_problems(runs)), notes=table.notes,
        excluded=tuple(line for line in exclusion_lines(runs) if not line.startswith("note: ")),
    )  # fmt: skip


def _facts(runs: LoadedRuns) -> dict[str, str]:
    """Return what the runs are, by heading."""
    rows, table = runs.table.runs, runs.table
    points = rows.groupby(["N", "D", "mix"], sort=False).size()
    of_size = rows.groupby("N")["D"].nunique()
    return {
        "runs": f"{rows['cluster'].nunique()} ({plural(len(rows), 'row')}, {len(points)} distinct N, D and mix, "
        f"{int((points > 1).sum())} of them more than once)",
        "N": f"{plural(len(of_size), 'size')}, {_span(rows['N'])}",
        "D": f"{_span(rows['D'])}, {_range(of_size)} a size",
        "C": f"{format_flops(float((6 * rows['N'] * rows['D']).min()), 2)} to "
        f"{format_flops(float((6 * rows['N'] * rows['D']).max()), 2)} FLOP (6 N D)",
        "D/N": f"{format_number(float((rows['D'] / rows['N']).min()), 2)} to "
        f"{format_number(float((rows['D'] / rows['N']).max()), 2)}",
        "mixes": _mixes(table),
        "losses": join_first([f"{name} {int(rows[name].notna().sum())}" for name in table.skills], 12),
        "isoFLOP": "most runs lie at budgets with 4 sizes or more" if runs.has_isoflops else "no isoFLOP study",
    }


def _mixes(table: RunTable) -> str:
    count = int(table.runs["mix"].nunique())
    if table.categories:
        return f"{count}, shares of {join_first(list(table.categories), 8)}"
    return f"{count} names, each with separate laws" if count > 1 else "one"


def _span(values: "pd.Series[float]") -> str:
    low, high = float(values.min()), float(values.max())
    return f"{format_count(low, 3)} to {format_count(high, 3)}" if high > low else format_count(low, 3)


def _range(counts: "pd.Series[int]") -> str:
    low, high = int(counts.min()), int(counts.max())
    return str(low) if low == high else f"{low} to {high}"


def _problems(runs: LoadedRuns) -> Iterator[str]:
    """Yield what the runs can't determine, with what to add. Mixes that share a problem share its line."""
    places: dict[str, list[str]] = {}
    for mix, group in runs.groups.items():
        for problem in _problems_of_group(group):
            places.setdefault(problem, []).append(mix)
    for problem, mixes in places.items():
        yield f"{join_first(mixes)}: {problem}" if len(runs.groups) > 1 else problem


def _problems_of_group(table: RunTable) -> Iterator[str]:
    yield from _problems_of_design(table.runs)
    skills: dict[str, list[str]] = {}
    for name, data in data_by_skill(table).items():
        if reason := ineligible_reason(data):
            skills.setdefault(reason, []).append(name)
    yield from (f"{join_first(names)}: {reason}" for reason, names in skills.items())


def _problems_of_design(rows: pd.DataFrame) -> Iterator[str]:
    n_runs = int(rows["cluster"].nunique())
    if n_runs < _FEW_RUNS:
        yield f"only {plural(n_runs, 'run')}: {_FEW_RUNS} or more determine the noise. Add runs."
    n_sizes, n_levels = rows["N"].nunique(), rows["D"].nunique()
    if n_sizes < _LEAST_LEVELS:
        yield f"only {plural(n_sizes, 'size')}: a law needs {_LEAST_LEVELS} or more. Add sizes."
    if n_levels < _LEAST_LEVELS:
        yield f"only {n_levels} distinct D: a law needs {_LEAST_LEVELS} or more. Train a size on others."
    if min(n_sizes, n_levels) < _LEAST_LEVELS:
        return
    x, y = np.log(rows["N"].to_numpy(dtype=float)), np.log(rows["D"].to_numpy(dtype=float))
    spread = math.exp(float(np.ptp(y - np.polyval(np.polyfit(x, y, 1), x))))
    if spread < _NARROW:
        yield (
            f"D follows N up to a factor of {format_number(spread, 2)}, so the runs can't separate their effects. "
            "Train one size on a tenth and on ten times the tokens."
        )
