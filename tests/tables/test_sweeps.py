"""Hyperparameter sweeps: they are found with and without columns, and the best setting of each point can be fitted."""

import numpy as np
import pandas as pd
import pytest

from skillscale.tables import make_run_table, parse_columns

MAP = {"n_params": "N", "n_tokens": "D", "skills": ["loss"]}


def law(N, D):
    return 1.8 + 480 * N**-0.35 + 2100 * D**-0.37


def sweep(rates=5, batches=1, noise=0.002, seeds=1, shift=0.0, curvature=0.03, rng=0):
    """Three sizes by four durations, each with a grid of settings about a best one that moves with N."""
    rng = np.random.default_rng(rng)
    rows = []
    for N in (3e7, 1e8, 3e8):
        for D in (1e9, 3e9, 9e9, 27e9):
            for lr in np.geomspace(1e-4, 1e-2, rates):
                for batch in 2.0 ** np.arange(6, 6 + batches):
                    for seed in range(seeds):
                        u = np.log(lr / 1e-3) + 0.2 * np.log(N / 1e8) + shift
                        v = np.log(batch / 2**7) if batches > 1 else 0.0
                        above = curvature * (u * u + 0.3 * u * v + v * v)
                        row = {"N": N, "D": D + 1e3 * batch, "lr": lr, "batch": batch, "seed": seed}
                        rows.append(row | {"loss": law(N, D) * np.exp(above + noise * rng.standard_normal())})
    return pd.DataFrame(rows)


def read(frame, **more):
    return make_run_table(frame, parse_columns({**MAP, **more}))


@pytest.mark.parametrize("names", [("lr", "batch"), ("optim/lr", "train.global_batch_size"), ("LearningRate", "bs")])
def test_a_sweep_is_named_by_its_columns_in_one_line(names):
    frame = sweep(rates=5, batches=4).rename(columns=dict(zip(("lr", "batch"), names, strict=True)))
    (note,) = read(frame).notes
    assert f"20 settings ({', '.join(names)}) at each of 12 points (N, D, mix): the law is of their mean" in note
    assert note.endswith(f"Add best_of: [{', '.join(names)}] to the column map")
    assert len(read(frame).runs) == len(frame)


@pytest.mark.parametrize("shift", [0.0, 0.7])
def test_a_sweep_without_columns_is_seen_by_its_losses(shift):
    frame = sweep(shift=shift).drop(columns=["lr", "batch", "seed"]).sample(frac=1, random_state=1)
    (note,) = read(frame).notes
    assert note.startswith("5 rows that differ only in losses at each of 12 points (N, D, mix)")
    assert "add seed: COLUMN" in note


def test_settings_in_the_order_of_their_rows_are_seen_without_columns():
    """Four settings, symmetric about the best: losses have no skew, and points scatter as seeds would."""
    frame = sweep(rates=1, seeds=4)
    frame["loss"] *= np.exp(np.where(frame["seed"] % 3, 0.005, 0.045))
    frame["loss"] *= np.exp(np.repeat(np.random.default_rng(0).normal(0, 0.02, 12), 4))
    (note,) = read(frame[["N", "D", "loss"]]).notes
    assert note.startswith("4 rows that differ only in losses at each of 12 points")


@pytest.mark.parametrize("noise", [0.001, 0.003, 0.02])
@pytest.mark.parametrize("drop", [[], ["seed"]])
def test_seeds_are_no_sweep(noise, drop):
    for rng in range(3):
        frame = sweep(rates=1, seeds=5, noise=noise, rng=rng).drop(columns=["lr", "batch", *drop])
        assert read(frame).notes == ()
        assert len(read(frame).runs) == 60


def test_settings_that_differ_only_between_points_are_no_sweep():
    frame = sweep(rates=1).assign(lr=lambda rows: 1e-3 * (rows["N"] / 1e8) ** -0.3)
    assert read(frame).notes == ()


def test_rows_of_several_data_sets_ask_for_the_mix():
    frame = pd.concat(
        [sweep(rates=1).assign(dataset="a"), sweep(rates=1).assign(dataset="b", loss=lambda r: 1.1 * r["loss"])]
    )
    (note,) = read(frame).notes
    assert note.endswith("Add mix: dataset to the column map")
    assert read(frame, mix="dataset").notes == ()


@pytest.mark.parametrize(("best_of", "batches"), [(["lr"], 1), (["lr", "batch"], 4)])
def test_the_best_of_each_point_has_no_selection_bias(best_of, batches):
    """The lowest of the losses is too low by more than a standard error, and the corrected one is not."""
    off, lowest = [], []
    for rng in range(20):
        frame = sweep(rates=9, batches=batches, noise=0.01, curvature=0.004, rng=rng)
        runs = read(frame, best_of=best_of).runs
        assert len(runs) == 12
        truth = np.log(law(runs["N"], runs["D"].round(-8)))
        off.append(float((np.log(runs["loss"]) - truth).mean()))
        raw = np.log(frame.assign(D=frame["D"].round(-8)).groupby(["N", "D"])["loss"].min().to_numpy())
        lowest.append(float((raw - truth.to_numpy()).mean()))
    error = np.std(off) / np.sqrt(len(off))
    assert np.mean(lowest) < -0.004
    assert abs(np.mean(off)) < max(3 * error, 0.002)


def test_seeds_of_a_setting_are_averaged_and_a_kind_of_setting_is_chosen():
    frame = sweep(seeds=3).assign(optimizer="adam")
    worse = sweep(seeds=3).assign(optimizer="sgd", loss=lambda rows: 1.05 * rows["loss"])
    runs = read(pd.concat([frame, worse]), best_of=["lr", "optimizer"], seed="seed").runs
    assert len(runs) == 12
    truth = law(runs["N"], runs["D"].round(-8))
    assert np.abs(np.log(runs["loss"] / truth)).max() < 0.006


def test_runs_that_went_wrong_do_not_move_the_best():
    for rng in range(5):
        frame = sweep(rates=9, noise=0.002, rng=rng)
        wrong = np.random.default_rng(rng).random(len(frame)) < 0.1
        frame.loc[wrong, "loss"] *= np.random.default_rng(rng).uniform(1.03, 3, int(wrong.sum()))
        runs = read(frame, best_of=["lr"]).runs
        assert np.abs(np.log(runs["loss"] / law(runs["N"], runs["D"].round(-8)))).max() < 0.01


def test_rows_without_a_setting_and_settings_of_two_values_are_kinds():
    frame = sweep(rates=9)
    frame.loc[4, "lr"] = np.nan
    both = pd.concat([frame.assign(wd=0.0), frame.assign(wd=0.1, loss=1.02 * frame["loss"])])
    for mapping in ({"best_of": ["lr"]}, {"best_of": ["lr", "wd"]}):
        table = read(both if "wd" in mapping["best_of"] else frame, **mapping)
        assert [note for note in table.notes if "too few" in note or "last that was tried" in note] == []
        assert np.abs(np.log(table.runs["loss"] / law(table.runs["N"], table.runs["D"].round(-8)))).max() < 0.01


def test_a_random_search_without_columns_is_seen():
    rng = np.random.default_rng(0)
    frame = sweep(rates=1, seeds=8)
    frame["loss"] *= np.exp(0.015 * rng.uniform(-2, 2, len(frame)) ** 2)
    (note,) = read(frame[["N", "D", "loss"]]).notes
    assert note.startswith("8 rows that differ only in losses at each of 12 points")


def test_a_best_setting_at_the_edge_is_counted():
    table = read(sweep(shift=3.0), best_of=["lr"])
    assert any("at 12 of 12 points the best setting is the last that was tried" in note for note in table.notes)
    assert not any("last that was tried" in note for note in read(sweep(), best_of=["lr"]).notes)


def test_points_with_too_few_settings_keep_their_lowest_loss():
    frame = sweep(rates=2)
    table = read(frame, best_of=["lr"])
    assert any("12 of 12 points have too few settings" in note for note in table.notes)
    assert sorted(table.runs["loss"]) == pytest.approx(sorted(frame.groupby(["N", "D"])["loss"].min()), rel=1e-12)


def test_a_point_of_one_row_stays_as_it_is():
    frame = pd.concat([sweep(), pd.DataFrame([{"N": 1e9, "D": 5e10, "lr": 1e-3, "batch": 64, "loss": 2.2}])])
    runs = read(frame, best_of=["lr"]).runs
    assert runs.loc[runs["N"] == 1e9, "loss"].tolist() == [pytest.approx(2.2, rel=1e-12)]
