"""The Optuna sampler: Optuna's suites, then seeds, pending runs, other search spaces, limits and mixes."""

import json
import math
import sys
import types
from datetime import timedelta

import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.testing.pytest_samplers import BasicSamplerTestCase, RelativeSamplerTestCase, SingleOnlySamplerTestCase
from optuna.trial import TrialState

from skillscale.design.space import DesignSpace
from skillscale.errors import InputError
from skillscale.point import Mix, coordinates_from_mix, mix_from_coordinates
from skillscale.sampler import PROPOSAL, WHY, SkillLawSampler, draw_widths, is_beyond, stop_when_done

SPACE = {
    "log_n_params": FloatDistribution(math.log(1e6), math.log(1e9)),
    "log_n_tokens": FloatDistribution(math.log(1e7), math.log(1e11)),
}
CATEGORIES = ("code", "prose", "web")
MIXED = {**SPACE, "mix_0": FloatDistribution(0, 1), "mix_1": FloatDistribution(0, 1)}


class Suites(BasicSamplerTestCase, RelativeSamplerTestCase, SingleOnlySamplerTestCase):
    """Optuna's requirements of every sampler of one objective."""


class TestUnknownSpaces(Suites):
    @pytest.fixture
    def sampler(self):
        return lambda: SkillLawSampler(seed=0)


class TestSpacesTakenForRuns(Suites):
    """The suites' parameters as N and D: the design proposes runs where they allow it."""

    @pytest.fixture
    def sampler(self):
        return lambda: SkillLawSampler(names={"log_n_params": "x", "log_n_tokens": "y"}, seed=0)


def loss(log_n, log_d, share=1.0):
    return 1.7 + 400 * math.exp(-0.34 * log_n) + 410 * math.exp(-0.28 * (log_d + math.log(share)))


def run(trial, space=SPACE):
    """Return the loss of the first of two skills at the suggested run."""
    values = {name: trial.suggest_float(name, axis.low, axis.high) for name, axis in space.items()}
    trial.set_user_attr("loss/code", loss(values["log_n_params"], values["log_n_tokens"]))
    trial.set_user_attr("loss/prose", loss(values["log_n_params"] + 0.5, values["log_n_tokens"]))
    trial.set_user_attr("sem/code", 0.01)
    return trial.user_attrs["loss/code"]


def studied(n, *, seed=0, space=SPACE, **settings):
    study = optuna.create_study(sampler=SkillLawSampler(seed=seed, search_space=space, **settings))
    study.optimize(lambda trial: run(trial, space), n_trials=n)
    return study


def runs_of(study):
    return [tuple(trial.params.values()) for trial in study.trials]


@pytest.fixture(autouse=True)
def _quiet():
    optuna.logging.set_verbosity(optuna.logging.WARNING)


def test_the_same_seed_gives_the_same_runs_and_another_one_others():
    assert runs_of(studied(6)) == runs_of(studied(6))
    assert runs_of(studied(6)) != runs_of(studied(6, seed=1))


def test_a_new_sampler_continues_as_the_old_one_would():
    whole, resumed = studied(6), studied(3)
    resumed.sampler = SkillLawSampler(seed=0, search_space=SPACE)
    resumed.optimize(run, n_trials=3)
    assert runs_of(resumed) == runs_of(whole)


def test_running_trials_count_and_no_two_are_alike():
    study = optuna.create_study(sampler=SkillLawSampler(seed=0, search_space=SPACE))
    trials = [study.ask(SPACE) for _ in range(6)]
    assert len({tuple(trial.params.values()) for trial in trials}) == 6


def test_trials_that_began_before_and_still_ask_are_left_their_proposals():
    """Two processes that create their trials before either has asked."""
    study = optuna.create_study(sampler=SkillLawSampler(seed=0, search_space=SPACE))
    numbers = [study._storage.create_new_trial(study._study_id) for _ in range(3)]
    frozen = [study._storage.get_trial(number) for number in numbers]
    late, early = (study.sampler.sample_relative(study, frozen[at], SPACE) for at in (2, 0))
    alone = optuna.create_study(sampler=SkillLawSampler(seed=0, search_space=SPACE))
    in_turn = [alone.ask(SPACE).params for _ in range(3)]
    assert (late, late != early) == (in_turn[2], True)


def test_a_failed_trial_is_not_proposed_again():
    study = optuna.create_study(sampler=SkillLawSampler(seed=0, search_space=SPACE))
    for _ in range(5):
        study.tell(study.ask(SPACE), state=optuna.trial.TrialState.FAIL)
    assert len(set(runs_of(study))) == 5


@pytest.mark.parametrize(
    "space",
    [
        {"n_params": IntDistribution(10**6, 10**9, log=True), "n_tokens": IntDistribution(10**7, 10**11, log=True)},
        {"log10_flops": FloatDistribution(15, 20), "log_ratio": FloatDistribution(0, 7)},
        {"flops": FloatDistribution(1e15, 1e20, log=True), "n_params": FloatDistribution(1e6, 1e9, log=True)},
    ],
    ids="-".join,
)
def test_any_two_quantities_set_a_run(space):
    study = optuna.create_study(sampler=SkillLawSampler(seed=0, search_space=space))
    for _ in range(4):
        trial = study.ask(space)
        assert all(type(value) in (int, float) for value in trial.params.values())
        assert study.trials[-1].system_attrs[PROPOSAL]["params"] == trial.params
        study.tell(trial, 2.0)
    assert len(set(runs_of(study))) == 4


def test_mixes_are_chosen_by_coordinates():
    study = studied(8, space=MIXED, categories=CATEGORIES, least={"code": 0.1})
    mixes = [
        mix_from_coordinates([t.params["mix_0"], t.params["mix_1"]], CATEGORIES, {"code": 0.1}) for t in study.trials
    ]
    assert len(set(mixes)) > 2
    assert min(mix.shares["code"] for mix in mixes) >= 0.1 - 1e-9


def test_limits_hold_from_the_first_trial():
    limits = DesignSpace(flops=(1e15, 1e18), ratio=(5, 100))
    study = optuna.create_study(sampler=SkillLawSampler(seed=0, search_space=SPACE, space=limits))
    study.optimize(run, n_trials=12)
    for n, d in (map(math.exp, run) for run in runs_of(study)):
        assert 1e15 * 0.999 <= 6 * n * d <= 1e18 * 1.001
        assert 5 * 0.999 <= d / n <= 100 * 1.001


def test_limits_that_leave_nothing_of_the_space_are_refused():
    limits = DesignSpace(flops=(1e10, 1e11), n_params=(1e3, 1e4), n_tokens=(1e5, 1e6))
    study = optuna.create_study(sampler=SkillLawSampler(seed=0, search_space=SPACE, space=limits))
    with pytest.raises(ValueError, match="limits"):
        study.ask(SPACE)


def test_without_the_space_beforehand_the_first_trial_is_random_and_the_next_is_chosen():
    study = optuna.create_study(sampler=SkillLawSampler(seed=0))
    study.optimize(run, n_trials=2)
    assert [PROPOSAL in trial.system_attrs for trial in study.trials] == [False, True]
    assert study.trials[1].user_attrs[WHY].startswith("start: ")


def test_other_parameters_are_drawn_beside():
    space = {**SPACE, "optimizer": CategoricalDistribution(["adam", "muon"])}
    study = optuna.create_study(sampler=SkillLawSampler(seed=0, search_space=space))
    trial = study.ask(space)
    assert trial.params["optimizer"] in ("adam", "muon")
    assert set(study.trials[0].system_attrs[PROPOSAL]["params"]) == set(SPACE)


def test_losses_of_other_skills_are_reported_once(caplog):
    studied(3, skills=["code"])
    (message,) = [record.message for record in caplog.records if "are ignored" in record.message]
    assert message == "losses of 'prose' are ignored. The skills of this sampler are code"


def test_a_spent_budget_stops_the_study():
    largest = 6e9 * 1e11
    sampler = SkillLawSampler(seed=0, search_space=SPACE, budget=0.03 * largest)
    study = optuna.create_study(sampler=sampler)
    study.optimize(run, n_trials=40, callbacks=[stop_when_done])
    assert study.trials[-1].system_attrs[PROPOSAL]["ending"] == "spent"
    assert len(study.trials) < 40


@pytest.fixture
def dashboard(monkeypatch):
    """What optuna-dashboard was given to draw, by its id."""
    drawn = {}

    def save(study, figure, *, graph_object_id):
        drawn[graph_object_id] = json.loads(figure.to_json())

    monkeypatch.setitem(sys.modules, "optuna_dashboard", types.SimpleNamespace(save_plotly_graph_object=save))
    return drawn


@pytest.mark.parametrize("workers", [1, 4])
def test_several_workers_spend_no_more_than_the_budget_and_double_no_point(workers):
    largest = 6e9 * 1e11
    limits = DesignSpace(flops=(1e-3 * largest, largest), replicates=1)
    sampler = SkillLawSampler(seed=0, search_space=SPACE, space=limits, budget=0.5 * largest)
    study = optuna.create_study(sampler=sampler)
    ended = False
    while not ended:
        trials = [study.ask(SPACE) for _ in range(workers)]
        for trial in trials:
            ended |= study.trials[trial.number].system_attrs[PROPOSAL]["ending"] is not None
            if not ended:
                study.tell(trial, run(trial, SPACE))
    kept = [n * d * 6 for n, d in (map(math.exp, values) for values in runs_of(study))]
    paid = [flops for flops, trial in zip(kept, study.trials, strict=True) if trial.state is TrialState.COMPLETE]
    assert 0.4 * largest < sum(paid) + len(paid) * 0.01 * largest <= 0.5 * largest * (1 + 1e-6)
    pairs = zip(runs_of(study), study.trials, strict=True)
    made = [values for values, trial in pairs if trial.state is TrialState.COMPLETE]
    assert len(set(made)) == len(made)


def test_two_trials_that_choose_at_the_same_time_choose_different_runs(monkeypatch):
    study = optuna.create_study(sampler=SkillLawSampler(seed=0, search_space=SPACE))
    numbers = [study._storage.create_new_trial(study._study_id) for _ in range(2)]
    first, second = (study._storage.get_trial(number) for number in numbers)
    chosen = study.sampler.sample_relative(study, first, SPACE)
    read, stale = SkillLawSampler._read, iter([([], 0)])  # as it was before the first trial chose its run
    monkeypatch.setattr(SkillLawSampler, "_read", lambda *given: next(stale, None) or read(*given))
    assert study.sampler.sample_relative(study, second, SPACE) != chosen


def test_a_trial_of_a_dead_process_without_a_run_does_not_count():
    study = optuna.create_study(sampler=SkillLawSampler(seed=0, search_space=SPACE))
    dead, mine = (study._storage.get_trial(study._storage.create_new_trial(study._study_id)) for _ in range(2))
    alone = optuna.create_study(sampler=SkillLawSampler(seed=0, search_space=SPACE)).ask(SPACE).params
    assert study.sampler.sample_relative(study, mine, SPACE) != alone
    mine.datetime_start = dead.datetime_start + timedelta(hours=1)
    again = optuna.create_study(sampler=SkillLawSampler(seed=0, search_space=SPACE))
    again._storage.create_new_trial(again._study_id)
    late = again._storage.get_trial(again._storage.create_new_trial(again._study_id))
    late.datetime_start = mine.datetime_start
    assert again.sampler.sample_relative(again, late, SPACE) == alone


def test_a_running_trial_with_all_parameters_is_not_asking():
    """A trial that was queued by hand has no proposal."""
    study = optuna.create_study(sampler=SkillLawSampler(seed=0, search_space=SPACE))
    study.enqueue_trial({name: axis.low for name, axis in SPACE.items()})
    run(study.ask(SPACE))
    alone = optuna.create_study(sampler=SkillLawSampler(seed=0, search_space=SPACE)).ask(SPACE).params
    assert study.ask(SPACE).params == alone


def test_an_objective_can_see_that_its_trial_is_beyond_the_budget():
    def objective(trial):
        loss = run(trial)
        if is_beyond(trial):
            raise optuna.TrialPruned
        return loss

    study = optuna.create_study(sampler=SkillLawSampler(seed=0, search_space=SPACE, budget=0.03 * 6e20))
    study.optimize(objective, n_trials=40, callbacks=[stop_when_done])
    assert [trial.state for trial in study.trials].count(TrialState.PRUNED) == 1
    assert study.trials[-1].state is TrialState.PRUNED


def test_an_exhausted_space_is_reported_and_proposals_stay_within_the_limits():
    limits = DesignSpace(flops=(1e17, 1e17), n_params=(1e6, 1e9), sizes=(2e7, 5e7, 1e8), replicates=1)
    study = optuna.create_study(sampler=SkillLawSampler(seed=0, search_space=SPACE, space=limits, budget=1e21))
    for _ in range(6):
        study.tell(trial := study.ask(SPACE), run(trial, SPACE))
    endings = [trial.system_attrs[PROPOSAL]["ending"] for trial in study.trials]
    assert endings == [None] * 3 + ["exhausted"] * 3
    assert all(6 * math.exp(sum(values)) == pytest.approx(1e17) for values in runs_of(study))


def test_widths_are_drawn_against_the_flops_of_finished_trials(dashboard):
    study = studied(11)
    draw_widths(study, study.trials[-1])
    ((_, figure),) = dashboard.items()
    with_widths = [trial for trial in study.trials if "half_width" in trial.system_attrs[PROPOSAL]]
    spent = [6 * math.exp(sum(trial.params.values())) for trial in study.trials]
    assert [trial.number for trial in with_widths] == [8, 9, 10]
    assert {trace["name"] for trace in figure["data"]} == {
        *(f"ln N*({skill}) at {C:.3g}" for skill in ("code", "prose") for C in (6e21, 6e22)),
        "widest interval, differences included",
    }
    for trace in figure["data"]:
        assert trace["x"] == pytest.approx([sum(spent[:n]) for n in (8, 9, 10)])
    widest = figure["data"][-1]["y"]
    assert widest == [trial.system_attrs[PROPOSAL]["half_width"] for trial in with_widths]


def test_nothing_is_drawn_before_widths_are_known(dashboard):
    draw_widths(studied(3))
    assert dashboard == {}


def test_a_dashboard_that_is_not_installed_is_asked_for(monkeypatch):
    monkeypatch.setitem(sys.modules, "optuna_dashboard", None)
    with pytest.raises(InputError, match="pip install optuna-dashboard"):
        draw_widths(studied(1))


def test_unknown_names_are_refused():
    with pytest.raises(ValueError, match="n_parms"):
        SkillLawSampler(names={"n_parms": "x"})


def test_trials_that_have_ended_are_read_once(monkeypatch):
    from skillscale.sampler import optuna_sampler

    study = studied(5)
    read = []
    kept = optuna_sampler._row
    monkeypatch.setattr(
        optuna_sampler, "_row", lambda trial, parameters: read.append(trial.number) or kept(trial, parameters)
    )
    study.ask(SPACE)
    assert read == [4]


@pytest.mark.parametrize("mix", [{"code": 0.2, "prose": 0.3, "web": 0.5}, {"code": 1.0}, {"web": 1.0}, {"prose": 1.0}])
def test_coordinates_of_a_mix_lead_back_to_it(mix):
    back = mix_from_coordinates(coordinates_from_mix(Mix(mix), CATEGORIES), CATEGORIES)
    assert {name: back.shares.get(name, 0.0) for name in CATEGORIES} == pytest.approx(
        {name: mix.get(name, 0.0) for name in CATEGORIES}, abs=1e-9
    )


def test_even_coordinates_make_mixes_that_are_even_on_the_simplex():
    """Every share then has the mean 1/n and the variance (n - 1) / (n^2 (n + 1)) of an even Dirichlet."""
    import numpy as np

    rng = np.random.default_rng(0)
    drawn = [mix_from_coordinates(rng.random(2).tolist(), CATEGORIES) for _ in range(20_000)]
    shares = np.array([[mix.shares[name] for name in CATEGORIES] for mix in drawn])
    np.testing.assert_allclose(shares.mean(0), 1 / 3, atol=0.006)
    np.testing.assert_allclose(shares.var(0), 2 / 36, atol=0.002)


@pytest.mark.parametrize(
    ("coordinates", "least", "says"),
    [((0.5,), {}, "2 coordinates"), ((0.5, 1.2), {}, "0 to 1"), ((0.5, 0.5), {"code": 0.6, "web": 0.5}, "minimum")],
)
def test_coordinates_that_make_no_mix_are_refused(coordinates, least, says):
    with pytest.raises(ValueError, match=says):
        mix_from_coordinates(coordinates, CATEGORIES, least)
