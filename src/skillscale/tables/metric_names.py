"""What a metric is by its name: a loss, a perplexity, or a score that rises with training."""

import re
from enum import StrEnum

_PARTS = re.compile(r"[a-z]+[0-9]*|[0-9]+")
_CAMEL = re.compile(r"(?<=[a-z])(?=[A-Z])")
_SEGMENTS = re.compile(r"[/.:|]")
_LOSSES = frozenset({"loss", "losses", "nll", "nlls", "ce", "xent", "crossentropy", "bpb", "bpc", "bits", "nats"})
_LOGARITHMS = frozenset({"log", "ln", "log2", "log10", "logppl", "lnppl", "logperplexity", "lnperplexity"})
_SCORES = frozenset(
    {
        "acc", "accs", "accuracy", "accuracies", "f1", "mc1", "mc2", "mc3", "bleu", "sacrebleu", "chrf", "mcc", "auc",
        "auroc", "auprc", "winrate", "elo",
    }
)  # fmt: skip
_SCORE_PART = re.compile(r"(rouge|bleu).*|.*(acc|accuracy)")
_SCORE_PAIRS = (("exact", "match"), ("win", "rate"), ("pass", "at"), ("pass", "1"), ("pass", "k"))


class MetricKind(StrEnum):
    """What a name says about a metric."""

    LOSS = "loss"
    PERPLEXITY = "perplexity"
    SCORE = "score"
    UNKNOWN = "unknown"


def metric_kind(name: str) -> MetricKind:
    """Return what the name of a column says about its metric, as for ``eval/ppl`` or ``hellaswag/acc_norm,none``.

    The last part of a path decides, and the whole path only if that part says nothing.
    """
    plain = name.partition(",")[0]
    kind = _kind_of(_SEGMENTS.split(plain)[-1])
    return kind if kind is not MetricKind.UNKNOWN else _kind_of(plain)


def _kind_of(text: str) -> MetricKind:
    parts = name_parts(text)
    names = set(parts)
    is_loss = bool(names & _LOSSES) or any(part.endswith("loss") for part in parts) or {"cross", "entropy"} <= names
    is_perplexity = any(part.startswith("perplex") or part.endswith(("ppl", "ppls", "perplexity")) for part in parts)
    is_perplexity = is_perplexity or any(re.fullmatch(r"ppl[a-z0-9]*", part) for part in parts)
    if is_loss and "exp" in names:
        return MetricKind.PERPLEXITY
    if is_perplexity:
        return MetricKind.LOSS if names & _LOGARITHMS else MetricKind.PERPLEXITY
    if is_loss:
        return MetricKind.LOSS
    is_score = bool(names & _SCORES) or any(set(pair) <= names for pair in _SCORE_PAIRS)
    is_score = is_score or any(
        part.startswith(("rouge", "bleu")) or part.endswith(("acc", "accuracy")) for part in parts
    )
    return MetricKind.SCORE if is_score or parts[-1:] == ["em"] else MetricKind.UNKNOWN


def name_parts(name: str) -> list[str]:
    """Return the words of a name in lower case, as ``val``, ``ppl`` for valPPL or val-ppl."""
    return _PARTS.findall(_CAMEL.sub(" ", name).lower())
