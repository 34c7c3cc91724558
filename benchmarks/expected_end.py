"""Replay a study that was trained: the end that ``watch`` would have told at shares of its time, over the true one.

Usage: python benchmarks/expected_end.py TRACKING_URI STUDY. Of runs under way their shares are not known any more, so
that what is told here rests on the runs that ended alone.
"""

import sys
from dataclasses import replace

from skillscale.execution.status import StudyStatus
from skillscale.tracking import PlannedPoint, StudyStore

SHARES = (0.1, 0.25, 0.5, 0.75, 0.9)


def at(one: PlannedPoint, now_s: float) -> PlannedPoint:
    """A point as it was at a moment."""
    if one.end_ms / 1000 <= now_s:
        return one
    begun = one.claimed_ms / 1000 <= now_s
    return replace(one, status="RUNNING" if begun else "", owner="worker" if begun else "", end_ms=0)


def main(uri: str, name: str) -> None:
    """Print a line for each share."""
    points = StudyStore.open(uri, create=False).study(name).planned()
    began, ended = min(one.claimed_ms for one in points) / 1000, max(one.end_ms for one in points) / 1000
    print(f"{name}: {len(points)} runs in {ended - began:.0f} s")
    for share in SHARES:
        now_s = began + share * (ended - began)
        then = tuple(at(one, now_s) for one in points)
        standing = StudyStatus(study=name, now_s=now_s, began_s=began, points=then, alive=frozenset({"worker"}))
        end = standing.expected_end_s
        told = "not known" if end is None else f"{(end - began) / (ended - began):.2f}"
        print(f"  at {share:.2f} of the time: {told}")


if __name__ == "__main__":
    main(*sys.argv[1:])
