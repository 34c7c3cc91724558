"""The chosen law as it is told: the very fits that the choice predicts with, with draws, and its rivals beside them."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from skillscale.errors import FitError
from skillscale.laws.fit.data import Points
from skillscale.laws.fit.request import Refused, Request
from skillscale.laws.fit.skill_law import Fitted, fitted_as
from skillscale.laws.selection.extrapolation import Forecast, clustered, forecasts
from skillscale.laws.selection.selection import Choice, Outlook, whole
from skillscale.laws.uncertainty.bootstrap import Chance, resampled


def fit_chosen(data: Mapping[str, Points], choice: Choice, request: Request) -> dict[str, Fitted | Refused]:
    """Every skill under the chosen setting: pooled exponents, weak beliefs and mix effects are those of the choice.

    Rivals of the chosen law are fitted too, and share the draws by their weights. A skill that can't carry the chosen
    law is refused with the reason and costs no other.

    Args:
        data: each skill's runs.
        choice: made for them.
        request: how draws are made; its law and sharing are the choice's.
    """
    outlooks, refused = _outlooks(data, choice)
    members = [one for outlook in outlooks.values() for one in outlook.members]
    chance = _chance(members, request) if members else None
    return {
        name: refused[name] if name in refused else _told(outlooks[name], request, chance)
        for name in data
    }  # fmt: skip


def _outlooks(data: Mapping[str, Points], choice: Choice) -> tuple[dict[str, Outlook], dict[str, Refused]]:
    try:
        return choice.fitted(data), {}
    except FitError:
        refused = _refused(data, choice)
        able = {name: points for name, points in data.items() if name not in refused}
        return choice.fitted(able) if able else {}, refused


def _refused(data: Mapping[str, Points], choice: Choice) -> dict[str, Refused]:
    """Skills whose runs can't carry the chosen law."""
    found = {}
    for name, points in data.items():
        one = {name: points}
        try:
            forecasts(one, replace(choice.chosen.setting, pooled=False), whole(one, choice.letter))
        except FitError as error:
            found[name] = Refused(skill=name, n_runs=len(points), reason=str(error))
    return found


def _chance(members: Sequence[Forecast], request: Request) -> Chance:
    labels = [resampled(clustered(one.points), request.method, request.budget_labels(one.points)) for one in members]
    return Chance.draw(np.concatenate(labels), request.method, count=request.resamples, seed=request.seed)


def _told(outlook: Outlook, request: Request, chance: Chance | None) -> Fitted:
    """The chosen law; each rival with as many draws as it has weight."""
    told, *others = zip(outlook.members, outlook.weights, strict=True)
    rivals = []
    for one, weight in others:
        few = None if chance is None else chance.rows(0, max(round(weight * request.resamples), 1))
        rivals.append(_fitted(one, float(weight), request, few))
    one, weight = told
    return replace(_fitted(one, float(weight), request, chance), rivals=tuple(rivals))


def _fitted(one: Forecast, weight: float, request: Request, chance: Chance | None) -> Fitted:
    budgets = request.budget_labels(one.points)
    return fitted_as(one, level=request.level, budgets=budgets, chance=chance, weight=weight)
