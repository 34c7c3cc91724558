"""The GPU benchmark runs on a CPU at its smallest size, resumes, and writes only what it measured."""

import importlib.util
from pathlib import Path

import pandas as pd
import pytest
import torch

PATH = Path(__file__).parents[2] / "benchmarks" / "gpu_speed.py"
SMALL = ["--device", "cpu", "--sizes", "1e4", "--compile", "off", "--checkpoint", "false", "--precision", "32-true"]
SMALL += ["--context", "16", "--vocab_size", "300", "--tokens", "32", "--seconds", "0.01"]


@pytest.fixture
def benchmark():
    spec = importlib.util.spec_from_file_location("gpu_speed", PATH)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_rows_that_are_there_are_not_measured_again_and_failures_are(benchmark, monkeypatch, tmp_path, capsys):
    calls = []

    def measured(case, seconds):
        calls.append((case.n_params, case.workers, case.checkpoint))
        if case.checkpoint and len(calls) < 5:
            raise RuntimeError("CUDA out of memory")
        values = {"n_exact": 1000, "first_s": 1.0, "tokens_per_s": 5e3, "flops_per_token": 7000, "memory_gb": 0.5}
        return [benchmark.WorkerResult(machine="a GPU", peak_tflops=1e-3, **values)] * case.workers

    monkeypatch.setattr(benchmark, "run_workers", measured)
    words = [*SMALL, "--checkpoint", "false,true", "--workers", "1,4", "--out", str(tmp_path / "new" / "rows.csv")]
    assert benchmark.main([*words, "--sizes", "1e3"]) == 0
    assert calls == [(1e3, 1, False), (1e3, 4, False), (1e3, 1, True)]
    assert "failed: CUDA out of memory" in capsys.readouterr().out
    assert benchmark.main([*words, "--sizes", "1e3,1e9"]) == 0  # a large model has the GPU alone
    assert calls[3:] == [(1e3, 1, True), (1e9, 1, False), (1e9, 1, True)]
    rows = pd.read_csv(tmp_path / "new" / "rows.csv", keep_default_na=False)
    assert len(rows) == 5
    four = rows[(rows.n_params == 1e3) & (rows.workers == 4)].iloc[0]
    assert float(four.tokens_per_s) == 4 * 5e3
    assert float(four.share_6nd) == pytest.approx(6 * 1000 * 2e4 / 1e9)
    assert float(four.points_per_hour) == pytest.approx(3600 * 2e4 / 20_000)


def test_without_a_gpu_nothing_is_measured(benchmark, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert benchmark.main(["--out", str(tmp_path / "rows.csv")]) == 1
    assert "no CUDA device, so nothing is measured" in capsys.readouterr().out
    assert list(tmp_path.iterdir()) == []


def test_the_smallest_row_is_measured_on_a_cpu(benchmark, tmp_path, capsys):
    assert benchmark.main([*SMALL, "--workers", "1", "--out", str(tmp_path / "rows.csv")]) == 0
    row = pd.read_csv(tmp_path / "rows.csv", keep_default_na=False).iloc[0]
    assert row.failed == ""
    assert 0 < row.share_6nd < 1
    assert 1 < row.tokens_per_s < 1e9


@pytest.mark.slow
def test_two_workers_start_together_and_their_rates_add_up(benchmark, tmp_path):
    assert benchmark.main([*SMALL, "--workers", "2", "--out", str(tmp_path / "rows.csv")]) == 0
    row = pd.read_csv(tmp_path / "rows.csv", keep_default_na=False).iloc[0]
    assert (row.failed, row.workers) == ("", 2)
