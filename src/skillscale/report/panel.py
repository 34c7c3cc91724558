"""The what-if panel of the page: draws of the laws, their formulas and a script, all inside the page.

Fitted laws go in. A ``Panel`` comes out, which the template places. The script asks the same question as ``plan``, of
the same draws, so its numbers are those of ``plan``.
"""

import base64
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import resources
from typing import Any

import numpy as np
from markupsafe import Markup

from skillscale.errors import InputError
from skillscale.laws.fit.mix_effects import mix_names
from skillscale.laws.fit.skill_law import FittedLaw
from skillscale.laws.forms.nd import Array
from skillscale.laws.io.javascript import javascript_of
from skillscale.laws.optimum.ensemble import Ensemble, resolve_shares, shared_categories
from skillscale.laws.optimum.identification import identify
from skillscale.laws.optimum.optimum import share_range
from skillscale.laws.optimum.weighted_loss import Rows, WeightedLoss

_MOST_NUMBERS = 120_000  # of all draws, about 0.64 MB in the page; with more, draws are thinned
_BUDGETS = (
    0.1,
    1.0,
    10.0,
    100.0,
    1e3,
    1e4,
)  # in units of the largest run, where the page says whether priors decide N*
_DEFAULT = 2  # of them: the budget that the panel opens with
Laws = Mapping[str, FittedLaw]


@dataclass(frozen=True, kw_only=True)
class PanelGroup:
    """Laws that one question is asked of: those of a mix, or of all runs.

    ``name``: the mix, empty where all runs share their laws. ``laws``: by the name of the skill. ``skills``: those that
    have weight at first. ``C``: budget that the panel opens with, FLOP; None: 10 times the largest run.
    """

    name: str = ""
    laws: Laws
    skills: Sequence[str] = ()
    C: float | None = None


@dataclass(frozen=True, kw_only=True)
class Panel:
    """The parts of the panel: ``data`` as JSON, the ``script``, and words for what N counts."""

    data: Markup
    script: Markup
    convention: str = ""


@dataclass
class _Embedded:
    """What all groups share: the formulas, each once, and the numbers of all draws."""

    thinning: float = 1.0
    formulas: list[str] = field(default_factory=list)
    numbers: list[Array] = field(default_factory=list)
    places: dict[bytes, int] = field(default_factory=dict)

    def add(self, q: Array) -> int:
        """Return the position of parameters (K, p) among the numbers. Equal ones are written once."""
        values = np.ascontiguousarray(q, dtype="<f4")
        key = values.tobytes()
        if key not in self.places:
            self.places[key] = self.size
            self.numbers.append(values.ravel())
        return self.places[key]

    @property
    def size(self) -> int:
        return sum(map(len, self.numbers))

    def formula(self, text: str) -> int:
        if text not in self.formulas:
            self.formulas.append(text)
        return self.formulas.index(text)


def make_panel(groups: Sequence[PanelGroup], *, convention: str = "") -> Panel | None:
    """Return the panel of some laws; None where no skill has a law, or where skills share no draws.

    Args:
        groups: laws that are asked together.
        convention: words for what N counts.
    """
    groups = [group for group in groups if group.laws]
    if not groups:
        return None
    try:
        embedded = _Embedded()
        data = [_embed(group, embedded) for group in groups]
        if embedded.size > _MOST_NUMBERS:
            embedded = _Embedded(thinning=_MOST_NUMBERS / embedded.size)
            data = [_embed(group, embedded) for group in groups]
    except InputError:  # skills that were not fitted together
        return None
    numbers = np.concatenate(embedded.numbers).astype("<f4")
    content = {
        "level": next(iter(groups[0].laws.values())).level,
        "groups": data,
        "draws": base64.b64encode(numbers.tobytes()).decode("ascii"),
    }
    return Panel(data=_json(content), script=_script(embedded.formulas), convention=convention)


def group_laws(
    laws: Mapping[str, object], mixes: Mapping[str, str], skills: Sequence[str],
    budgets: Mapping[str, float] | None = None,
) -> list[PanelGroup]:  # fmt: skip
    """Return fitted laws by the mix that they are of.

    Args:
        laws: laws by skill, or by MIX/SKILL; what is no fitted law has no place in the panel.
        mixes: mix of each law that is of one.
        skills: skills with weight at first.
        budgets: budget that the panel opens with, by mix, FLOP.
    """
    by_mix: dict[str, dict[str, FittedLaw]] = {}
    for name, law in laws.items():
        if isinstance(law, FittedLaw):
            mix = mixes.get(name, "")
            by_mix.setdefault(mix, {})[name.removeprefix(f"{mix}/") if mix else name] = law
    budgets = budgets or {}
    return [PanelGroup(name=mix, laws=of_mix, skills=skills, C=budgets.get(mix)) for mix, of_mix in by_mix.items()]


def _embed(group: PanelGroup, embedded: _Embedded) -> dict[str, Any]:
    laws, shares = group.laws, resolve_shares(group.laws, None)
    ensemble = Ensemble.of(laws, dict.fromkeys(laws, 1 / len(laws)))
    members = [[law, *law.rivals] for law in laws.values()]
    span = share_range(laws)
    budgets = [factor * max(law.reach[1] for law in laws.values()) for factor in _BUDGETS]
    weighed = [name for name in laws if name in group.skills] or list(laws)
    return {
        "name": group.name,
        "budgets": budgets,
        "start": group.C,
        "categories": list(shared_categories(laws)),
        "mix": [] if shares is None else shares[0].tolist(),
        "range": None if span is None or shares is None else span.tolist(),
        "skills": [_skill(name, law, budgets, weight=float(name in weighed)) for name, law in laws.items()],
        "parts": [
            _part(
                part,
                [of_skill[at] for of_skill in members],
                _kept_rows(part, embedded.thinning, budgets[_DEFAULT], shares, estimate=at == 0),
                embedded,
                with_mix=shares is not None,
            )
            for at, part in enumerate(ensemble.parts)
        ],
    }


def _skill(name: str, law: FittedLaw, budgets: Sequence[float], *, weight: float) -> dict[str, Any]:
    return {
        "name": name, "weight": weight, "reach": law.reach, "sizes": law.sizes, "tokens": law.tokens,
        "reason": law.reason, "priors": [identify(law, C).prior_decides for C in budgets],
    }  # fmt: skip


def _kept_rows(part: WeightedLoss, thinning: float, C: float, shares: Array | None, *, estimate: bool) -> Rows:
    """Return the rows to write, all of them or a share that is even in N* at one budget. The estimate stays first."""
    if thinning >= 1:
        return np.arange(len(part))
    first = int(estimate)
    order = first + np.argsort(part.log_optimum(math.log(C / 6), shares)[first:], kind="stable")
    number = max(round(thinning * len(order)), 1)
    middles = ((np.arange(number) + 0.5) * len(order) / number).astype(int)
    return np.asarray(np.r_[np.arange(first), np.sort(order[middles])])


def _part(
    part: WeightedLoss, members: Sequence[FittedLaw], rows: Rows, embedded: _Embedded, *, with_mix: bool
) -> dict[str, Any]:
    """Return one law of each skill with some of its rows."""
    laws = [
        {
            "form": embedded.formula(javascript_of(law)), "at": embedded.add(q[rows]), "p": q.shape[1],
            "x0": float(law.x0), "y0": float(law.y0),
            "offsets": _offsets(member) if with_mix else {},
        }
        for law, q, member in zip(part.laws, part.q, members, strict=True)
    ]  # fmt: skip
    return {"rows": len(rows), "laws": laws}


def _offsets(law: FittedLaw) -> dict[str, float]:
    """Return the effect of each mix that was run, by its rounded shares."""
    effects = law.effects
    if not len(effects):
        return {}
    return dict(zip(mix_names(effects.mixes).tolist(), np.asarray(effects.offsets, dtype=float).tolist(), strict=True))


def _json(content: object) -> Markup:
    """Write JSON that can't end the element it stands in, whatever names users chose."""
    text = json.dumps(content, ensure_ascii=True, separators=(",", ":"))
    # In JSON these characters stand in strings alone, where an escape means the same
    return Markup(text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026"))  # noqa: S704


def _script(formulas: Sequence[str]) -> Markup:
    """Return the script with the formulas of the laws. It holds no text of users."""
    body = resources.files("skillscale.report").joinpath("panel.js").read_text(encoding="utf-8")
    listed = ",\n".join(formulas)
    return Markup(f'"use strict";\n(() => {{\nconst FORMULAS = [\n{listed}];\n{body}}})();')  # noqa: S704
