"""Numbers that would take all time or memory are refused as they are read."""

import dataclasses

import pytest

from skillscale import config
from skillscale.cli import main
from skillscale.config import readers
from skillscale.errors import InputError
from skillscale.execution.grid import grid_points

TABLE = ("--table", "runs.csv", "--columns", "map.yaml")


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        (
            ("simulate", "--truth", "chinchilla", "--seeds", "1000000000"),
            "--seeds: must be at most 100,000, but it is '1000000000'",
        ),
        (("simulate", "--truth", "chinchilla", "--runs", "1e12"), "--runs: must be at most"),
        (("simulate", "--truth", "chinchilla", "--batch", "1e9"), "--batch: must be at most"),
        (("suggest", *TABLE, "--count", "1e9"), "--count: must be at most 1,000"),
        (("sample", "--points", "1e12"), "--points: must be at most"),
        (("grid", "--workers", "1e9"), "--workers: must be at most"),
        (("tune", "--trials", "1e9"), "--trials: must be at most"),
        (("grid", "--seeds", "1," * 20_000 + "1"), "--seeds: must hold at most 10,000 values, but it has 20,001"),
        (("train", "--n_params", "1e300", "--flops", "1e9"), "--n_params: must be at most"),
        (("fit", *TABLE, "--study.resamples", "1000000000"), "study.resamples"),
        (("grid", "--study.seeds", "[1000000000]"), "study.seeds"),
        (("grid", "--study.sizes", "1000000000"), "study.sizes"),
        (("grid", "--study.seeds", "[" * 1_000), "study.seeds cannot be read"),
        (("fit", *TABLE, "--laws.fix", "9" * 100_000), "a whole number has 100,000 digits"),
    ],
)
def test_a_giant_is_refused_in_one_short_line(words, problem, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(words) == 2
    message = capsys.readouterr().err
    assert problem in message
    assert message.count("\n") == 1
    assert len(message) < 700


def test_a_grid_of_too_many_points_is_refused():
    settings = config.load()
    study = dataclasses.replace(settings.study, seeds=(100_000,))
    with pytest.raises(InputError, match=r"the grid has up to [\d,]+ points, more than 100,000"):
        grid_points(dataclasses.replace(settings, study=study))


def test_limits_admit_what_is_large_and_possible():
    assert readers.count("1e15") == 10**15
    assert readers.count_to(10)("10") == 10
    assert len(readers.list_of(readers.count)(",".join(["1"] * 10_000))) == 10_000
