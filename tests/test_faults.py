"""Studies that are disturbed end with every point finished once, or failed with a reason, and with the same law."""

import shutil

import pytest
from fault_drills import DRILLS, Scene, disturbed, points
from test_tracking import empty_store  # noqa: F401  # a fixture

QUICK = ("worker_killed", "woken_late", "disk_full", "clocks_apart", "artifacts_down")


@pytest.mark.parametrize(
    "name", [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in DRILLS]
)
def test_nothing_is_lost_or_doubled_and_the_law_is_the_same(name, empty_store, tmp_path):  # noqa: F811
    shutil.copy(empty_store, tmp_path / "runs.db")
    scene = Scene(tmp_path)

    outcome = disturbed(name, scene)

    assert outcome.is_whole, f"{outcome}\n{scene.logs()}"
    assert outcome.finished == len(points())
