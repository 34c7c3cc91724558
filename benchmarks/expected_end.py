"""Replay a finished study: the end that ``watch`` would have predicted at shares of its time, over the true end.

    python benchmarks/expected_end.py TRACKING_URI STUDY

The progress of runs under way is not stored, so these predictions rest on finished runs alone.
"""

import argparse
from dataclasses import replace

from skillscale.execution.status import StudyStatus
from skillscale.tracking import PlannedPoint, StudyStore

SHARES = (0.1, 0.25, 0.5, 0.75, 0.9)


def point_at(point: PlannedPoint, now_s: float) -> PlannedPoint:
    """Return a point as it was at a moment."""
    if point.end_ms / 1000 <= now_s:
        return point
    is_running = point.claimed_ms / 1000 <= now_s
    return replace(point, status="RUNNING" if is_running else "", owner="worker" if is_running else "", end_ms=0)


def main() -> None:
    """Print a line for each share."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tracking", help="address of the tracking store")
    parser.add_argument("study", help="name of the study")
    args = parser.parse_args()
    points = StudyStore.open(args.tracking, create=False).study(args.study).planned()
    start_s, end_s = min(point.claimed_ms for point in points) / 1000, max(point.end_ms for point in points) / 1000
    print(f"{args.study}: {len(points)} runs in {end_s - start_s:.0f} s")
    for share in SHARES:
        now_s = start_s + share * (end_s - start_s)
        status = StudyStatus(
            study=args.study, now_s=now_s, began_s=start_s, points=tuple(point_at(point, now_s) for point in points),
            alive=frozenset({"worker"}),
        )  # fmt: skip
        expected_s = status.expected_end_s
        text = "unknown" if expected_s is None else f"{(expected_s - start_s) / (end_s - start_s):.2f}"
        print(f"  at {share:.2f} of the time: {text}")


if __name__ == "__main__":
    main()
