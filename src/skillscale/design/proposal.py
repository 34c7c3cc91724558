"""The results of a design: proposed runs with their purpose, the current estimates, and a reason to stop."""

from dataclasses import dataclass, field
from enum import StrEnum

from skillscale.design.targets import TargetEstimates


class Purpose(StrEnum):
    """Purpose of a proposed run.

    ``start``: to fill the space before the first plan. ``plan``: by the plan. ``fill``: to fill a gap. ``replicate``:
    to measure the noise again.
    """

    START = "start"
    PLAN = "plan"
    FILL = "fill"
    REPLICATE = "replicate"


class StopReason(StrEnum):
    """Reason to propose no more runs.

    ``precise``: the intervals are narrow enough. ``spent``: the budget is spent. ``exhausted``: every allowed run has
    its allowed number of replicates. ``worthless``: no run is informative enough for its cost.
    """

    PRECISE = "precise"
    SPENT = "spent"
    EXHAUSTED = "exhausted"
    WORTHLESS = "worthless"


@dataclass(frozen=True, kw_only=True)
class Proposal:
    """A run to make: N, D, shares ``h`` and cost, with its purpose and expected effect.

    ``narrowing``: share by which each target's interval should narrow through this run alone, by the target's name.
    """

    N: float = field(metadata={"unit": "parameters"})
    D: float = field(metadata={"unit": "tokens"})
    h: tuple[float, ...] = ()
    cost: float = field(metadata={"unit": "FLOP, overhead included"})
    purpose: Purpose
    narrowing: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Recommendation:
    """The next runs, the current estimates, and the expected effect of the remaining budget.

    ``stop_reason``: why there are no proposals. ``expected_half_width``: widest half width after the budget is spent as
    planned. ``flops_to_halve``: compute that should halve the widest interval, infinite where no budget does.
    ``law_weights``: posterior weight of each law, by skill. ``warnings``: evidence of the runs against the laws.
    """

    proposals: tuple[Proposal, ...]
    estimates: TargetEstimates | None = None
    stop_reason: StopReason | None = None
    expected_half_width: float | None = None
    flops_to_halve: float | None = field(default=None, metadata={"unit": "FLOP"})
    law_weights: dict[str, dict[str, float]] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
