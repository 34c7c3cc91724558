"""The chosen law as it is told: the very fits that the choice predicts with, with draws, and its rivals beside them."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from skillscale.errors import FitError
from skillscale.laws.fit.data import RunData
from skillscale.laws.fit.request import FitRequest, UnfittedSkill
from skillscale.laws.fit.skill_law import FittedLaw, skill_law_from
from skillscale.laws.selection.extrapolation import Extrapolation, by_cluster, extrapolate
from skillscale.laws.selection.selection import LawSelection, PredictiveEnsemble, all_runs
from skillscale.laws.uncertainty.bootstrap import ClusterResamples, resample


def fit_selected(
    data: Mapping[str, RunData], choice: LawSelection, request: FitRequest
) -> dict[str, FittedLaw | UnfittedSkill]:
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


def _outlooks(
    data: Mapping[str, RunData], choice: LawSelection
) -> tuple[dict[str, PredictiveEnsemble], dict[str, UnfittedSkill]]:
    try:
        return choice.fitted(data), {}
    except FitError:
        refused = _refused(data, choice)
        able = {name: points for name, points in data.items() if name not in refused}
        return choice.fitted(able) if able else {}, refused


def _refused(data: Mapping[str, RunData], choice: LawSelection) -> dict[str, UnfittedSkill]:
    """Skills whose runs can't carry the chosen law."""
    found = {}
    for name, points in data.items():
        one = {name: points}
        try:
            extrapolate(one, replace(choice.chosen.setting, pooled=False), all_runs(one, choice.letter))
        except FitError as error:
            found[name] = UnfittedSkill(skill=name, n_runs=len(points), reason=str(error))
    return found


def _chance(members: Sequence[Extrapolation], request: FitRequest) -> ClusterResamples:
    labels = [resample(by_cluster(one.points), request.method, request.budget_labels(one.points)) for one in members]
    return ClusterResamples.draw(np.concatenate(labels), request.method, count=request.resamples, seed=request.seed)


def _told(outlook: PredictiveEnsemble, request: FitRequest, chance: ClusterResamples | None) -> FittedLaw:
    """The chosen law; each rival with as many draws as it has weight."""
    told, *others = zip(outlook.members, outlook.weights, strict=True)
    rivals = []
    for one, weight in others:
        few = None if chance is None else chance.rows(0, max(round(weight * request.resamples), 1))
        rivals.append(_fitted(one, float(weight), request, few))
    one, weight = told
    return replace(_fitted(one, float(weight), request, chance), rivals=tuple(rivals))


def _fitted(one: Extrapolation, weight: float, request: FitRequest, chance: ClusterResamples | None) -> FittedLaw:
    budgets = request.budget_labels(one.points)
    return skill_law_from(one, level=request.level, budgets=budgets, chance=chance, weight=weight)
