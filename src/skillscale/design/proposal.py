"""What a design answers: runs to make next and why, what they would bring, and whether to go on at all."""

from dataclasses import dataclass, field
from enum import StrEnum

from skillscale.design.targets import TargetEstimates


class Purpose(StrEnum):
    """Why a run is proposed: to begin with, by the plan, to fill a gap, or to measure the noise again."""

    START = "start"
    PLAN = "plan"
    FILL = "fill"
    REPLICATE = "replicate"


class StopReason(StrEnum):
    """Why no run is proposed any more; ``exhausted``: all that may be run has been, as often as it may."""

    PRECISE = "precise"
    SPENT = "spent"
    EXHAUSTED = "exhausted"
    WORTHLESS = "worthless"


@dataclass(frozen=True, kw_only=True)
class Proposal:
    """One run to make: N, D and shares; why, what it costs, and what it is expected to bring.

    ``fall``: by which share each target's interval is expected to narrow through this run alone, by target's name.
    """

    N: float = field(metadata={"unit": "parameters"})
    D: float = field(metadata={"unit": "tokens"})
    h: tuple[float, ...] = ()
    cost: float = field(metadata={"unit": "FLOP, overhead included"})
    purpose: Purpose
    fall: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Recommendation:
    """The next runs, what is known now, and what the whole remaining budget is expected to bring.

    ``ending``: why there is nothing to propose; ``expected``: the widest half width when the budget is spent by plan;
    ``to_halve``: FLOPs that halving the widest interval is expected to take, infinite where no budget does;
    ``laws``: weight of each law in the belief, by skill; ``warnings``: what the data say against the laws.
    """

    proposals: tuple[Proposal, ...]
    answer: TargetEstimates | None = None
    ending: StopReason | None = None
    expected: float | None = None
    to_halve: float | None = field(default=None, metadata={"unit": "FLOP"})
    laws: dict[str, dict[str, float]] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
