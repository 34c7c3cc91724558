"""Views of the MLflow UI are written as it reads them: an envelope, whose state is deflated JSON."""

import base64
import json
import random
import string
import zlib

import pytest

from skillscale.tracking.ui import analyses_view, run_path, runs_path, runs_view

TAG = "mlflow.sharedViewState.skillscale"


def state(tags):
    """As the UI reads it: its own names and types, then what is packed in ``state``."""
    envelope = json.loads(tags[TAG])
    assert isinstance(envelope["name"], str)
    assert isinstance(envelope["createdAt"], int)
    head, _, packed = envelope["state"].partition(";")
    assert head == "deflate"
    return json.loads(zlib.decompress(base64.b64decode(packed)))


def test_columns_stand_as_one_reads_them_and_every_run_is_drawn():
    view = state(runs_view(["code", "prose"], ["web"]))
    assert view["selectedColumns"] == view["columnOrder"]
    assert view["columnOrder"][:6] == [
        "metrics.`n_params`", "metrics.`n_tokens`", "metrics.`skill_loss/code`", "metrics.`skill_loss/prose`",
        "metrics.`mix/web`", "tags.`skillscale.budget`",
    ]  # fmt: skip
    assert view["columnWidths"].keys() == set(view["columnOrder"])
    assert sum(view["columnWidths"][name] for name in view["columnOrder"][:4]) < 500, "beside the names of runs"
    assert view["runsHiddenMode"] == "SHOW_ALL"


def test_losses_of_several_tokenizers_are_shown_per_byte():
    view = state(runs_view(["code"], per_byte=True))
    assert "metrics.`skill_bpb/code`" in view["selectedColumns"]
    assert "skill_loss" not in str(view)


def test_charts_are_in_the_sections_in_their_order():
    view = state(runs_view(["code", "prose"]))
    sections = {one["uuid"]: one["name"] for one in view["compareRunSections"]}
    drawn = [
        (
            sections[one["metricSectionId"]],
            one["type"],
            one.get("xaxis", {}).get("key"),
            one.get("yaxis", {}).get("key"),
        )
        for one in view["compareRunCharts"]
    ]
    assert drawn[0][:2] == ("Skills side by side", "PARALLEL")
    assert ("Loss against tokens", "SCATTER", "log10_n_tokens", "skill_loss/code") in drawn
    assert ("Loss against FLOP", "SCATTER", "log10_flops", "skill_loss/prose") in drawn
    assert view["compareRunCharts"][0]["selectedMetrics"] == [
        "log10_n_params", "log10_n_tokens", "skill_loss/code", "skill_loss/prose",
    ]  # fmt: skip
    assert len({one["uuid"] for one in view["compareRunCharts"]}) == len(drawn)


def test_the_interval_is_drawn_against_what_the_runs_cost():
    (chart,) = state(analyses_view(["code"]))["compareRunCharts"]
    assert (chart["metricKey"], chart["xAxisKey"], chart["selectedXAxisMetricKey"]) == (
        "half_width", "metric", "flops_finished",
    )  # fmt: skip


@pytest.mark.parametrize("count", [0, 1, 30, 300])
def test_a_view_fits_into_a_tag_however_many_skills_there_are(count):
    rng = random.Random(1)
    names = ["".join(rng.choices(string.ascii_letters, k=40)) for _ in range(count)]
    tag = runs_view(names, names)[TAG]
    assert len(tag) <= 5000
    assert ("metrics.`skill_loss/" in str(state(runs_view(names, names)))) == bool(count)


def test_links_open_the_view_and_a_file():
    assert runs_path("7").startswith("#/experiments/7/runs?workflowType=machine_learning&viewStateShareKey=skillscale")
    assert runs_path("7").endswith("&compareRunsMode=CHART")
    assert "compareRunsMode" not in runs_path("7", charts=False)
    assert run_path("7", "ab", "figures/a.png") == (
        "#/experiments/7/runs/ab/artifacts/figures/a.png?workflowType=machine_learning"
    )
