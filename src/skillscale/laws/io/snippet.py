"""Fitted laws as a few lines of Python to paste: the formula, the numbers, and nothing but numpy."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from skillscale.errors import InputError
from skillscale.laws.io.document import LawMetadata, SavedLaw, formula

# Each is the body of a function of N, D, shares h (a row a category) and the numbers of the law
_X, _Y = 'x = np.log(N) - p["x0"]', 'y = np.log(D) - p["y0"]'
_POWERS = 'p["A"] * N ** -p["alpha"] + p["B"] * D ** -p["beta"]'
_LEAST = "h = np.maximum(h, 1e-200)"
_OF_MIX = 'np.einsum("k,k...", p["{0}"], h)'
_CENTRED = 'p["E"] + p["A"] * np.exp(-p["alpha"] * x) + p["B"] * np.exp(-p["beta"] * np.exp(p["g"] * x) * y)'
_HYPERBOLA = '1 / sum(C * h_k**gamma for C, gamma, h_k in zip(p["C"], p["gamma"], h))'
_COUPLED = 'return p["E"] + (np.exp(u / p["k"]) + np.exp(v / p["k"])) ** p["k"]'
_SEPARABLE = (
    _X, _Y,
    f'L = ({_CENTRED}) * np.exp({_OF_MIX.format("s")})',
    'if "own" in p:',
    '    L = L * (len(h) * np.maximum(h[p["own"]], 1e-200)) ** -p["c"]',
)  # fmt: skip
_BODIES: dict[str, tuple[str, ...]] = {
    "chinchilla": (f'return p["E"] + {_POWERS}',),
    "coupled": (
        'u = np.log(p["A"]) - p["alpha"] * np.log(N)', 'v = np.log(p["B"]) - p["beta"] * np.log(D)', _COUPLED,
    ),
    "drifting": (
        _X, _Y,
        'u = np.log(p["A"]) - p["alpha"] * x', 'v = np.log(p["B"]) - p["beta"] * np.exp(p["g"] * x) * y', _COUPLED,
    ),
    "farseer": (
        "# each exponential of the formula about the centre of the runs: its level there, its slope and its bend",
        _X, _Y,
        "def line(level, slope, bend):",
        "    return level + slope * (np.expm1(bend * x) / bend if bend else x)",
        'rate = np.exp(line(*p["rate"]))',
        'term = line(*p["term"]) + (np.exp(p["rate"][0]) - rate) * p["y0"] - rate * y',
        'return np.exp(line(*p["floor"])) + np.exp(term)',
    ),
    "effective_data": (
        f'return p["E"] + p["A"] * N ** -p["alpha"] + p["B"] * (D * {_OF_MIX.format("t")}) ** -p["beta"]',
    ),
    "additive_mixture": (_LEAST, f'return p["E"] + {_POWERS} + {_HYPERBOLA}'),
    "joint_mixture": (
        _LEAST,
        f'of_N = {_OF_MIX.format("a")} ** -p["r"] * N ** -p["alpha"]',
        f'of_D = {_OF_MIX.format("b")} ** -p["s"] * D ** -p["beta"]',
        f'return p["E"] + p["A"] * of_N + p["B"] * of_D + {_HYPERBOLA}',
    ),
    "separable": (*_SEPARABLE, "return L"),
    "separable_transient": (
        *_SEPARABLE,
        'return L * np.exp(p["w"] * np.exp(p["v"] * x - p["r"] * np.exp(y)))',
    ),
    "capacity_competition": (
        "# N is split so that h c b x^-(b + 1) is alike for all categories: Newton steps on its logarithm",
        'column = (-1,) + (1,) * np.ndim(N)',
        'E, c, b, A, a = (np.reshape(p[name], column) for name in "EcbAa")',
        "h = np.reshape(np.maximum(h, 1e-200), column)",
        "level = np.log(h * c * b)",
        "mu = np.max(level - (b + 1) * np.log(N), axis=0)",
        "for _ in range(60):",
        "    x = np.exp((level - mu) / (b + 1))",
        "    mu = mu + np.log(x.sum(0) / N) * x.sum(0) / (x / (b + 1)).sum(0)",
        "x = np.exp((level - mu) / (b + 1))",
        'return (E + c * x**-b + A * (D * h) ** -a)[p["own"]]',
    ),
}  # fmt: skip
_ABOUT_CENTRE = ("drifting", "farseer", "separable", "separable_transient")
_FARSEER = ("rate", "term", "floor")


def snippet(laws: Mapping[str, SavedLaw], about: LawMetadata, *, source: str) -> str:
    """A Python file that defines ``loss(skill, N, D, mix=None)``, in the unit of the runs' losses.

    Args:
        laws: by skill, or by MIX/SKILL.
        about: what they have in common.
        source: where they are from, in words.

    Raises:
        InputError: a law without a body here.
    """
    unknown = [one.law.name for one in laws.values() if one.law.name not in _BODIES]
    if unknown:
        raise InputError(f"the law {unknown[0]} can't be written as Python; write .json, which every law can")
    kinds = {one.law.name: one for one in laws.values()}
    n_runs = max(len(one.runs) for one in laws.values())
    head = [
        f'"""Losses of {", ".join(laws)} by N parameters and D tokens: laws of {source}, up to {n_runs} runs each.',
        "",
        f"N: {about.convention or 'parameters, as in those runs'}. Losses: in nats per token, or as theirs.",
        "Written by `skillscale export`; needs numpy alone.",
        '"""',
        "",
        "import numpy as np",
    ]
    functions = [line for name, one in kinds.items() for line in _function(name, one)]
    numbers = ["", "", "LAWS = {", *(line for skill, one in laws.items() for line in _numbers(skill, one)), "}"]
    return "\n".join([*head, *functions, *numbers, _LOSS])


_LOSS = '''

def loss(skill, N, D, mix=None):
    """The loss of a skill. N, D: numbers or arrays; mix: share of each category, by default the mean of the runs."""
    law, p = LAWS[skill]
    N, D = np.broadcast_arrays(np.asarray(N, dtype=float), np.asarray(D, dtype=float))
    mix = mix or p.get("mix")
    if not mix or "categories" not in p:
        return law(N, D, None, p)
    h = np.array([mix[name] for name in p["categories"]])
    # what a mix that was run adds beyond the law
    own = p.get("mixes", {}).get(tuple(int(share) for share in np.round(1000 * h)), 1.0)
    return law(N, D, h, p) * own
'''


def _function(name: str, one: SavedLaw) -> list[str]:
    body = [f"    {line}" for line in _BODIES[name]]
    return ["", "", f"def {name}(N, D, h, p):", f"    # {formula(one.law, centre=False)}", *body]


def _numbers(skill: str, one: SavedLaw) -> list[str]:
    told = [f"            {name!r}: {value!r}," for name, value in _values(one).items()]
    reach = f"{one.reach[0]:.3g} to {one.reach[1]:.3g} FLOP, noise {one.noise:.2%}, {one.status}"
    return [f"    {skill!r}: (  # {reach}", f"        {one.law.name},", "        {", *told, "        },", "    ),"]


def _values(one: SavedLaw) -> dict[str, Any]:
    """The numbers of a law: those of the categories as lists, in their order."""
    law, categories = one.law, one.law.categories
    values: dict[str, Any] = {}
    if law.name == "farseer":
        q = one.estimate.tolist()
        values = {part: q[3 * at : 3 * at + 3] for at, part in enumerate(_FARSEER)}
    else:
        for name, value in zip(law.parameters, one.theta.tolist(), strict=True):
            letter, _, category = name.partition("_")
            if category in categories:
                values.setdefault(letter, []).append(value)
            else:
                values[name] = value
    if law.name in _ABOUT_CENTRE:
        values |= {"x0": float(law.x0), "y0": float(law.y0)}
    if own := getattr(law, "skill_category", ""):
        values["own"] = categories.index(own)
    asked = categories or one.effects.categories
    if asked:
        values |= {"categories": list(asked), "mix": dict(one.mix)}
    if len(one.effects):
        shares = np.round(1000 * np.asarray(one.effects.mixes)).astype(int).tolist()
        factors = np.exp(one.effects.offsets).tolist()
        values["mixes"] = {tuple(row): factor for row, factor in zip(shares, factors, strict=True)}
    return values
