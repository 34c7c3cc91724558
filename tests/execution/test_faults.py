"""Studies that are disturbed end with every point finished once, or failed with a reason, and with the same law."""

import io
import shutil
from types import SimpleNamespace

import pytest
from fault_drills import DRILLS, Scene, disturbed, free_port, mlflow_server, points, service_killed
from test_tracking import COST, OPTIMIZER_PLAN, SIZE, measured

from skillscale.config import load
from skillscale.errors import DamagedCheckpointError
from skillscale.execution import worker
from skillscale.record import RunState

QUICK = ("worker_killed", "woken_late", "clocks_apart", "artifacts_down")


@pytest.mark.parametrize(
    "name", [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in DRILLS]
)
def test_nothing_is_lost_or_doubled_and_the_law_is_the_same(name, empty_store, tmp_path):
    shutil.copy(empty_store, tmp_path / "runs.db")
    scene = Scene(tmp_path)

    outcome = disturbed(name, scene)

    assert outcome.is_whole, f"{outcome}\n{scene.logs()}"
    assert outcome.finished == len(points())


@pytest.mark.slow
def test_a_server_that_is_killed_twice_loses_nothing(empty_store, tmp_path):
    shutil.copy(empty_store, tmp_path / "server.db")
    port = free_port()
    with mlflow_server(tmp_path, f"sqlite:///{tmp_path}/server.db", port) as service:
        scene = Scene(tmp_path, f"http://127.0.0.1:{port}")
        service_killed(scene, service)
        scene.end()
        outcome = scene.outcome()
    assert outcome.is_whole, f"{outcome}\n{scene.logs()}"
    assert outcome.finished == len(points())


def test_a_torn_checkpoint_is_set_aside_and_the_point_trained_anew(empty_store, tmp_path, monkeypatch):
    from skillscale.lm import run

    def train(recipe, config, prepared, *, checkpoint, **others):
        if checkpoint.exists():
            raise DamagedCheckpointError(f"checkpoint {checkpoint} can't be read")
        result = {
            "sets": {},
            "skills": {"code": measured(2.0)},
            "skills_held_out": {},
            "data_use": {},
            "exposures": None,
        }
        return SimpleNamespace(curve=[(1000, 3.0)], cost=COST, **result)

    monkeypatch.setattr(run, "training_recipe", lambda *args: SimpleNamespace(size=SIZE, optimizer_plan=OPTIMIZER_PLAN))
    monkeypatch.setattr(run, "train_and_measure", train)
    monkeypatch.setattr(worker, "data_sets", lambda prepared: [])
    shutil.copy(empty_store, tmp_path / "runs.db")
    study, log = Scene(tmp_path).study, io.StringIO()
    context = worker.WorkerContext(
        config=load(study="smoke"), prepared=SimpleNamespace(data_hash="da7a"), cache=tmp_path, progress=log.write
    )
    writer = study.claim()
    torn = tmp_path / "checkpoints" / f"{writer.run_id}.pt"
    torn.parent.mkdir()
    torn.write_bytes(b"half a check")

    record = worker.train_claimed(writer, context, study)

    assert (record.state, record.skills["code"].loss) == (RunState.FINISHED, 2.0)
    assert [path.name for path in torn.parent.iterdir()] == [f"{writer.run_id}.damaged"]
    assert "training starts again" in log.getvalue()
