"""Columns that a column map does not name, but whose names say what they hold: FLOP, and tokenizers."""

from skillscale.runs.metric_names import name_parts

_FLOPS = frozenset({"flops", "flop", "totalflops", "trainflops", "trainingflops", "computeflops", "flopstotal"})
_TOKENIZERS = frozenset({"tokenizer", "tokenizers", "tokeniser", "vocab", "vocabsize", "vocabulary"})


def is_hint(name: str) -> bool:
    """Return whether a column is read although the column map does not name it, to check the others by it."""
    return is_flops_name(name) or is_tokenizer_name(name)


def is_flops_name(name: str) -> bool:
    """Return whether a column holds the FLOP of a run by its name."""
    return "".join(name_parts(name.rpartition("/")[2])) in _FLOPS


def is_tokenizer_name(name: str) -> bool:
    """Return whether a column names the tokenizer of a run, or the size of its vocabulary."""
    parts = name_parts(name.rpartition("/")[2].rpartition(".")[2])
    return bool(set(parts) & _TOKENIZERS) and not set(parts) - _TOKENIZERS - {"name", "size", "n", "model", "config"}
