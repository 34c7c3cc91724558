"""What is best for skills of a given worth, as text for the terminal and as plain values for ``--json``."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from skillscale.laws.optima import Optimum, ValidationEffect
from skillscale.laws.results import Interval, Residual
from skillscale.laws.worth import Worth
from skillscale.report.numbers import compact, count, percent
from skillscale.report.tables import aligned


def plain_worth(found: Mapping[str, Sequence[Worth]], convention: str) -> list[dict[str, Any]]:
    """What ``fit --worth --json`` prints under ``optima``: one object a compute (and named mix); null is unknown.

    Args:
        found: by the name of the mix whose runs were fitted, empty where all were at once.
        convention: of N.
    """
    return [
        {"runs_of": mix, "convention": convention, **_plain(one)} for mix, several in found.items() for one in several
    ]


def _plain(one: Worth) -> dict[str, Any]:
    optimum = one.optimum
    return {
        **_of_optimum(optimum),
        "worth": dict(optimum.weights),
        "mix": {name: share.value for name, share in optimum.mix.items()},
        "residuals": {each.skill: _of_residual(each) for each in one.residuals},
        "equal_weights": None if one.equal is None else _of_effect(one.equal),
        "best_mix": None if one.best is None else _of_best(one.best),
    }


def _of_optimum(one: Optimum) -> dict[str, Any]:
    return {
        "flops": one.C, "n_params": one.N.value, "interval": _ends(one.N), "n_tokens": one.D.value,
        "loss": one.loss.value, "loss_interval": _ends(one.loss),
        "losses": {name: {"loss": loss.value, "interval": _ends(loss)} for name, loss in one.losses.items()},
        "status": str(one.status), "reason": one.reason,
    }  # fmt: skip


def _of_best(one: Optimum) -> dict[str, Any]:
    shares = {name: {"share": share.value, "interval": _ends(share)} for name, share in one.mix.items()}
    starts = None if one.starts is None else {"tried": one.starts.tried, "agree": one.starts.agree}
    return {**_of_optimum(one), "mix": shares, "starts": starts}


def _of_residual(one: Residual) -> dict[str, Any]:
    """``value``: ln N*(skill) - ln N* of the worth."""
    return {
        "value": one.value.value, "interval": _ends(one.value), "p": one.p, "verdict": str(one.verdict),
        "status": str(one.status), "reason": one.reason,
    }  # fmt: skip


def _of_effect(one: ValidationEffect) -> dict[str, Any]:
    """``shift``: in ln N; ``cost``: nats per token; ``compute``: share of C that makes up for it."""
    told = {name: getattr(one, name) for name in ("shift", "cost", "compute", "largest")}
    plain: dict[str, Any] = {name: {"value": each.value, "interval": _ends(each)} for name, each in told.items()}
    return {**plain, "extremes": list(one.extremes), "status": str(one.status), "reason": one.reason}


def _ends(value: Interval) -> list[float]:
    return [value.lo, value.hi]


def worth_text(found: Mapping[str, Sequence[Worth]], convention: str, level: float) -> str:
    """Tables for the terminal: the optimum of each compute, each skill's residual, the best mix; then what is odd."""
    blocks = ["\n".join(_block(mix, several, convention)) for mix, several in found.items() if several]
    return "\n\n".join([*blocks, f"In brackets: {100 * level:.3g} % intervals."])


def _block(mix: str, several: Sequence[Worth], convention: str) -> list[str]:
    weights = " + ".join(f"{weight:.3g} {name}" for name, weight in several[0].optimum.weights.items() if weight)
    counted = f" N: {convention}." if convention else ""
    lines = [
        f"worth: {weights}{f' on {mix}' if mix else ''}.{counted} By equal weights: N if all skills weighed alike."
    ]
    lines += _table(
        ["C", *(compact(one.optimum.C) for one in several)],
        ["N*", *(_size(one.optimum.N) for one in several)],
        ["D*", *(_size(one.optimum.D) for one in several)],
        ["loss", *(_loss(one.optimum.loss) for one in several)],
        ["N by equal weights", *(_ratio(one.equal.shift) if one.equal else "" for one in several)],
        ["cost, % of C", *(_cost(one.equal.compute) if one.equal else "" for one in several)],
    )
    names = [one.skill for one in several[0].residuals]
    residuals = [
        [f"residual at {compact(one.optimum.C)}", *(_ratio(each.value) for each in one.residuals)] for one in several
    ]
    lines += ["", *_table(["skill", *names], *residuals)]
    best = [(one.optimum.C, one.best) for one in several if one.best is not None]
    if best:
        names = ["best mix", *best[0][1].mix, "N*", "loss"]
        told = [
            [f"at {compact(C)}", *(_share(share) for share in each.mix.values()), _size(each.N), _loss(each.loss)]
            for C, each in best
        ]
        lines += ["", *_table(names, *told)]
    return lines + [f"at {C}: {reason}" for C, reason in dict.fromkeys(_notes(several)) if reason]


def _notes(several: Sequence[Worth]) -> list[tuple[str, str]]:
    """What is to be known at each compute: of the optima, and why a residual is not told."""
    notes = []
    for one in several:
        C = compact(one.optimum.C)
        notes += [(C, each.reason) for each in (one.optimum, one.best) if each]
        notes += [(C, f"residual of {each.skill}: {each.reason}") for each in one.residuals if not each.value.known]
    return notes


def _table(*columns: list[str]) -> list[str]:
    return aligned([column for column in columns if any(column[1:])])


def _size(value: Interval) -> str:
    if not math.isfinite(value.value):
        return "none"
    return (
        f"{count(value.value, 2)} [{count(value.lo, 2)}, {count(value.hi, 2)}]"
        if value.known
        else count(value.value, 2)
    )


def _loss(value: Interval) -> str:
    return f"{value.value:.4g} [{value.lo:.4g}, {value.hi:.4g}]" if value.known else f"{value.value:.4g}"


def _share(value: Interval) -> str:
    return f"{value.value:.2f} [{value.lo:.2f}, {value.hi:.2f}]" if value.known else f"{value.value:.2f}"


def _ratio(value: Interval) -> str:
    """A difference of logarithms, signed, in per cent."""
    told, lo, hi = (percent(number) for number in (value.value, value.lo, value.hi))
    return f"{told} [{lo}, {hi}]".replace(" %", "") + " %" if value.known else told


def _cost(value: Interval) -> str:
    return f"{100 * value.value:.2g} [{100 * value.lo:.2g}, {100 * value.hi:.2g}]" if value.known else "–"
