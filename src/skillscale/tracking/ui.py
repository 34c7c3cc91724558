"""How the MLflow UI shows a study: its links, and the columns and charts with which its runs open.

The UI stores a named view (its button ``Views``) in a tag of the experiment, and opens the view that the address names.
The views here are written as MLflow 3.17 writes them. A UI ignores what it does not support.
"""

import base64
import json
import math
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

from skillscale.formatting import format_count, format_flops
from skillscale.point import DesignPoint
from skillscale.record import Measurement

Chart = dict[str, Any]
NOTE = "mlflow.note.content"
_VIEW = "skillscale"
_TAG = f"mlflow.sharedViewState.{_VIEW}"
_TAG_LIMIT = 5000  # characters of an experiment's tag
_MOST_RUNS = 1000
_NARROWEST, _WIDEST = 84, 150  # of a column, pixels
_MAX_ROWS = 40  # of a description, which a tag holds
_MAX_CHARTS = 8  # skills with charts of their own: more make a page slow


def runs_path(experiment_id: str, *, charts: bool = True) -> str:
    """Return the path in the UI to an experiment's runs or their charts; a bare path opens a page for GenAI."""
    mode = "&compareRunsMode=CHART" if charts else ""
    return f"#/experiments/{experiment_id}/runs?workflowType=machine_learning&viewStateShareKey={_VIEW}{mode}"


def run_path(experiment_id: str, run_id: str, artifact: str = "") -> str:
    """Return the path in the UI to a run, or to one of its artifacts."""
    place = f"/artifacts/{artifact}" if artifact else ""
    return f"#/experiments/{experiment_id}/runs/{run_id}{place}?workflowType=machine_learning"


def point_note(
    point: DesignPoint, skills: Mapping[str, Measurement], *, state: str, flops: float | None = None, more: str = ""
) -> str:
    """Return the description of a training run: sizes and state, then the losses of the skills.

    Args:
        point: the point.
        skills: losses of the skills; empty before the end.
        state: what became of the run.
        flops: nominal C in FLOP; None: that of the point.
        more: another paragraph.
    """
    sizes = f"N {format_count(point.n_params)} parameters, D {format_count(point.n_tokens)} tokens"
    budget = format_flops(point.flops if flops is None else flops)
    lines = [f"{sizes}, C {budget} FLOP: **{state}**. Mix {point.mix}, seed {point.seed}."]
    return "\n".join([*lines, *(["", more] if more else []), *_loss_table(skills)])


def _loss_table(skills: Mapping[str, Measurement]) -> list[str]:
    """Return the losses of the skills as a table in markdown; of many, the first."""
    if not skills:
        return []
    shown = list(skills.items())[:_MAX_ROWS]
    rest = [f"| {len(skills) - _MAX_ROWS} more | |"] * (len(skills) > _MAX_ROWS)
    rows = [
        f"| {name}&emsp; | {item.loss:.4f}{'' if math.isnan(item.sem) else f' ± {item.sem:.4f}'} |"
        for name, item in shown
    ]
    return ["", "| skill&emsp; | loss (nats/token) |", "|---|---|", *rows, *rest]


def image(text: str, run_id: str, artifact: str) -> str:
    """Return a picture in markdown, which the server of the UI serves from the artifacts of a run."""
    return f"![{text}](get-artifact?path={artifact}&run_uuid={run_id})"


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
        *(f"metrics.`{name}`" for name in ("n_params", "n_tokens", *losses, *shares)),
        *(
            "tags.`skillscale.budget`",
            "tags.`skillscale.purpose`",
            "tags.`skillscale.reason`",
            "attributes.`Duration`",
            "attributes.`Dataset`",
        ),
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
        *("tags.`skillscale.budget`", "metrics.`N_star`", "metrics.`D_star`"),
        *(f"metrics.`loss/{skill}`" for skill in skills[:_MAX_CHARTS]),
        *("metrics.`half_width`", "metrics.`runs`", "tags.`skillscale.state`", "tags.`skillscale.law`"),
        "attributes.`Duration`",
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
        "columnWidths": {name: min(_WIDEST, _NARROWEST + 7 * max(0, len(name) - 19)) for name in columns},
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
