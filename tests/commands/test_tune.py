import json
import math
from dataclasses import replace

import numpy as np
import optuna
import pandas as pd
import pytest
import small_study
from optuna.storages import InMemoryStorage
from optuna.trial import TrialState
from test_session import registry

from skillscale import config
from skillscale.cli import main
from skillscale.errors import TrainingError
from skillscale.execution import tuning
from skillscale.execution.tuning import refit
from skillscale.point import DesignPoint, Mix

TRUE = {"a": -0.25, "b": 0.15, "c": 0.02, "batch": 3.0, "slope": 0.4}


def trials(points, noise=0.0):
    """Losses with a planted optimum: ln loss = 0.05 (ln lr / best)^2 + 0.03 (ln batch / best)^2 + noise."""
    rng = np.random.default_rng(3)
    rows = []
    for N, D in points:
        lr = TRUE["c"] * N ** TRUE["a"] * D ** TRUE["b"]
        batch = TRUE["batch"] * D ** TRUE["slope"]
        for u, v in rng.uniform(-1, 1, (14, 2)):
            loss = 4 * math.exp(0.05 * u**2 + 0.03 * v**2 + noise * rng.standard_normal())
            rows.append({"N": N, "D": D, "lr": lr * math.exp(u), "batch_tokens": batch * math.exp(v), "loss": loss})
    return pd.DataFrame(rows)


def test_a_planted_rule_is_recovered_from_four_corners():
    refitted = refit(trials([(2e3, 3e6), (1e5, 6e4), (6e3, 3e7), (4e5, 4e5)]), config.load().train)
    assert refitted["lr_params_exponent"] == pytest.approx(TRUE["a"], abs=1e-6)
    assert refitted["lr_tokens_exponent"] == pytest.approx(TRUE["b"], abs=1e-6)
    assert refitted["lr_coefficient"] == pytest.approx(TRUE["c"], rel=1e-4)
    assert refitted["batch_tokens_exponent"] == pytest.approx(TRUE["slope"], abs=1e-6)
    assert refitted["batch_coefficient"] == pytest.approx(TRUE["batch"], rel=1e-4)


def test_two_corners_keep_the_exponents_and_refit_the_coefficient():
    rule = replace(config.load().train, lr_params_exponent=TRUE["a"], lr_tokens_exponent=TRUE["b"])
    refitted = refit(trials([(2e3, 3e6), (1e5, 6e4)]), rule)
    assert (refitted["lr_params_exponent"], refitted["lr_tokens_exponent"]) == (TRUE["a"], TRUE["b"])
    assert refitted["lr_coefficient"] == pytest.approx(TRUE["c"], rel=1e-4)


def test_noise_of_a_per_cent_moves_the_rule_by_less_than_the_width_of_its_basin():
    refitted = refit(trials([(2e3, 3e6), (1e5, 6e4), (6e3, 3e7), (4e5, 4e5)], noise=0.003), config.load().train)
    at = 2e4 ** refitted["lr_params_exponent"] * 1e6 ** refitted["lr_tokens_exponent"] * refitted["lr_coefficient"]
    assert math.log(at / (TRUE["c"] * 2e4 ** TRUE["a"] * 1e6 ** TRUE["b"])) == pytest.approx(0, abs=0.3)


POINT = DesignPoint(n_params=9000, n_tokens=60_000, mix=Mix({"prose": 1.0}), seed=1)
RULE = {"lr_factor": 1.0, "batch_factor": 1.0}


def searched(monkeypatch, storage, loss, trials=4):
    """A search without training, and the factors that it tried in order. ``loss``: of (lr factor, batch factor)."""
    tried = []

    def stub(point, config, prepared, study, trial, factors):
        tried.append(factors)
        return loss(*factors)

    monkeypatch.setattr(tuning, "_train_trial", stub)
    search = tuning.run_search(
        POINT, config.load(), None, None, storage=storage, trials=trials, progress=lambda text: None
    )
    return search, tried


def bowl(lr, batch):
    return 3 + math.log(lr) ** 2 + math.log(batch) ** 2


def test_a_search_killed_in_its_first_trial_tries_the_rule_again(monkeypatch):
    storage = InMemoryStorage()
    killed = optuna.create_study(study_name=POINT.key, storage=storage)
    killed.enqueue_trial(RULE)
    trial = killed.ask()
    trial.suggest_float("lr_factor", 0.1, 10, log=True)
    search, tried = searched(monkeypatch, storage, bowl)
    assert tried[0] == (1, 1)
    assert tried.count((1, 1)) == 1
    assert len(tried) == 4
    assert tuning.tuning_point(POINT, search).rule_loss == 3
    assert search.get_trials(states=(TrialState.RUNNING,))  # left to the process that may still have it


def test_the_rule_that_waits_is_not_asked_for_twice(monkeypatch):
    storage = InMemoryStorage()
    optuna.create_study(study_name=POINT.key, storage=storage).enqueue_trial(RULE)
    _, tried = searched(monkeypatch, storage, bowl)
    assert tried.count((1, 1)) == 1


def test_a_search_without_the_rule_tries_it_though_enough_trials_have_ended(monkeypatch):
    storage = InMemoryStorage()
    optuna.create_study(study_name=POINT.key, storage=storage).optimize(
        lambda trial: math.fsum(trial.suggest_float(name, 0.5, 2, log=True) for name in RULE), 5
    )
    search, tried = searched(monkeypatch, storage, bowl)
    assert tried == [(1, 1)]
    assert tuning.tuning_point(POINT, search).trials == 6


def test_more_trials_go_on_with_the_search_and_draw_new_factors(monkeypatch):
    storage = InMemoryStorage()
    _, first = searched(monkeypatch, storage, bowl, trials=3)
    _, then = searched(monkeypatch, storage, bowl, trials=5)
    assert len(then) == 2
    assert len({*first, *then}) == 5


def test_trials_that_diverge_count_so_that_a_search_ends(monkeypatch):
    search, tried = searched(monkeypatch, InMemoryStorage(), lambda lr, batch: 3.0 if lr == 1 else None)
    assert len(tried) == 4
    assert tuning.tuning_point(POINT, search).excess == 0
    assert len(tuning.trials_table(POINT, search_with_attributes(search))) == 1


def search_with_attributes(search):
    for trial in search.get_trials(deepcopy=False):
        trial.user_attrs.update(n_params_nonembed=5000, lr=1e-3, batch_tokens=512)
    return search


def test_a_rule_that_diverges_stops_the_search_now_and_the_next_time(monkeypatch):
    storage = InMemoryStorage()
    with pytest.raises(TrainingError, match="lr_coefficient"):
        searched(monkeypatch, storage, lambda lr, batch: None)
    trained = []
    with pytest.raises(TrainingError, match="lr_coefficient"):
        searched(monkeypatch, storage, lambda lr, batch: trained.append(lr))
    assert not trained


def test_tune_searches_a_size_goes_on_with_more_trials_and_records_them(tmp_path, capsys):
    words = ["tune", *small_study.write(tmp_path), "--cache", str(tmp_path / "cache"), "--json"]
    words += ["--n_params", "9000", "--n_tokens", "60000"]
    assert main([*words, "--trials", "3"]) == 0
    first = json.loads(capsys.readouterr().out)
    assert first["corners"][0]["trials"] == 3
    assert first["corners"][0]["excess"] >= 0
    assert set(first["rule"]) >= {"lr_coefficient", "batch_coefficient"}
    assert main([*words, "--trials", "4"]) == 0
    streams = capsys.readouterr()
    assert json.loads(streams.out)["corners"][0]["trials"] == 4
    assert streams.err.count("learning rate x") == 2  # the one new trial, and the best of all
    study = registry(tmp_path).study("small")
    store = study._store
    runs = store.search([study.study_experiment_id])
    assert [run.data.tags["skillscale.kind"] for run in runs].count("trial") == 4
    tunes = [run for run in runs if run.data.tags["skillscale.kind"] == "tune"]
    tables = [store.read_text(run.info.run_id, "trials.csv").splitlines() for run in tunes]
    assert [len(lines) - 1 for lines in tables] == [3, 4]
    assert tables[1][:4] == tables[0]
