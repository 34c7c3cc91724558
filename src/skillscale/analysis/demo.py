"""The demonstration: a table of real runs that comes with the package, and what its laws answer."""

from collections.abc import Iterator
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from skillscale.analysis.backtest import BacktestResults
from skillscale.analysis.load_laws import LoadedLaws
from skillscale.analysis.suggest import Suggestion
from skillscale.errors import InputError
from skillscale.formatting import JsonObject, format_count, format_flops, format_interval, format_number, format_percent
from skillscale.laws.optimum.optimum import Optimum, weighted_optimum
from skillscale.laws.results import Interval
from skillscale.report.tables import align_columns

_TABLE, _LICENCE = "openlm.csv", "openlm.txt"


def copy_table(folder: Path) -> Path:
    """Copy the table of the package into a folder, with the text on its source and licence. Return its path.

    Raises:
        InputError: The folder is a file.
    """
    if folder.exists() and not folder.is_dir():
        raise InputError(f"--out {folder} is a file. Give a folder.")
    folder.mkdir(parents=True, exist_ok=True)
    bundled = resources.files("skillscale.tables") / "bundled"
    for name in (_TABLE, _LICENCE):
        (folder / name).write_bytes((bundled / name).read_bytes())
    return folder / _TABLE


def held_out_text(held_out: BacktestResults) -> str:
    """Return measured and predicted losses of the runs that were held out, and how many intervals hold them."""
    level = format_percent(held_out.level, 3)
    rows = [["skill", "N", "D", "measured", "predicted", f"{level} interval", ""]]
    errors, hits = [], 0
    for skill, table in held_out.predictions.items():
        for row in table.to_dict(orient="records"):
            loss, predicted, lo, hi = (float(row[name]) for name in ("loss", "predicted", "lo", "hi"))
            inside = lo <= loss <= hi
            hits += inside
            errors.append(abs(predicted / loss - 1))
            ends = f"[{format_number(lo, 4)}, {format_number(hi, 4)}]"
            counts = [format_count(float(row[letter])) for letter in ("N", "D")]
            losses = [format_number(value, 4) for value in (loss, predicted)]
            rows.append([skill, *counts, *losses, ends, "inside" if inside else "outside"])
    mean = format_percent(sum(errors) / len(errors))
    return f"{_aligned(rows)}\nMean error {mean}. {hits} of {len(errors)} losses lie inside their interval."


@dataclass(frozen=True, kw_only=True)
class SkillOptima:
    """The best model for a budget.

    Args:
        optimum: Optimum of all skills, with equal weights.
        alone: Optimum of each skill alone.
    """

    optimum: Optimum
    alone: dict[str, Optimum]

    def text(self) -> str:
        """Return the loss and N* of each skill as a table."""
        rows = [["skill", "loss at N*", "N* of this skill alone"]]
        rows += [
            [name, _written(self.optimum.losses[name], digits=4), _counted(optimum.N)]
            for name, optimum in self.alone.items()
        ]
        return _aligned(rows)

    def as_dict(self) -> JsonObject:
        """Return the answer as plain values."""
        return {
            "flops": self.optimum.C, "n_params": _ends(self.optimum.N), "n_tokens": _ends(self.optimum.D),
            "losses": {name: _ends(self.optimum.losses[name]) for name in self.alone},
            "n_params_alone": {name: _ends(optimum.N) for name, optimum in self.alone.items()},
        }  # fmt: skip


def skill_optima(loaded: LoadedLaws, flops: float) -> SkillOptima:
    """Find the best model for a budget, of all skills and of each.

    Args:
        loaded: The laws.
        flops: C, FLOP.
    """
    return SkillOptima(
        optimum=weighted_optimum(loaded.laws, flops, dict.fromkeys(loaded.skills, 1.0)),
        alone={name: weighted_optimum(loaded.laws, flops, {name: 1.0}) for name in loaded.skills},
    )


def next_runs_text(suggestion: Suggestion) -> str:
    """Return the runs that would narrow the intervals most, one line a design point."""
    counts: dict[tuple[float, float], int] = {}
    for point in suggestion.points:
        size = (point.n_params, point.n_tokens)
        counts[size] = counts.get(size, 0) + 1
    return _aligned([["N", "D", "FLOP", "runs"], *_point_rows(counts)])


def _point_rows(counts: dict[tuple[float, float], int]) -> Iterator[list[str]]:
    for (n_params, n_tokens), count in counts.items():
        yield [*map(format_count, (n_params, n_tokens)), format_flops(6 * n_params * n_tokens, 2), str(count)]


def _aligned(rows: list[list[str]]) -> str:
    return "\n".join(line.rstrip() for line in align_columns(list(zip(*rows, strict=True))))


def _written(value: Interval, digits: int) -> str:
    return format_interval(value.value, value.lo, value.hi, lambda number: format_number(number, digits))


def _counted(value: Interval) -> str:
    return format_interval(value.value, value.lo, value.hi, lambda number: format_count(number, 2))


def _ends(value: Interval) -> list[float]:
    return [value.value, value.lo, value.hi]
