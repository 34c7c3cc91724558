"""Near-copies of rows count once, and seeds stay."""

import numpy as np
import pandas as pd
import pytest

from skillscale.tables import make_run_table, parse_columns, read_columns, read_table
from skillscale.tables.write import write_table

MAP = {"n_params": "N", "n_tokens": "D", "skills": ["loss"]}


def law(N, D):
    return 1.8 + 480 * N**-0.35 + 2100 * D**-0.37


def table(copies=1, noise=0.003, jitter=0.0, rng=0, **columns):
    """Twenty points, each seed with its noise, and copies of each row with a jitter."""
    rng = np.random.default_rng(rng)
    rows = [
        {"N": N, "D": N * ratio, "loss": law(N, N * ratio) * np.exp(noise * rng.standard_normal())}
        for N in np.geomspace(2e7, 2e9, 5)
        for ratio in (3, 10, 30, 100)
    ]
    frame = pd.DataFrame(rows * copies)
    frame["loss"] *= np.exp(jitter * rng.standard_normal(len(frame)))
    return frame.assign(**columns)


def read(frame, **more):
    return make_run_table(frame, parse_columns({**MAP, **more}))


@pytest.mark.parametrize("jitter", [1e-9, 1e-7, 1e-5])
@pytest.mark.parametrize("copies", [2, 5])
def test_near_copies_count_once_and_are_counted(jitter, copies):
    frame = table(copies, jitter=jitter)
    runs = read(frame)
    assert runs.runs["loss"].tolist() == frame["loss"][:20].tolist()
    (note,) = runs.notes
    assert note.startswith(f"{20 * (copies - 1)} rows of {20 * copies} are near-copies of others")
    assert {run.reason for run in runs.excluded} == {"near-copy of an earlier row"}
    assert len(runs.excluded) == 20 * (copies - 1)


def test_a_run_exported_twice_under_another_id_or_seed_counts_once():
    frame = pd.concat([table(run=range(20), seed=0), table(run=range(20, 40), seed=1, D=lambda rows: rows["D"] + 7)])
    assert len(read(frame, run="run", seed="seed").runs) == 20
    assert len(read(frame, run="run").runs) == 20


def test_a_few_copies_among_seeds_are_found_in_several_skills():
    seeds = pd.concat([table(rng=rng) for rng in range(3)], ignore_index=True)
    rng = np.random.default_rng(9)
    for name in ("b", "c"):
        seeds[name] = seeds["loss"] * (1.1 + 0.003 * rng.standard_normal(len(seeds)))
    frame = pd.concat([seeds, seeds.iloc[[3]] * (1 + 1e-6)], ignore_index=True)
    assert len(read(seeds, skills=["loss", "b", "c"]).runs) == 60
    everything = read(frame, skills=["loss", "b", "c"])
    assert [run.run_id for run in everything.excluded] == ["row 61"]


def test_copies_may_be_kept_and_an_export_of_them_reads_back(tmp_path):
    frame = pd.concat([table(noise=0.0).assign(seed=seed) for seed in range(2)])  # a trainer that ignores its seed
    kept = read(frame, seed="seed", near_copies="keep")
    assert (len(kept.runs), kept.notes) == (40, ())
    write_table(kept, tmp_path / "runs.csv", tmp_path / "runs.yaml")
    assert len(read_table(tmp_path / "runs.csv", read_columns(tmp_path / "runs.yaml")).runs) == 40


@pytest.mark.parametrize("noise", [0.0005, 0.002, 0.01])
@pytest.mark.parametrize("n_seeds", [2, 5, 20])
def test_seeds_stay(noise, n_seeds):
    for start in range(3):
        frame = pd.concat([table(noise=noise, rng=100 * start + rng) for rng in range(n_seeds)])
        assert (len(read(frame).runs), read(frame).notes) == (20 * n_seeds, ())


def test_many_seeds_of_several_skills_stay():
    rng = np.random.default_rng(0)
    frame = pd.concat([table(noise=0.005, rng=start) for start in range(300)])
    frame["other"] = frame["loss"] * np.exp(0.005 * rng.standard_normal(len(frame)))
    assert len(read(frame, skills=["loss", "other"]).runs) == 6000


def test_one_pair_that_agrees_to_four_digits_alone_is_no_evidence():
    frame = pd.concat([table(), table().iloc[[7]].assign(loss=lambda rows: rows["loss"] * (1 + 5e-5))])
    assert len(read(frame).runs) == 21
    frame = pd.concat([table(), table().iloc[[7]].assign(loss=lambda rows: rows["loss"] * (1 + 5e-8))])
    assert len(read(frame).runs) == 20


def test_rounded_losses_that_agree_are_no_evidence():
    frame = pd.concat([table(rng=rng, noise=0.001).round({"loss": 2}).assign(seed=rng) for rng in range(4)])
    assert (len(read(frame, seed="seed").runs), read(frame, seed="seed").excluded) == (80, ())


def test_settings_with_equal_losses_are_no_copies():
    frame = pd.concat([table(lr=1e-3), table(lr=3e-3, loss=lambda rows: rows["loss"] * (1 + 1e-6))])
    assert len(read(frame).runs) == 40


def test_checkpoints_of_a_run_on_a_flat_curve_are_no_copies():
    D = np.tile(np.linspace(9.99e10, 1e11, 200), 3)
    frame = pd.DataFrame({"N": np.repeat([1e8, 3e8, 1e9], 200), "D": D, "run": np.repeat(["a", "b", "c"], 200)})
    frame["loss"] = law(frame["N"], frame["D"])
    assert len(read(frame, run="run", checkpoints="all").runs) == 600


def test_chinchilla_keeps_its_240_points(tables):
    frame = pd.read_csv(tables / "chinchilla_epoch.csv")
    runs = make_run_table(
        frame,
        parse_columns(
            {"n_params": "params", "n_tokens": "tokens", "skills": ["loss"], "where": {"in_besiroglu_240": 1}}
        ),
    )
    assert (len(runs.runs), runs.excluded) == (240, ())
