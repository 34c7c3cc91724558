"""The answer of a fit: what to train for a budget, how far that is from the runs, and what to run next."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from skillscale.laws.optimum.identification import FurtherRun
from skillscale.laws.optimum.optimum import Optimum
from skillscale.laws.results import Interval, Status


@dataclass(frozen=True, kw_only=True)
class Answer:
    """The numbers of the answer. Everything that shows an answer takes them from here.

    ``optimum``: of equally weighted skills. ``losses``: of each skill at its N. ``named_budget``: whether the user
    named C; otherwise it is 10 times the largest run. ``held_out``: mean relative error of each skill on larger runs
    that were held out; empty where this was not tested. ``next_runs``: what ``suggest`` says; empty where it was not
    computed. ``doubts``: number of doubts by skill. ``source``: options that name the runs to a command.
    """

    mix: str = ""
    optimum: Optimum
    losses: Mapping[str, Interval]
    level: float
    named_budget: bool = False
    held_out: Mapping[str, float] = field(default_factory=dict)
    next_runs: tuple[FurtherRun, ...] = ()
    doubts: Mapping[str, int] = field(default_factory=dict)
    source: str = ""

    @property
    def refusal(self) -> str:
        """Why there is no size to train; empty where there is one."""
        if self.optimum.identification.prior_decides:
            return self.optimum.identification.reason
        if self.optimum.status in (Status.OK, Status.ON_BOUND) and math.isfinite(self.optimum.N.value):
            return ""
        return self.optimum.reason or str(self.optimum.status)

    @property
    def mean_error(self) -> float:
        """Mean relative error on held-out larger runs; NaN where it was not tested."""
        return math.fsum(self.held_out.values()) / len(self.held_out) if self.held_out else math.nan
