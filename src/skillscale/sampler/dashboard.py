"""Half widths against FLOP in Optuna's dashboard, from the attributes that the sampler writes with each trial."""

import json
from dataclasses import dataclass
from typing import Any

from optuna.study import Study
from optuna.trial import FrozenTrial

from skillscale.errors import InputError
from skillscale.sampler.optuna_sampler import PROPOSAL

_FIGURE = "skillscale-widths"
_WIDEST = "widest interval, differences included"


@dataclass(frozen=True, kw_only=True)
class _Drawing:
    """A plotly figure as plain values: the dashboard only calls ``to_json``, so plotly is not needed."""

    data: list[dict[str, Any]]
    layout: dict[str, Any]

    def to_json(self) -> str:
        return json.dumps({"data": self.data, "layout": self.layout})


def draw_widths(study: Study, trial: FrozenTrial | None = None) -> None:  # noqa: ARG001 - callbacks get a trial
    """Draw half widths of intervals against the FLOP of finished trials, among the dashboard's plots of the study.

    The plot replaces the previous one. It uses the attributes that ``SkillLawSampler`` writes with each trial; without
    half widths there is no plot. Also a callback: ``study.optimize(objective, callbacks=[draw_widths])``.

    Raises:
        InputError: optuna-dashboard is not installed.
    """
    try:
        from optuna_dashboard import save_plotly_graph_object
    except ImportError as error:
        raise InputError(
            f"optuna-dashboard can't be imported ({error}). Install it with `pip install optuna-dashboard`"
        ) from error
    lines = _lines(study)
    if lines:
        drawing = _Drawing(data=[_trace(name, *line) for name, line in lines.items()], layout=_layout())
        save_plotly_graph_object(study, drawing, graph_object_id=_FIGURE)


def _lines(study: Study) -> dict[str, tuple[list[float], list[float]]]:
    """Return FLOP and half widths by target, along the trials."""
    lines: dict[str, tuple[list[float], list[float]]] = {}
    for trial in study.get_trials(deepcopy=False):
        proposal = trial.system_attrs.get(PROPOSAL, {})
        if "finished" not in proposal:
            continue
        for name, half in {**proposal["half_widths"], _WIDEST: proposal["half_width"]}.items():
            flops, widths = lines.setdefault(name, ([], []))
            flops.append(proposal["finished"])
            widths.append(half)
    return lines


def _trace(name: str, flops: list[float], widths: list[float]) -> dict[str, Any]:
    line = {"color": "#8c959f", "dash": "dot"} if name == _WIDEST else {}
    return {"type": "scatter", "mode": "lines+markers", "name": name, "x": flops, "y": widths, "line": line}


def _layout() -> dict[str, Any]:
    return {
        "title": {"text": "Precision by compute"},
        "legend": {"orientation": "h", "y": -0.35},
        "xaxis": {"title": {"text": "FLOP of finished trials, 6 N D"}, "type": "log", "exponentformat": "power"},
        "yaxis": {"title": {"text": "half width of 90 % interval, ln N*"}, "type": "log"},
    }
