"""Fits that are kept: equal to fresh ones, made anew where a file is damaged, and bounded in size."""

import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import skillscale as ss
from skillscale.analysis import fit_laws, kept_fits
from skillscale.laws.io.value_file import ValueFileError, digest, from_bytes, to_bytes
from skillscale.laws.results import Interval, Status


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache without fits."""
    monkeypatch.setenv("SKILLSCALE_CACHE", str(tmp_path))
    return tmp_path / "fits"


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The fits that are made, one entry each."""
    made: list[str] = []
    fit = fit_laws._fit_laws
    monkeypatch.setattr(fit_laws, "_fit_laws", lambda *job: (made.append("laws"), fit(*job))[1])
    return made


def _runs() -> pd.DataFrame:
    N, D = (values.ravel() for values in np.meshgrid(np.geomspace(1e7, 1e9, 5), np.geomspace(1e9, 1e11, 4)))
    noise = np.random.default_rng(0).normal(0, 0.003, (2, len(N)))
    losses = [(e + 400 / N**0.34 + 410 / D**0.28) * np.exp(error) for e, error in zip((1.7, 2.0), noise, strict=True)]
    return pd.DataFrame({"n_params": N, "n_tokens": D, "loss_code": losses[0], "loss_prose": losses[1]})


def _answer(runs: pd.DataFrame, law: str = "chinchilla") -> str:
    laws = ss.fit(ss.runs(runs), law=law, settings={"laws.bootstrap": "laplace", "study.resamples": 200})
    return f"{laws.results.as_dict()!r} {laws.results.law_json()} {laws.results.all_notes}"


@pytest.mark.parametrize("law", ["chinchilla", ""])
def test_the_second_fit_is_read_and_equals_the_first_to_the_last_digit(
    folder: Path, counted: list[str], law: str
) -> None:
    assert _answer(_runs(), law) == _answer(_runs(), law)
    assert counted == ["laws"]
    assert folder.stat().st_mode & 0o777 == 0o700


def test_other_runs_options_and_programs_are_fitted_anew(
    folder: Path, counted: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = _runs()
    _answer(runs)
    runs.loc[3, "loss_code"] *= 1.0001
    _answer(runs)
    _answer(runs, "farseer")
    monkeypatch.setattr(kept_fits, "program_digest", lambda: "another")
    _answer(runs)
    assert len(counted) == 4


def test_a_damaged_file_is_made_anew(folder: Path, counted: list[str]) -> None:
    first = _answer(_runs())
    for path in folder.iterdir():
        path.write_bytes(path.read_bytes()[:-200])
    assert _answer(_runs()) == first
    assert _answer(_runs()) == first
    assert len(counted) == 2


def test_a_folder_that_cannot_be_written_costs_only_time(
    tmp_path: Path, counted: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv("SKILLSCALE_CACHE", str(tmp_path / "file"))
    assert _answer(_runs()) == _answer(_runs())
    assert len(counted) == 2


def test_the_least_recently_used_fits_go_first(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept_fits, "LIMIT", 5000)
    for at in range(4):
        kept_fits.kept_fit(tuple, at, lambda: (np.zeros(200),))
        for path in folder.iterdir():
            os.utime(path, (path.stat().st_atime, path.stat().st_mtime - 10))
    made: list[int] = []
    for at in (3, 0):
        kept_fits.kept_fit(tuple, at, lambda at=at: made.append(at) or (np.zeros(200),))
    assert made == [0]


def test_values_come_back_as_they_were() -> None:
    shared = Interval(value=0.1 + 0.2, lo=-np.inf)
    frame = pd.DataFrame({"run": ["a", None], "N": [1.5, np.nan], "seed": [1, 2]}, index=[4, 7])
    value = {("a", 1): (shared, shared), "status": Status.OK, "scalar": np.float64(0.1), "set": frozenset("ab"),
             "array": np.asfortranarray(np.arange(6.0).reshape(2, 3)), "runs": frame}  # fmt: skip
    read = from_bytes(to_bytes(value))
    pair = read["a", 1]
    assert repr(pair[0]) == repr(shared)
    assert pair[0] is pair[1]
    assert read["status"] is Status.OK
    assert (read["scalar"], read["set"]) == (0.1, frozenset("ab"))
    assert read["array"].flags.f_contiguous
    np.testing.assert_array_equal(read["array"], value["array"])
    pd.testing.assert_frame_equal(read["runs"], frame)
    assert digest(value) == digest(read)


@pytest.mark.parametrize("name", ["os:system", "skillscale.laws.results:math", "skillscale.config.schema:LawConfig"])
def test_a_file_cannot_name_another_class(name: str) -> None:
    content = to_bytes(Interval()).replace(b"skillscale.laws.results:Interval", name.encode().ljust(32))
    with pytest.raises(ValueFileError):
        from_bytes(content)


def test_objects_of_other_kinds_are_not_written() -> None:
    with pytest.raises(ValueFileError, match="cannot be written"):
        to_bytes([object()])
