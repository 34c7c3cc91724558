"""Fit the selected law: the same fits that the selection predicts with, plus draws, and its rivals.

In: the runs of each skill, a ``LawSelection`` and a ``FitRequest``. Out: a ``FittedLaw`` or ``UnfittedSkill`` per
skill.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from skillscale.errors import FitError
from skillscale.laws.fit.data import RunData
from skillscale.laws.fit.request import FitRequest, UnfittedSkill
from skillscale.laws.fit.skill_law import FittedLaw, skill_law_from
from skillscale.laws.selection.extrapolation import Extrapolation, by_cluster, extrapolate
from skillscale.laws.selection.selection import LawSelection, PredictiveEnsemble, all_runs
from skillscale.laws.uncertainty.bootstrap import ClusterResamples, resampling_labels


def fit_selected(
    data: Mapping[str, RunData], selection: LawSelection, request: FitRequest
) -> dict[str, FittedLaw | UnfittedSkill]:
    """Fit every skill under the selected setting, with its pooled exponents, weak priors and mix effects.

    Rivals of the selected law are fitted too, and share the draws by their weights. A skill that can't be fitted is
    returned with the reason and affects no other.

    Args:
        data: runs of each skill.
        selection: selection made for them.
        request: resampling options; its law and sharing are ignored in favour of the selection's.
    """
    ensembles, unfitted = _fit_ensembles(data, selection)
    members = [member for ensemble in ensembles.values() for member in ensemble.members]
    resamples = _shared_resamples(members, request) if members else None
    return {
        name: unfitted[name] if name in unfitted else _fit_with_rivals(ensembles[name], request, resamples)
        for name in data
    }  # fmt: skip


def _fit_ensembles(
    data: Mapping[str, RunData], selection: LawSelection
) -> tuple[dict[str, PredictiveEnsemble], dict[str, UnfittedSkill]]:
    try:
        return selection.fit_all(data), {}
    except FitError:
        unfitted = _unfitted(data, selection)
        fittable = {name: runs for name, runs in data.items() if name not in unfitted}
        return selection.fit_all(fittable) if fittable else {}, unfitted


def _unfitted(data: Mapping[str, RunData], selection: LawSelection) -> dict[str, UnfittedSkill]:
    """Return the skills whose runs can't determine the selected law."""
    unfitted = {}
    for name, runs in data.items():
        single = {name: runs}
        try:
            extrapolate(single, replace(selection.chosen.setting, pooled=False), all_runs(single, selection.letter))
        except FitError as error:
            unfitted[name] = UnfittedSkill(skill=name, n_runs=len(runs), reason=str(error))
    return unfitted


def _shared_resamples(members: Sequence[Extrapolation], request: FitRequest) -> ClusterResamples:
    labels = [
        resampling_labels(by_cluster(member.runs), request.method, request.budget_labels(member.runs))
        for member in members
    ]
    return ClusterResamples.draw(np.concatenate(labels), request.method, count=request.resamples, seed=request.seed)


def _fit_with_rivals(
    ensemble: PredictiveEnsemble, request: FitRequest, resamples: ClusterResamples | None
) -> FittedLaw:
    """Fit the selected law, and each rival with a number of draws in proportion to its weight."""
    first, *others = zip(ensemble.members, ensemble.weights, strict=True)
    rivals = []
    for member, weight in others:
        count = max(round(weight * request.resamples), 1)
        subset = None if resamples is None else resamples.subset(0, count)
        rivals.append(_fit_member(member, float(weight), request, subset))
    member, weight = first
    return replace(_fit_member(member, float(weight), request, resamples), rivals=tuple(rivals))


def _fit_member(
    member: Extrapolation, weight: float, request: FitRequest, resamples: ClusterResamples | None
) -> FittedLaw:
    budgets = request.budget_labels(member.runs)
    return skill_law_from(member, level=request.level, budgets=budgets, cluster_resamples=resamples, weight=weight)
