"""Log runs as the training script of somebody else does, into the MLflow store that is named, with planted losses."""

import random
import sys

from make import BATCH, SIZES, STEPS, loss
from mlflow.entities import Metric, Param
from mlflow.tracking import MlflowClient


def write(uri: str, experiment: str = "sweep") -> None:
    """Sixteen runs that finished, and two that did not.

    N, the data and the seed are params, D and the losses metrics, of which each has several values.
    """
    client = MlflowClient(uri)
    experiment_id = client.create_experiment(experiment)
    grid = [(model, step, "FINISHED") for model in SIZES for step in STEPS]
    for number, (model, step, status) in enumerate(
        [*grid, ("tiny-1b", 4_000, "FAILED"), ("tiny-1b", 2_000, "RUNNING")]
    ):
        settings = {"n_params": SIZES[model], "data": "c4", "seed": number % 2, "lr": 0.001}
        run = client.create_run(experiment_id, run_name=f"{model}-{step}").info.run_id
        evaluations = [each for at in (step // 2, step) for each in _evaluation(at, SIZES[model])]
        params = [Param(name, str(value)) for name, value in settings.items()]
        client.log_batch(run, metrics=evaluations, params=params)
        if status != "RUNNING":
            client.set_terminated(run, status)


def _evaluation(step: int, n_params: int) -> list[Metric]:
    tokens = step * BATCH
    values = {"tokens": tokens} | {f"eval/{skill}/loss": loss(skill, n_params, tokens) for skill in ("code", "prose")}
    values["train/loss"] = loss("prose", n_params, tokens) + random.Random(step).gauss(0, 0.05)
    return [Metric(name, value, timestamp=1740000000000 + step, step=step) for name, value in values.items()]


if __name__ == "__main__":
    write(sys.argv[1])
