"""How the MLflow UI shows a study: its links, and the columns and charts with which its runs open.

The UI stores a named view (its button ``Views``) in a tag of the experiment, and opens the view that the address names.
The views here are written as MLflow 3.17 writes them. A UI ignores what it does not support.
"""

import base64
import json
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

Chart = dict[str, Any]
NOTE = "mlflow.note.content"
_VIEW = "skillscale"
_TAG = f"mlflow.sharedViewState.{_VIEW}"
_TAG_LIMIT = 5000  # characters of an experiment's tag
_MOST_RUNS = 1000
_MAX_CHARTS = 8  # skills with charts of their own: more make a page slow


def runs_path(experiment_id: str, *, charts: bool = True) -> str:
    """Return the path in the UI to an experiment's runs or their charts; a bare path opens a page for GenAI."""
    mode = "&compareRunsMode=CHART" if charts else ""
    return f"#/experiments/{experiment_id}/runs?workflowType=machine_learning&viewStateShareKey={_VIEW}{mode}"


def run_path(experiment_id: str, run_id: str, artifact: str = "") -> str:
    """Return the path in the UI to a run, or to one of its artifacts."""
    place = f"/artifacts/{artifact}" if artifact else ""
    return f"#/experiments/{experiment_id}/runs/{run_id}{place}?workflowType=machine_learning"


def link(text: str, path: str) -> str:
    """Return a link in markdown."""
    return f"[{text}]({path})"


def runs_view(skills: Sequence[str], mixes: Sequence[str] = (), *, per_byte: bool = False) -> dict[str, str]:
    """Return the tag of the view of a study's training runs.

    It has a column for each skill, charts of loss against tokens and FLOP, and one of all skills in parallel.

    Args:
        skills: skills in the order of their columns.
        mixes: categories whose shares vary over the runs.
        per_byte: show losses in bits per byte; else in nats per token.
    """
    while len(tag := _runs_tag(skills, mixes, "skill_bpb" if per_byte else "skill_loss")) > _TAG_LIMIT:
        skills, mixes = skills[: len(skills) * 9 // 10], mixes[: len(mixes) * 9 // 10]
    return {_TAG: tag}


def _runs_tag(skills: Sequence[str], mixes: Sequence[str], quantity: str) -> str:
    losses = [f"{quantity}/{skill}" for skill in skills]
    shares = [f"mix/{category}" for category in mixes]
    columns = [
        *("tags.`skillscale.budget`", "metrics.`n_params`", "metrics.`n_tokens`"),
        *(f"metrics.`{name}`" for name in (*shares, *losses)),
        *("tags.`skillscale.purpose`", "tags.`skillscale.reason`", "attributes.`Duration`", "attributes.`Dataset`"),
    ]
    sections = {
        "Skills side by side": [_parallel(["log10_n_params", "log10_n_tokens", *shares, *losses])],
        "Loss against tokens": [_scatter("log10_n_tokens", loss) for loss in losses[:_MAX_CHARTS]],
        "Loss against FLOP": [_scatter("log10_flops", loss) for loss in losses[:_MAX_CHARTS]],
        "Training": [_line("train_loss")],
    }
    return _view(columns, sections, sort="metrics.`flops`")


def analyses_view(skills: Sequence[str]) -> dict[str, str]:
    """Return the tag of the view of a study's analyses, with a chart of the widest interval against FLOP."""
    columns = [
        *("tags.`skillscale.kind`", "tags.`skillscale.state`", "metrics.`runs`", "metrics.`half_width`"),
        *(f"metrics.`law_exponent/{skill}`" for skill in skills[:_MAX_CHARTS]),
        *("tags.`skillscale.law`", "attributes.`Duration`"),
    ]
    sections = {"Widest interval, half width of ln N*, against FLOP": [_line("half_width", "flops_finished")]}
    return {_TAG: _view(columns, sections, sort="attributes.start_time")}


def _view(columns: Sequence[str], sections: Mapping[str, Sequence[Chart]], *, sort: str) -> str:
    """Return a view in the UI's format."""
    state = {
        "orderByKey": sort,
        "orderByAsc": False,
        "selectedColumns": list(columns),
        "columnOrder": list(columns),
        "runsHiddenMode": "SHOW_ALL",  # by default the UI draws ten runs
        "isAccordionReordered": True,  # sections in this order, not by name
        "compareRunSections": [
            {"uuid": name, "name": name, "display": True, "isReordered": True, "columns": min(len(charts), 2) or 1}
            for name, charts in sections.items()
        ],
        "compareRunCharts": [
            {"uuid": f"{name} {at}", "metricSectionId": name, "runsCountToCompare": _MOST_RUNS, **chart}
            for name, charts in sections.items()
            for at, chart in enumerate(charts)
        ],
    }
    packed = base64.b64encode(zlib.compress(json.dumps(state).encode())).decode()
    # The UI shows these times nowhere; without them equal views are equal texts
    return json.dumps({"name": _VIEW, "createdAt": 0, "updatedAt": 0, "state": f"deflate;{packed}"})


def _scatter(x: str, y: str) -> Chart:
    return {"type": "SCATTER", "xaxis": {"key": x, "type": "METRIC"}, "yaxis": {"key": y, "type": "METRIC"}}


def _parallel(metrics: Sequence[str]) -> Chart:
    return {"type": "PARALLEL", "selectedParams": [], "selectedMetrics": list(metrics), "showAllRuns": True}


def _line(metric: str, against: str = "") -> Chart:
    """Return a chart of a metric against its step, or against another metric."""
    x = {"xAxisKey": "metric", "selectedXAxisMetricKey": against} if against else {"xAxisKey": "step"}
    return {
        "type": "LINE", "metricKey": metric, "selectedMetricKeys": [metric], "useGlobalXaxisKey": False, **x,
        "useGlobalLineSmoothing": False, "lineSmoothness": 0, "scaleType": "linear", "xAxisScaleType": "linear",
        "range": {}, "yAxisKey": "metric", "yAxisExpressions": [],
    }  # fmt: skip
