"""How much narrower intervals got through some runs, and what those cost."""

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from skillscale.design.model_averaging import UNINFORMED_HALF_WIDTH
from skillscale.design.targets import TargetEstimates
from skillscale.laws.forms.nd import Array


@dataclass(frozen=True, kw_only=True)
class WidthChange:
    """A half width, in ln N, before some runs and after them."""

    before: float
    after: float

    @property
    def fall(self) -> float:
        """Share by which it is narrower; below 0 where it is wider."""
        return 1 - self.after / self.before

    def told(self, flops: float) -> str:
        """As in ``a factor of 1.9 up or down before, 1.7 now: 18 % narrower, 11 % per 1e+12 FLOP``."""
        way = "narrower" if self.fall >= 0 else "wider"
        text = f"a factor of {math.exp(self.before):.3g} up or down before, {math.exp(self.after):.3g} now"
        if flops <= 0:
            return text
        unit = 10.0 ** math.floor(math.log10(flops))
        share = 100 * abs(self.fall)
        return f"{text}: {share:.2g} % {way}, {share * unit / flops:.2g} % per {unit:.0e} FLOP"


@dataclass(frozen=True, kw_only=True)
class IntervalReduction:
    """The intervals of the same targets before and after ``n_runs`` runs.

    ``flops``: 6 N D of those runs; ``flops_before``: of the runs that were there.
    """

    before: TargetEstimates
    after: TargetEstimates
    n_runs: int
    flops: float = field(metadata={"unit": "FLOP"})
    flops_before: float = field(metadata={"unit": "FLOP"})

    @property
    def widest(self) -> WidthChange:
        """Of the widest interval, which may be another one afterwards."""
        return WidthChange(before=float(_half(self.before).max()), after=float(_half(self.after).max()))

    @property
    def mean(self) -> WidthChange:
        """Of the mean over all targets."""
        return WidthChange(before=float(_half(self.before).mean()), after=float(_half(self.after).mean()))

    @property
    def expected(self) -> float:
        """Share by which more of the same runs would narrow intervals, were their widths to fall as FLOPs^-1/2."""
        return 1 - math.sqrt(self.flops_before / (self.flops_before + self.flops))

    def lines(self) -> list[str]:
        """For a person."""
        told = [
            f"  widest of {len(self.before.targets)} {self.before.level:.0%} intervals of N* and ratios: "
            f"{self.widest.told(self.flops)}",
            f"  in the mean: {self.mean.told(self.flops)}",
        ]
        if self.flops > 0:
            told += [f"  (for so many FLOP more a design narrows its intervals by {100 * self.expected:.2g} %, where "
                     "they go with the root of FLOPs)"]  # fmt: skip
        return told

    def as_dict(self) -> dict[str, Any]:
        """As plain values."""
        changes = {"widest": self.widest, "mean": self.mean}
        return {
            "runs": self.n_runs,
            "flops": self.flops,
            "flops_before": self.flops_before,
            "level": self.before.level,
            **{
                name: {
                    "before": one.before, "after": one.after, "fall": one.fall,
                    "fall_per_flop": one.fall / self.flops if self.flops else None,
                }
                for name, one in changes.items()
            },
            "expected_fall": self.expected,
        }  # fmt: skip


def _half(answer: TargetEstimates) -> Array:
    """Half widths, (n_targets,); to know nothing more exactly is no gain."""
    return np.fmin((answer.hi - answer.lo) / 2, UNINFORMED_HALF_WIDTH)
