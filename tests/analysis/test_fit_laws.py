import json
import math
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from skillscale import config
from skillscale.analysis.background import report_context
from skillscale.analysis.fit_laws import _selection_reason
from skillscale.config.options import SourceOptions
from skillscale.errors import InputError
from skillscale.laws.forms.catalogue import LAWS
from skillscale.laws.selection.extrapolation import PredictionSetting
from skillscale.laws.selection.selection import CandidateLaw, LawSelection, _simplest_best
from skillscale.point import DesignPoint, Mix
from skillscale.record import DataUse, Measurement, ModelSize, OptimizerPlan, RunRecord, RunState
from skillscale.tables.read import AGGREGATE, LoadedRuns, aggregate_weights, nominal_budget, trained_table

SETTINGS = config.load()


def measured(loss):
    return Measurement(loss=loss, sem=0.01, bpb=loss, count=9, tokens=90)


def record(state=RunState.FINISHED, skills=("knowledge", "code", "reasoning", "prose"), **sets):
    losses = {"val/knowledge": 4.0, "val/code": 3.0, "val/prose": 2.0, "val/reasoning": 1.0, **sets}
    return RunRecord(
        run_id="r",
        study="s",
        state=state,
        reason="",
        point=DesignPoint(n_params=10_000, n_tokens=1_000_000, mix=SETTINGS.study.mix_values[0], seed=3),
        skills={name: measured(2.5) for name in skills},
        sets={name: measured(loss) for name, loss in losses.items()},
    )


def test_the_aggregate_weighs_validation_losses_by_the_mix():
    shares = SETTINGS.study.mix_values[0].shares
    expected = 4 * shares["knowledge"] + 3 * shares["code"] + 2 * shares["prose"] + shares["reasoning"]
    assert trained_table([record()], SETTINGS).runs[AGGREGATE][0] == pytest.approx(expected)


def test_any_combination_of_sets_can_be_the_aggregate():
    other = config.load(overrides={"study.aggregate": "{val/code: 3, val/prose: 1}"})
    assert aggregate_weights(other) == {"val/code": 0.75, "val/prose": 0.25}
    assert trained_table([record()], other).runs[AGGREGATE][0] == pytest.approx(2.75)


def test_only_finished_runs_count_and_a_missing_skill_is_missing():
    records = [record(), record(RunState.FAILED), record(RunState.KILLED), record(skills=("code",))]
    runs = trained_table(records, SETTINGS).runs
    assert len(runs) == 2
    assert math.isnan(runs["knowledge"][1])
    assert runs["code"][1] == 2.5


def test_the_tokens_are_those_trained_on_where_that_is_known():
    data_use = {"code": DataUse(tokens=600_000, epochs=1.5), "prose": DataUse(tokens=404_096, epochs=0.5)}
    runs = trained_table([replace(record(), data_use=data_use), record()], SETTINGS).runs
    assert list(runs["D"]) == [1_004_096, 1_000_000]


def test_runs_of_one_trunk_are_one_cluster():
    plan = OptimizerPlan(lr=0.01, batch_sequences=1, steps=9, warmup_steps=1, decay_steps=2, stable_phase="oak")
    alone = replace(record(), run_id="alone", optimizer_plan=replace(plan, stable_phase="", decay_steps=0))
    branches = [replace(record(), run_id=name, optimizer_plan=plan) for name in ("short", "long")]
    runs = trained_table([alone, *branches, replace(record(), run_id="old")], SETTINGS).runs
    assert list(runs["cluster"]) == ["alone", "oak", "oak", "old"]


def test_n_without_the_embedding_leaves_a_run_at_the_budget_that_it_cost():
    size = ModelSize(n_params=10_000, n_params_nonembed=4_000, n_params_embed=6_000, depth=2, width=12, n_heads=1,
                vocab_size=500, context=64)  # fmt: skip
    records = (replace(record(), size=size),)
    table = trained_table(records, SETTINGS, "nonembed")
    assert table.runs[["N", "D"]].iloc[0].tolist() == [4_000, 1_000_000]
    runs = LoadedRuns(table=table, name="small", records=records, trained=True)
    assert runs.convention == "without the embedding"
    grid_runs = runs.grid_runs.table.runs.iloc[0]
    assert 6 * grid_runs["N"] * grid_runs["D"] == pytest.approx(6 * 10_000 * 1_000_000)
    with pytest.raises(InputError, match="is total or nonembed, not 'all'"):
        trained_table(records, SETTINGS, "all")


def test_splits_and_data_sets_are_columns_beside_the_skills():
    settings = config.load(study="skills-night")
    told = record(knowledge_cities=3.0, knowledge_countries=3.5)
    table = trained_table([replace(told, skills_held_out={"knowledge": measured(2.75)})], settings)
    split = next(one for one in table.splits if one.skill == "knowledge")
    assert split.hypothesis_sets == ("set/knowledge_cities", "set/knowledge_countries")
    found = table.runs.iloc[0]
    assert (found[split.held_out], *found[list(split.hypothesis_sets)]) == (2.75, 3.0, 3.5)
    assert math.isnan(found["code held-out"])
    assert table.validation == ("val/knowledge", "val/code", "val/prose", "val/reasoning")
    assert table.skill_categories == {name: name for name in ("knowledge", "code", "reasoning", "prose")}


def test_a_run_belongs_to_the_budget_that_its_rounded_tokens_miss_a_little():
    assert nominal_budget(1.03e11, [1e10, 1e11]) == 1e11
    assert math.isnan(nominal_budget(3e10, [1e10, 1e11]))


def test_a_mix_is_its_shares_whatever_their_order():
    assert Mix({"a": 0.25, "b": 0.75}) == Mix({"b": 0.75, "a": 0.25})


class Described:
    """Stands in for a study that keeps what its data are."""

    def __init__(self, text):
        self.notes = SimpleNamespace(data_description=lambda: text)


def background(text):
    source = SourceOptions(study="small", data="small", skills="small")
    records = (replace(record(), exposures=12.5),)
    table = trained_table(records, SETTINGS)
    runs = LoadedRuns(table=table, name="small", study=Described(text), records=records, trained=True)
    return report_context(source, replace(SETTINGS, overrides={"study.level": "0.8"}), runs)


def test_sources_and_facts_reach_the_page_from_what_the_study_keeps():
    described = {
        "facts": {"category": "knowledge", "count": 7191, "bits": 45_100.0, "mentions_per_token": 0.02},
        "notices": [
            "airportsdata 20260905 MIT",
            "django-countries-plus 2.2.0 MIT; its data CC-BY-4.0",
            "mine 1",
            "own",
        ],
    }
    told = background(json.dumps(described))
    assert [(one.name, one.version, one.licence) for one in told.sources] == [
        ("airportsdata", "20260905", "MIT"),
        ("django-countries-plus", "2.2.0", "MIT; its data CC-BY-4.0"),
        ("mine", "1", ""),
        ("own", "", ""),
    ]
    assert "7,191 facts, at most 45.1" in told.facts
    assert told.exposures == {"r": 12.5}
    assert "--study.level 0.8" in told.commands[0]


@pytest.mark.parametrize("text", ["", "{}", '{"facts": null, "notices": []}'])
def test_a_study_that_keeps_nothing_of_its_data_has_a_page_without_them(text):
    told = background(text)
    assert told.sources == ()
    assert told.facts == ""


def test_a_plainer_law_that_is_preferred_to_a_better_one_is_named_with_both_errors():
    """Held-out errors that differ by less than the standard error of their difference."""
    errors = {"chinchilla": [0.013, 0.009, 0.011], "coupled": [0.007, 0.012, 0.011]}
    plain, better = (
        CandidateLaw(
            setting=PredictionSetting(law=LAWS[name]), n_parameters=len(LAWS[name].log_names),
            errors={"all": float(np.mean(values))}, by_run=pd.Series(values),
        )
        for name, values in errors.items()
    )  # fmt: skip
    candidates = (better, plain)
    chosen = _simplest_best(candidates)
    assert chosen is plain
    cutoff = SimpleNamespace()
    selection = LawSelection(letter="N", cutoffs=(cutoff,), chosen=chosen, candidates=candidates)
    reason = _selection_reason(selection)
    assert "1.1 %" in reason
    assert "coupled" in reason
    assert "1 %, better by less than a standard error" in reason
    assert "5 parameters instead of 6" in reason
    best = LawSelection(letter="N", cutoffs=(cutoff,), chosen=better, candidates=candidates)
    assert "standard error" not in _selection_reason(best)
