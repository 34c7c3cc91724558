"""The record goes into the registry and comes back equal; the study keeps its settings."""

import dataclasses
import json
import math
import os
import shutil
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest
from skillscale.config import Config, load
from skillscale.errors import InputError, TrackingError
from skillscale.point import DesignPoint, Mix
from skillscale.record import (
    CategoryUse,
    DataSet,
    Measurement,
    Optimisation,
    Provenance,
    RunRecord,
    Size,
    Spending,
    State,
    budget_label,
    metrics_of,
    params_of,
    read_record,
)
from skillscale.tracking import Registry, RunWriter

SIZE = Size(
    n_params=20_480, n_params_nonembed=12_288, n_params_embed=8_192, depth=1, width=16, n_heads=1, vocab_size=512,
    context=256,
)  # fmt: skip
OPTIMISATION = Optimisation(lr=0.0123456789012345678, batch_sequences=4, steps=999, warmup_steps=50)
PROVENANCE = Provenance(config_hash="c0ffee", data_hash="da7a", code_version="0.1.0+abc")
SPENDING = Spending(flops_exact=1.23456789e11, tokens_per_s=54321.5, matmul_share=0.31, train_s=3.2, eval_s=0.4)
DATA = (
    DataSet(name="code", digest="0123456789abcdef" * 4, role="training", source="embedded:code"),
    DataSet(name="arithmetic", digest="feed", role="evaluation", source="embedded:arithmetic"),
)


def measured(loss: float) -> Measurement:
    return Measurement(loss=loss, sem=loss / 7, bpb=loss * 1.1, count=321, tokens=4567)


RESULTS = {
    "spending": SPENDING,
    "sets": {"arithmetic": measured(1.7), "mmlu/anatomy": measured(2.0), "val/code": measured(3.1)},
    "skills": {"reasoning": measured(1.7)},
    "skills_held_out": {"reasoning": measured(1.9)},
    "uses": {"code": CategoryUse(tokens=123_456, epochs=0.25), "prose": CategoryUse(tokens=7, epochs=1e-5)},
    "exposures": 3.5,
}


def point(n_params: int = 20_480, seed: int = 0) -> DesignPoint:
    return DesignPoint(n_params=n_params, n_tokens=1_302_083, mix=Mix({"code": 1 / 3, "prose": 2 / 3}), seed=seed)


def begin(writer: RunWriter) -> None:
    writer.begin(size=SIZE, optimisation=OPTIMISATION, provenance=PROVENANCE, config_yaml="a: 1\n", data=DATA)


@pytest.fixture(scope="session")
def empty_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with its schema: making one takes a second, copying it nothing."""
    path = tmp_path_factory.mktemp("store") / "mlflow.db"
    Registry.open(f"sqlite:///{path}")
    return path


@pytest.fixture
def registry(empty_store: Path, tmp_path: Path) -> Registry:
    shutil.copy(empty_store, tmp_path / "mlflow.db")
    return Registry.open(f"sqlite:///{tmp_path}/mlflow.db", cache=tmp_path / "cache")


@pytest.fixture(scope="session")
def config() -> Config:
    return load(study="smoke")


def test_a_record_written_reads_back_equal_in_every_field(registry, config):
    study = registry.open_study("one", config)
    study.add_points([point()])
    with study.claim() as writer:
        begin(writer)
        for tokens in (1000, 2000, 3000):
            writer.curve(tokens, 6.0 - tokens / 1000)
        written = writer.finish(**RESULTS)

    (read,) = registry.study("one").records()

    assert read == written
    expected = RunRecord(
        run_id=writer.run_id, study="one", state=State.FINISHED, reason="", point=point(), size=SIZE,
        optimisation=OPTIMISATION, provenance=PROVENANCE, **RESULTS,
    )  # fmt: skip
    for field in dataclasses.fields(RunRecord):
        assert getattr(read, field.name) == getattr(expected, field.name), field.name
    assert study.curve(read.run_id) == [(1000, 5.0), (2000, 4.0), (3000, 3.0)]
