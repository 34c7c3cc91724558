"""Fit laws to few runs: the posterior of several laws, where residuals alone say little about noise and form.

In: the runs of each skill, the laws to average, and a ``FitRequest``. Out: a ``FittedLaw`` per skill, with the other
laws as its rivals.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from skillscale.errors import FitError
from skillscale.laws.fit.data import RunData
from skillscale.laws.fit.request import FitRequest, UnfittedSkill
from skillscale.laws.fit.skill_law import FittedLaw
from skillscale.laws.forms.catalogue import LAWS
from skillscale.laws.forms.nd import Law
from skillscale.laws.results import Status
from skillscale.laws.uncertainty.posterior import sample_posterior

_ND = ("chinchilla", "coupled", "drifting")
_MIX = ("separable", "effective_data", "additive_mixture")  # the first has the fewest assumptions on N*


@dataclass(frozen=True, kw_only=True)
class WeightedForm:
    """A law to average over, and its weight (all weights sum to 1)."""

    law: Law
    weight: float


def forms_for_few_runs(*, varied_mix: bool, first: str = "") -> tuple[WeightedForm, ...]:
    """Return the laws to average where runs are too few to choose one: alike in weight.

    Args:
        varied_mix: whether the mix differs between runs.
        first: name of the law that is reported; by default the plainest one that sees what varies.
    """
    needs_mix = LAWS[first].needs_mix if first else varied_mix
    names = tuple(dict.fromkeys([*([first] if first else []), *(_MIX if needs_mix else _ND)]))
    return tuple(WeightedForm(law=LAWS[name], weight=1 / len(names)) for name in names)


def fit_few_runs(
    data: Mapping[str, RunData], forms: Sequence[WeightedForm], request: FitRequest
) -> dict[str, FittedLaw | UnfittedSkill]:
    """Fit every skill by its posterior under each form.

    Args:
        data: runs of each skill.
        forms: laws to average, the reported one first.
        request: fixed parameters, number of draws, seed and level. Its law and bootstrap are not used.
    """
    results: dict[str, FittedLaw | UnfittedSkill] = {}
    for name, runs in data.items():
        try:
            first, *others = (_fit_form(name, runs, form, request, whole=at == 0) for at, form in enumerate(forms))
            results[name] = replace(first, rivals=tuple(others))
        except FitError as error:
            results[name] = UnfittedSkill(skill=name, n_runs=len(runs), reason=str(error))
    return results


def keep_estimate(posterior: FittedLaw | UnfittedSkill, plain: FittedLaw | UnfittedSkill) -> FittedLaw | UnfittedSkill:
    """Return the posterior about the estimate of a plain fit, where that is usable and within its intervals.

    Few runs of little noise may determine a law that was named. Then its estimate owes nothing to the priors.
    """
    if isinstance(posterior, UnfittedSkill) or isinstance(plain, UnfittedSkill):
        return posterior
    if plain.status is not Status.OK or plain.law != posterior.law:
        return posterior
    tails = [(1 - posterior.level) / 2, (1 + posterior.level) / 2]
    low, high = np.nanquantile(posterior.q, tails, axis=0)
    inside = bool(((plain.fit.q >= low) & (plain.fit.q <= high)).all())
    return replace(posterior, fit=plain.fit) if inside else posterior


def _fit_form(skill: str, runs: RunData, form: WeightedForm, request: FitRequest, *, whole: bool) -> FittedLaw:
    """Fit one form; a rival gets draws in proportion to its weight."""
    law = runs.bind(form.law).for_skill(skill)
    fixed = {name: value for name, value in request.sharing.fixed.items() if name in law.fixable}
    count = request.resamples if whole else max(round(form.weight * request.resamples), 1)
    posterior = sample_posterior(runs, law, fixed=fixed, count=count, seed=request.seed)
    return FittedLaw(
        skill=skill, fit=posterior.fit, runs=runs, q=posterior.q, level=request.level, status=Status.OK, reason="",
        setting=f"{law.name}, weak priors", weight=form.weight, information=posterior.information,
        few_noise=posterior.noise,
    )  # fmt: skip
