from dataclasses import replace

import pytest
import report_studies as studies
from report_studies import BUDGETS, MIX, NOT_BRACKETED

from skillscale.laws.results import Interval
from skillscale.record import RunState
from skillscale.report import tables

RESIDUALS = {
    "knowledge": Interval(value=-0.35, lo=-0.5, hi=-0.2),
    "code": Interval(value=0.04, lo=-0.06, hi=0.14),
    "prose": Interval(value=0.3, lo=0.1, hi=0.5),
}


def row(text, skill):
    return next(line for line in text.splitlines() if line.startswith(skill))


def test_the_table_gives_optima_residual_and_verdict_of_every_skill():
    text = tables.verdict_table(studies.fits(RESIDUALS), MIX)
    assert all(f"N* at {C}" in text for C in ("5e10", "1.6e11", "5e11"))
    assert "−30 [−39, −18]" in row(text, "knowledge")
    assert row(text, "knowledge").endswith("data-hungry")
    assert row(text, "code").endswith("not resolved")
    assert row(text, "prose").endswith("capacity-hungry")
    assert "reference" in row(text, "aggregate")
    assert "90 % intervals" in text


def test_columns_are_aligned():
    text = tables.verdict_table(studies.fits(RESIDUALS), MIX)
    start = text.splitlines()[0].index("verdict")
    assert all(row(text, skill)[start - 1] == " " and row(text, skill)[start] != " " for skill in RESIDUALS)


@pytest.mark.parametrize("n_budgets", [1, 3, 9])
def test_the_table_is_never_wider_than_a_terminal(n_budgets):
    budgets = [5e10 * 3**k for k in range(n_budgets)]
    long = {f"a_skill_with_a_very_long_name_{k}": value for k, value in enumerate(RESIDUALS.values())}
    fits = studies.fits(long, budgets=budgets, refused=[(name, budgets[0]) for name in long])
    text = tables.verdict_table(fits, MIX)
    assert max(map(len, text.splitlines())) <= tables.MAX_WIDTH
    assert f"N* at {tables.format_flops(budgets[-1])}" in text
    assert ("Budgets not shown here" in text) == (n_budgets == 9)


def test_a_refusal_stands_in_place_of_the_number_with_its_reason_once():
    text = tables.verdict_table(studies.fits(RESIDUALS, refused=[("knowledge", C) for C in BUDGETS]), MIX)
    assert row(text, "knowledge").count("not bracketed [1]") == 3
    assert text.count(NOT_BRACKETED) == 1
    assert row(text, "knowledge").endswith("not resolved [2]")


def test_the_runs_frame_has_every_run_and_leaves_missing_losses_missing():
    fits = studies.fits(RESIDUALS)
    records = studies.records(fits.runs, fits.skills)
    records[0] = replace(records[0], state=RunState.FAILED, reason="diverged", skills={})
    frame = tables.runs_frame(records)
    assert len(frame) == len(records)
    assert frame["skill_loss/code"].isna().tolist() == [True] + [False] * (len(records) - 1)
    assert frame["skill_loss/code"][1] == fits.runs["code"][1]
    states = tables.states_frame(records).set_index("state")["runs"]
    assert states.to_dict() == {"failed": 1, "finished": len(records) - 1}


def test_imported_runs_without_size_or_spending_are_listed():
    fits = studies.fits(RESIDUALS)
    frame = tables.runs_frame(studies.records(fits.runs, fits.skills, imported=True))
    assert frame["n_params_nonembed"].isna().all()
    assert (frame["n_params"] == fits.runs["N"]).all()


def test_drawn_curves_are_among_the_frames():
    fits = studies.fits(RESIDUALS)
    frames = tables.study_frames(fits, studies.records(fits.runs, fits.skills))
    assert {"runs", "optima", "isoflop_curves", "power_laws", "residuals", "frontier", "left_out"} == set(frames)
    curve = frames["isoflop_curves"].query("skill == 'code' and C == 5e10")
    best = next(one for one in fits.minima if (one.skill, one.C) == ("code", 5e10))
    assert curve["loss"].min() == pytest.approx(best.loss, rel=1e-3)
    assert len(frames["residuals"]) == len(fits.size_gaps)
