"""The effect of some runs on the intervals, and its cost."""

import math
from dataclasses import dataclass, field

import numpy as np

from skillscale.design.model_averaging import UNINFORMED_HALF_WIDTH
from skillscale.design.targets import TargetEstimates
from skillscale.formatting import JsonObject, format_flops, format_percent
from skillscale.laws.forms.nd import Array


@dataclass(frozen=True, kw_only=True)
class WidthChange:
    """A half width, in ln N, before some runs and after them."""

    before: float
    after: float

    @property
    def narrowing(self) -> float:
        """Share by which the interval is narrower, below 0 where it is wider."""
        return 1 - self.after / self.before

    def text(self, flops: float) -> str:
        """Return a text as in ``x/÷ 1.9 before, x/÷ 1.7 now: 18 % narrower, 11 % per 1e12 FLOP``."""
        direction = "narrower" if self.narrowing >= 0 else "wider"
        text = f"x/÷ {math.exp(self.before):.3g} before, x/÷ {math.exp(self.after):.3g} now"
        if flops <= 0:
            return text
        unit = 10.0 ** math.floor(math.log10(flops))
        share = abs(self.narrowing)
        rate = format_percent(share * unit / flops)
        return f"{text}: {format_percent(share)} {direction}, {rate} per {format_flops(unit)} FLOP"


@dataclass(frozen=True, kw_only=True)
class IntervalReduction:
    """The intervals of the same targets before and after ``n_runs`` runs.

    ``flops``: 6 N D of those runs. ``flops_before``: 6 N D of the runs before them.
    """

    before: TargetEstimates
    after: TargetEstimates
    n_runs: int
    flops: float = field(metadata={"unit": "FLOP"})
    flops_before: float = field(metadata={"unit": "FLOP"})

    @property
    def widest(self) -> WidthChange:
        """Change of the widest interval, which may be another one afterwards."""
        return WidthChange(before=float(_half_widths(self.before).max()), after=float(_half_widths(self.after).max()))

    @property
    def mean(self) -> WidthChange:
        """Change of the mean over all targets."""
        return WidthChange(before=float(_half_widths(self.before).mean()), after=float(_half_widths(self.after).mean()))

    @property
    def expected(self) -> float:
        """Share by which this much compute narrows intervals if their width scales as 1/sqrt(FLOP)."""
        return 1 - math.sqrt(self.flops_before / (self.flops_before + self.flops))

    def lines(self) -> list[str]:
        """Return the changes for a person."""
        lines = [
            f"  widest of {len(self.before.targets)} {format_percent(self.before.level)} intervals of N* and ratios: "
            f"{self.widest.text(self.flops)}",
            f"  mean: {self.mean.text(self.flops)}",
        ]
        if self.flops > 0:
            lines.append(
                "  (for comparison: if interval width scales as 1/sqrt(FLOP), this much compute narrows intervals by "
                f"{format_percent(self.expected)})"
            )
        return lines

    def as_dict(self) -> JsonObject:
        """Return the changes as plain values."""
        changes = {"widest": self.widest, "mean": self.mean}
        return {
            "runs": self.n_runs,
            "flops": self.flops,
            "flops_before": self.flops_before,
            "level": self.before.level,
            **{
                name: {
                    "before": change.before, "after": change.after, "fall": change.narrowing,
                    "fall_per_flop": change.narrowing / self.flops if self.flops else None,
                }
                for name, change in changes.items()
            },
            "expected_fall": self.expected,
        }  # fmt: skip


def _half_widths(estimates: TargetEstimates) -> Array:
    """Return half widths, (n_targets,), cut where an interval carries no information: a narrower one is no gain."""
    return np.fmin(estimates.half_widths, UNINFORMED_HALF_WIDTH)
