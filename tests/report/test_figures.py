import math
import re
from dataclasses import replace

import pytest
import report_studies as studies
from report_studies import BUDGETS, MIX

from skillscale.laws.results import Interval, Status
from skillscale.report import figures, style

RESIDUALS = {"knowledge": Interval(value=-0.35, lo=-0.5, hi=-0.2), "code": Interval(value=0.04, lo=-0.06, hi=0.14)}
ALL_BUDGETS = [("knowledge", C) for C in BUDGETS]


@pytest.fixture(scope="module")
def good():
    return studies.fits(RESIDUALS)


@pytest.fixture(scope="module")
def refused():
    return studies.fits(RESIDUALS, refused=ALL_BUDGETS)


def lines(axes, gid):
    return [line for line in axes.lines if line.get_gid() == gid]


def panel(figure, title):
    return next(axes for axes in figure.axes if axes.get_title(loc="left") == title)


def test_isoflop_has_a_panel_a_skill_and_aggregate_on_a_log_axis(good):
    figure = figures.draw_isoflop_curves(good, MIX)
    for name in ("knowledge", "code", "aggregate"):
        axes = panel(figure, name)
        assert axes.get_xscale() == "log"
        assert axes.get_yscale() == "linear"
    bottom = panel(figure, "aggregate")
    assert bottom.get_xlabel() == "N, parameters"
    assert bottom.get_ylabel() == "loss, nats per token"


def test_isoflop_draws_every_run_once_and_tells_seeds_apart(good):
    axes = panel(figures.draw_isoflop_curves(good, MIX), "code")
    drawn = sorted((x, y) for line in lines(axes, "runs") for x, y in zip(*line.get_data(), strict=True))
    assert drawn == sorted(zip(good.runs["N"], good.runs["code"], strict=True))
    assert len({line.get_marker() for line in lines(axes, "runs")}) == 2
    assert len({line.get_markeredgecolor() for line in lines(axes, "runs")}) == len(BUDGETS)


def test_a_missing_loss_is_not_drawn(good):
    runs = good.runs.copy()
    runs.loc[0, "code"] = math.nan
    axes = panel(figures.draw_isoflop_curves(replace(good, runs=runs), MIX), "code")
    assert sum(len(line.get_xdata()) for line in lines(axes, "runs")) == len(runs) - 1


def test_optima_stand_where_they_were_fitted_with_their_intervals(good):
    axes = panel(figures.draw_isoflop_curves(good, MIX), "code")
    fitted = [one for one in good.minima if one.skill == "code"]
    assert [line.get_xdata()[0] for line in lines(axes, "optimum")] == [one.N.value for one in fitted]
    assert [tuple(line.get_xdata()) for line in lines(axes, "interval")] == [(one.N.lo, one.N.hi) for one in fitted]
    curve = lines(axes, "curve")[0]
    assert min(curve.get_ydata()) == pytest.approx(fitted[0].loss, rel=1e-4)


def test_a_refused_minimum_is_no_optimum_and_says_why(refused):
    axes = panel(figures.draw_isoflop_curves(refused, MIX), "knowledge")
    assert not lines(axes, "optimum")
    assert not lines(axes, "interval")
    assert len(lines(axes, "refused curve")) == len(BUDGETS)
    assert all(line.get_linestyle() == "--" for line in lines(axes, "refused curve"))
    assert axes.get_title(loc="right") == "not bracketed: 3 of 3"
    assert len(lines(panel(figures.draw_isoflop_curves(refused, MIX), "code"), "optimum")) == len(BUDGETS)


def test_optima_against_compute_on_two_log_axes_with_laws_and_frontier(good):
    figure = figures.draw_optima(good, MIX)
    axes = panel(figure, "code")
    assert (axes.get_xscale(), axes.get_yscale()) == ("log", "log")
    assert axes.get_xlabel() == "C = 6 N D, FLOP"
    assert [label.get_text() for label in axes.get_xticklabels()] == ["5×10¹⁰", "1.6×10¹¹", "5×10¹¹"]
    assert len(lines(axes, "power law")) == 2  # its own and the aggregate's
    assert len(lines(axes, "frontier")) == 1
    assert len(axes.containers) == 2 * len(BUDGETS)
    law = next(one for one in good.power_laws if one.skill == "code")
    x, y = lines(axes, "power law")[1].get_data()
    assert y[7] == pytest.approx(law.N(float(x[7])).value)


def test_a_skill_without_optimum_keeps_its_panel_and_says_so(refused):
    axes = panel(figures.draw_optima(refused, MIX), "knowledge")
    assert any("no optimum found" in text.get_text() for text in axes.texts)
    assert len(axes.containers) == len(BUDGETS)  # the aggregate's alone
    assert not lines(axes, "frontier")


def test_one_budget_claims_no_power_law():
    axes = panel(figures.draw_optima(studies.fits(RESIDUALS, budgets=(1.6e11,)), MIX), "code")
    assert not lines(axes, "power law")
    assert len(axes.containers) == 2


def test_residuals_show_pooled_value_interval_and_verdict(good):
    axes = figures.draw_size_gaps(good, MIX).axes[0]
    assert [line.get_xdata()[0] for line in lines(axes, "pooled")] == [-0.35, 0.04]
    assert len(lines(axes, "residual")) == 2 * len(BUDGETS)
    words = [text.get_text() for text in axes.texts]
    assert "−30 %  [−39 %, −18 %]  data-hungry" in words
    assert "+4.1 %  [−5.8 %, +15 %]  not resolved" in words
    assert lines(axes, "zero")[0].get_xdata()[0] == 0


def test_a_residual_without_estimate_is_words_not_a_point(refused):
    axes = figures.draw_size_gaps(refused, MIX).axes[0]
    assert [line.get_xdata()[0] for line in lines(axes, "pooled")] == [0.04]
    assert sum(text.get_gid() == "refused" for text in axes.texts) == len(BUDGETS) + 1


def test_an_interval_too_wide_for_the_axis_ends_in_an_arrow():
    axes = figures.draw_size_gaps(studies.fits({"code": Interval(value=0.1, lo=-6.0, hi=5.0)}), MIX).axes[0]
    assert axes.get_xlim()[1] < 2.5
    assert len(lines(axes, "cut")) == 2 * (1 + len(BUDGETS))


def test_the_head_of_a_panel_names_the_refused_budget():
    axes = panel(figures.draw_isoflop_curves(studies.fits(RESIDUALS, refused=[("code", BUDGETS[1])]), MIX), "code")
    assert axes.get_title(loc="right") == "not bracketed: 1.6×10¹¹"
    assert len(lines(axes, "optimum")) == 2


def test_no_frontier_from_a_law_that_was_refused(good):
    laws = tuple(replace(one, status=Status.NOT_IDENTIFIED) for one in good.laws)
    assert not lines(panel(figures.draw_optima(replace(good, laws=laws), MIX), "code"), "frontier")


def overlapping(boxes):
    return [(a, b) for i, a in enumerate(boxes) for b in boxes[i + 1 :] if a.overlaps(b)]


def test_labels_of_curves_that_end_together_are_parted(good):
    together = tuple(
        replace(one, curve=replace(one.curve, N_max=3e5, coefficients=(1.0 - 1e-3 * k, -0.1, 0.0)))
        for k, one in enumerate(good.minima)
    )
    figure = figures.draw_isoflop_curves(replace(good, minima=together), MIX)
    figure.draw_without_rendering()
    boxes = [text.get_window_extent() for text in panel(figure, "code").texts]
    assert len(boxes) == len(BUDGETS)
    assert not overlapping(boxes)


@pytest.mark.parametrize("draw", [figures.draw_isoflop_curves, figures.draw_optima, figures.draw_size_gaps])
def test_tick_labels_do_not_overlap_and_nothing_is_cut_off(good, draw):
    figure = draw(good, MIX)
    figure.draw_without_rendering()
    for axes in figure.axes:
        for labels in (axes.get_xticklabels(), axes.get_yticklabels()):
            boxes = [label.get_window_extent() for label in labels if label.get_text() and label.get_visible()]
            assert not overlapping(boxes)
        assert not overlapping([text.get_window_extent() for text in axes.texts if text.get_text()])
        for text in axes.texts:
            box = text.get_window_extent()
            assert box.x0 >= 0
            assert box.x1 <= figure.bbox.width
            assert box.y1 <= figure.bbox.height


@pytest.mark.parametrize("reach", [0.03, 0.1, 0.3, 0.8, 1.9, 4.0])
def test_ratio_ticks_are_few_symmetric_and_inside(reach):
    ticks = figures._ratio_ticks(reach)
    assert 3 <= len(ticks) <= 5
    assert 0.0 in ticks
    assert sum(tick < 0 for tick in ticks) == sum(tick > 0 for tick in ticks)
    assert max(map(abs, ticks)) < reach
    assert all(round(100 * math.expm1(tick), 6) == round(100 * math.expm1(tick)) for tick in ticks)


def test_images_are_repeatable_and_need_no_fonts(good):
    first, second = (style.to_svg(figures.draw_size_gaps(good, MIX)) for _ in range(2))
    assert first == second
    assert not re.search(rb"<text", first)
    assert style.to_png(figures.draw_size_gaps(good, MIX), 50).startswith(b"\x89PNG")
