"""Fitted laws as a short Python file to paste: the formula and the numbers. It needs only numpy."""

from collections.abc import Mapping

import numpy as np

from skillscale.errors import InputError
from skillscale.laws.io.document import LawMetadata, SavedLaw, formula

# Bodies of functions of N, D, shares h (a row per category) and the numbers p of the law
_X, _Y = 'x = np.log(N) - p["x0"]', 'y = np.log(D) - p["y0"]'
_POWERS = 'p["A"] * N ** -p["alpha"] + p["B"] * D ** -p["beta"]'
_FLOOR = "h = np.maximum(h, 1e-200)"
_WEIGHTED_SHARES = 'np.einsum("k,k...", p["{0}"], h)'
_CENTRED = 'p["E"] + p["A"] * np.exp(-p["alpha"] * x) + p["B"] * np.exp(-p["beta"] * np.exp(p["g"] * x) * y)'
_HYPERBOLA = '1 / sum(C * h_k**gamma for C, gamma, h_k in zip(p["C"], p["gamma"], h))'
_COUPLED = 'return p["E"] + (np.exp(u / p["k"]) + np.exp(v / p["k"])) ** p["k"]'
_SEPARABLE = (
    _X, _Y,
    f'L = ({_CENTRED}) * np.exp({_WEIGHTED_SHARES.format("s")})',
    'if "category" in p:',
    '    L = L * (len(h) * np.maximum(h[p["category"]], 1e-200)) ** -p["c"]',
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
        "# each exponential of the formula about the centre of the runs: its level, slope and bend there",
        _X, _Y,
        "def line(level, slope, bend):",
        "    return level + slope * (np.expm1(bend * x) / bend if bend else x)",
        'rate = np.exp(line(*p["rate"]))',
        'term = line(*p["term"]) + (np.exp(p["rate"][0]) - rate) * p["y0"] - rate * y',
        'return np.exp(line(*p["floor"])) + np.exp(term)',
    ),
    "effective_data": (
        f'return p["E"] + p["A"] * N ** -p["alpha"] + p["B"] * (D * {_WEIGHTED_SHARES.format("t")}) ** -p["beta"]',
    ),
    "additive_mixture": (_FLOOR, f'return p["E"] + {_POWERS} + {_HYPERBOLA}'),
    "joint_mixture": (
        _FLOOR,
        f'of_N = {_WEIGHTED_SHARES.format("a")} ** -p["r"] * N ** -p["alpha"]',
        f'of_D = {_WEIGHTED_SHARES.format("b")} ** -p["s"] * D ** -p["beta"]',
        f'return p["E"] + p["A"] * of_N + p["B"] * of_D + {_HYPERBOLA}',
    ),
    "separable": (*_SEPARABLE, "return L"),
    "separable_transient": (
        *_SEPARABLE,
        'return L * np.exp(p["w"] * np.exp(p["v"] * x - p["r"] * np.exp(y)))',
    ),
    "capacity_competition": (
        "# N is split so that h c b x^-(b + 1) is equal for all categories: Newton steps on its logarithm",
        'column = (-1,) + (1,) * np.ndim(N)',
        'E, c, b, A, a = (np.reshape(p[name], column) for name in "EcbAa")',
        "h = np.reshape(np.maximum(h, 1e-200), column)",
        "level = np.log(h * c * b)",
        "mu = np.max(level - (b + 1) * np.log(N), axis=0)",
        "for _ in range(60):",
        "    x = np.exp((level - mu) / (b + 1))",
        "    mu = mu + np.log(x.sum(0) / N) * x.sum(0) / (x / (b + 1)).sum(0)",
        "x = np.exp((level - mu) / (b + 1))",
        'return (E + c * x**-b + A * (D * h) ** -a)[p["category"]]',
    ),
}  # fmt: skip
_CENTRED_LAWS = ("drifting", "farseer", "separable", "separable_transient")
_FARSEER_PARTS = ("rate", "term", "floor")


def snippet(laws: Mapping[str, SavedLaw], metadata: LawMetadata, *, source: str) -> str:
    """Write a Python file that defines ``loss(skill, N, D, mix=None)``, in the unit of the runs' losses.

    Args:
        laws: laws by skill, or by MIX/SKILL.
        metadata: what the laws have in common.
        source: origin of the laws, in words.

    Raises:
        InputError: a law has no Python body here.
    """
    unsupported = [law.law.name for law in laws.values() if law.law.name not in _BODIES]
    if unsupported:
        raise InputError(
            f"the law {unsupported[0]} can't be written as Python. Write .json, which works for every law."
        )
    kinds = {law.law.name: law for law in laws.values()}
    n_runs = max(len(law.run_ids) for law in laws.values())
    # Names stand in comments and values alone, as repr writes them: without line ends, and never inside a docstring
    head = [
        '"""Losses by N parameters and D tokens, in nats per token or in the runs\' unit.',
        "",
        "Written by `skillscale export`; needs only numpy.",
        '"""',
        "",
        f"# Skills: {', '.join(map(repr, laws))}",
        f"# Laws of {source!r}, up to {n_runs} runs each. N: {metadata.convention or 'parameters, as in those runs'!r}",
        "",
        "import numpy as np",
    ]
    functions = [line for name, law in kinds.items() for line in _function(name, law)]
    numbers = ["", "", "LAWS = {", *(line for skill, law in laws.items() for line in _numbers(skill, law)), "}"]
    return "\n".join([*head, *functions, *numbers, _LOSS])


_LOSS = '''

def loss(skill, N, D, mix=None):
    """Return the loss of a skill. N, D: numbers or arrays. mix: share of each category, by default the runs' mean."""
    law, p = LAWS[skill]
    N, D = np.broadcast_arrays(np.asarray(N, dtype=float), np.asarray(D, dtype=float))
    mix = mix or p.get("mix")
    if not mix or "categories" not in p:
        return law(N, D, None, p)
    h = np.array([mix[name] for name in p["categories"]])
    # factor of a mix that was run, in addition to the law
    factor = p.get("mixes", {}).get(tuple(int(share) for share in np.round(1000 * h)), 1.0)
    return law(N, D, h, p) * factor
'''


def _function(name: str, law: SavedLaw) -> list[str]:
    body = [f"    {line}" for line in _BODIES[name]]
    return ["", "", f"def {name}(N, D, h, p):", f"    # {formula(law.law, centre=False)}", *body]


def _numbers(skill: str, law: SavedLaw) -> list[str]:
    entries = [f"            {name!r}: {value!r}," for name, value in _values(law).items()]
    comment = f"{law.reach[0]:.3g} to {law.reach[1]:.3g} FLOP, noise {100 * law.noise:.2f} %, {law.status!r}"
    return [f"    {skill!r}: (  # {comment}", f"        {law.law.name},", "        {", *entries, "        },", "    ),"]


def _values(saved: SavedLaw) -> dict[str, object]:
    """Return the numbers of a law. Those of the categories are lists, in the order of the categories."""
    law, categories = saved.law, saved.law.categories
    values: dict[str, object] = {}
    by_category: dict[str, list[float]] = {}
    if law.name == "farseer":
        q = saved.estimate.tolist()
        values = {part: q[3 * at : 3 * at + 3] for at, part in enumerate(_FARSEER_PARTS)}
    else:
        for name, value in zip(law.parameters, saved.theta.tolist(), strict=True):
            letter, _, category = name.partition("_")
            if category in categories:
                values[letter] = by_category.setdefault(letter, [])
                by_category[letter].append(value)
            else:
                values[name] = value
    if law.name in _CENTRED_LAWS:
        values |= {"x0": float(law.x0), "y0": float(law.y0)}
    if skill_category := getattr(law, "skill_category", ""):
        values["category"] = categories.index(skill_category)
    mix_categories = categories or saved.effects.categories
    if mix_categories:
        values |= {"categories": list(mix_categories), "mix": dict(saved.mix)}
    if len(saved.effects):
        shares = np.round(1000 * np.asarray(saved.effects.mixes)).astype(int).tolist()
        factors = np.exp(saved.effects.offsets).tolist()
        values["mixes"] = {tuple(row): factor for row, factor in zip(shares, factors, strict=True)}
    return values
