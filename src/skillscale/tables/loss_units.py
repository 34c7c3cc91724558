"""Units of losses (per token, byte, character or word) and tokenizers, which one study should not mix."""

import math
from collections.abc import Iterator, Mapping, Sequence

import pandas as pd

from skillscale.formatting import join_first
from skillscale.tables.column_hints import is_tokenizer_name
from skillscale.tables.column_map import ColumnMap
from skillscale.tables.metric_names import name_parts
from skillscale.tables.rows import Mask, SourceRows, cell_text

_PER = {
    "byte": {"byte", "bytes", "bpb"}, "character": {"char", "chars", "character", "characters", "bpc"},
    "word": {"word", "words"},
}  # fmt: skip
_IN_BITS = {"bits", "bit", "bpb", "bpc"}
_NEAR = math.log(1.5)  # in ln N and ln D: runs whose losses are compared
_OTHER_UNIT = math.log(1.35)  # bits are 1.44 nats, and a token has some 4 bytes
_FEWEST = 3
_MOST = 300  # rows of each table that are compared


def loss_unit(columns: ColumnMap, skill: str) -> str:
    """Return the unit of a skill's losses by the name of its column, as ``nats per byte``; empty: nothing says it."""
    parts = set(name_parts(columns.skills[skill].loss))
    per = next((what for what, words in _PER.items() if parts & words), "")
    is_named = bool(parts & (_IN_BITS | {"nats", "per", "nll", "perplexity", "ppl", "loss"}))
    if not per or not is_named:
        return ""
    in_bits = bool(parts & _IN_BITS) and not math.isclose(columns.unit("skills", skill), math.log(2), rel_tol=1e-6)
    return f"{'bits' if in_bits else 'nats'} per {per}"


def mixed_units(columns: ColumnMap, skills: Sequence[str]) -> Iterator[str]:
    """Yield a note where the skills of a table have several units."""
    units: dict[str, list[str]] = {}
    for skill in skills:
        units.setdefault(loss_unit(columns, skill) or "nats per token", []).append(skill)
    if len(units) > 1:
        listed = "; ".join(f"{unit}: {join_first(names)}" for unit, names in units.items())
        yield f"skills have several units by their names, so their losses and means of them do not compare ({listed})"


def tokenizers(rows: SourceRows, usable: Mask) -> tuple[str, ...]:
    """Return the tokenizers of the rows, or the sizes of their vocabularies, as the table names them."""
    for name in map(str, rows.cells.columns):
        if is_tokenizer_name(name):
            cells = rows.cells[name].to_numpy()[usable]
            return tuple(dict.fromkeys(f"{name} {cell_text(cell)}" for cell in cells if pd.notna(cell)))
    return ()


def mixed_tokenizers(names: Sequence[str], columns: ColumnMap, skills: Sequence[str]) -> Iterator[str]:
    """Yield a note where rows have several tokenizers and a loss is per token."""
    per_token = [skill for skill in skills if not loss_unit(columns, skill)]
    if len(names) > 1 and per_token:
        yield (
            f"rows have {len(names)} tokenizers ({join_first(list(names))}), whose losses per token do not compare: "
            f"{join_first(per_token)}. Select one by where, or use losses per byte"
        )


def level_notes(runs: pd.DataFrame, others: pd.DataFrame, skills: Sequence[str]) -> Iterator[str]:
    """Yield notes on skills whose losses differ between two tables at about equal N and D, as units do."""
    for skill in skills:
        if skill not in runs or skill not in others:
            continue
        ratio = _level(_logs(runs, skill), _logs(others, skill))
        if abs(ratio) > _OTHER_UNIT:
            yield (
                f"losses of {skill} are {math.exp(ratio):.2g} times those of the study at about equal N and D: do they "
                "have another unit or tokenizer? If so, import them into another study"
            )


def _logs(runs: pd.DataFrame, skill: str) -> pd.DataFrame:
    """Return the mix, and ln of N, D and the loss, of the first runs."""
    kept = runs.loc[runs[skill] > 0, ["mix", "N", "D", skill]].head(_MOST)
    logs = kept[["N", "D", skill]].map(math.log).set_axis(["N", "D", "loss"], axis=1)
    return logs.assign(mix=kept["mix"].astype(str))


def _level(logs: pd.DataFrame, others: pd.DataFrame) -> float:
    """Return the median difference in ln L of the rows that have a neighbour in mix, N and D, 0 where few have."""
    ratios = []
    for N, D, loss, mix in logs.itertuples(index=False):
        same_mix = others[others["mix"] == mix]
        near = same_mix[(same_mix["N"].sub(N).abs() < _NEAR) & (same_mix["D"].sub(D).abs() < _NEAR)]
        if len(near):
            ratios.append(loss - float(near["loss"].median()))
    return float(pd.Series(ratios).median()) if len(ratios) >= _FEWEST else 0.0


def unit_differs(units: Mapping[str, str], others: Mapping[str, str]) -> str:
    """Return how the units of a common skill differ, or nothing."""
    for skill in units.keys() & others.keys():
        if units[skill] != others[skill]:
            words = [unit or "no unit by its name" for unit in (others[skill], units[skill])]
            return f"{skill} in {words[0]}, and now in {words[1]}"
    return ""
