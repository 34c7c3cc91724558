"""Known worlds to try designs on: three skills, losses of any run, and the optima that a design has to find.

Five kinds follow a published comparison of designs by its description, at the scale of one run of 1e16 to 1e19 FLOP;
the sixth is our own. Each is random within what fits of language models show. Noise of ln L is .4 %, half of its
variance common to all skills of a run.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum

import numpy as np
import numpy.typing as npt

from skillscale.laws.forms.nd import Array

SKILLS = ("knowledge", "code", "prose")
FLOPS = (1e16, 1e19)
NOISE = 0.004
SHARED = 0.5  # of the variance of the noise, common to all skills of a run
_ANCHOR_C = 1e18  # where terms, exponents and optima are drawn
_AHEAD = {"knowledge": 0.5, "code": -0.4, "prose": 0.0}  # of ln N* at the anchor
_BAD_SHARE, _BAD_BY = 0.04, 0.05
_REACH = math.log(1e4)
_USUAL = math.log(50)  # an optimum further than this from 20 tokens a parameter is no language model's
LogLoss = Callable[[Array, Array, Array | None], Array]


class TruthFamily(StrEnum):
    """What the truth looks like.

    ``add``: Chinchilla's form; ``real``: coupled terms and a drifting exponent; ``far``: Farseer's form; ``corr``:
    Chinchilla's with corrections that vanish with scale; ``hp``: Chinchilla's with extremes of D/N that train badly,
    and 4 % of the runs silently 5 % off; ``bend``: Chinchilla's with an exponent of the data that changes along the way
    (a smoothly broken power law).
    """

    ADD = "add"
    REAL = "real"
    FAR = "far"
    CORR = "corr"
    HP = "hp"
    BEND = "bend"


@dataclass(frozen=True, kw_only=True)
class RandomTruth:
    """Skills whose losses are known: ``log_loss`` of each at (N, D, h)."""

    kind: str
    log_loss: Mapping[str, LogLoss] = field(repr=False)
    categories: tuple[str, ...] = ()
    noise: float = NOISE
    bad: float = 0.0

    def observe(self, N: Array, D: Array, h: Array | None, rng: np.random.Generator) -> dict[str, Array]:
        """Ln L of each skill as one run each would measure it, (n,)."""
        common = rng.normal(scale=self.noise * math.sqrt(SHARED), size=len(N))
        common = common + _BAD_BY * (rng.random(len(N)) < self.bad)
        own = self.noise * math.sqrt(1 - SHARED)
        return {
            name: log_loss(N, D, h) + common + rng.normal(scale=own, size=len(N))
            for name, log_loss in self.log_loss.items()
        }

    def log_optimum(self, skill: str, C: npt.ArrayLike, h: Array | None = None) -> Array:
        """Ln N*(C) by search, (n_C,), for one mix."""
        bare = self.log_loss[skill]
        return np.array([
            _lowest(lambda N, D: bare(N, D, None if h is None else np.tile(h, (len(N), 1))), float(one))
            for one in np.atleast_1d(C)
        ])  # fmt: skip


def _lowest(log_loss: Callable[[Array, Array], Array], C: float) -> float:
    """Ln N*(C), by ever finer grids."""
    middle, reach = 0.5 * math.log(C / 6 / 20), _REACH
    for _ in range(4):
        log_N = np.linspace(middle - reach, middle + reach, 201)
        middle = float(log_N[np.argmin(log_loss(np.exp(log_N), C / (6 * np.exp(log_N))))])
        reach /= 50
    return middle


def random_truth(kind: TruthFamily, seed: int, categories: tuple[str, ...] = ()) -> RandomTruth:
    """A world of a kind; with ``categories`` their shares count as effective data.

    In mixed worlds of kind ``far`` the shares count in a way that no offered law has: with diminishing returns, and on
    the floor as well.
    """
    rng = np.random.default_rng([seed, list(TruthFamily).index(kind), len(categories)])
    bad = _BAD_SHARE if kind is TruthFamily.HP else 0.0
    return RandomTruth(
        kind=kind, log_loss={skill: _random_skill(kind, skill, rng, categories) for skill in SKILLS},
        categories=categories, bad=bad,
    )  # fmt: skip


def _random_skill(kind: TruthFamily, skill: str, rng: np.random.Generator, categories: tuple[str, ...]) -> LogLoss:
    bare = _BARE[kind](_AHEAD[skill], rng)
    if not categories:
        return lambda N, D, _: bare(N, D)
    own = SKILLS.index(skill) % len(categories)
    log_t = rng.normal(scale=0.6, size=len(categories))
    log_t[own] += 1.2
    t = np.exp(log_t - np.log(np.mean(np.exp(log_t))))
    rho, floor = (rng.uniform(0.5, 0.8), rng.uniform(0.0, 0.05)) if kind is TruthFamily.FAR else (1.0, 0.0)

    def mixed(N: Array, D: Array, h: Array | None) -> Array:
        assert h is not None
        share = ((h**rho) @ t) ** (1 / rho) / len(categories) ** (1 / rho - 1)
        return bare(N, D * share) + floor * (1 - h[:, own])

    return mixed


def _base(ahead: float, rng: np.random.Generator) -> tuple[float, float, float, float, float, float, float]:
    """E, and at the anchor: the two terms; alpha, beta; ln N and ln D of the optimum."""
    log_N = 0.5 * math.log(_ANCHOR_C / 6 / 20) + ahead + rng.normal(scale=0.35)
    alpha, beta = rng.uniform(0.27, 0.45, 2)
    L, reducible = rng.uniform(1.5, 3.2), rng.uniform(0.25, 0.5)
    R = L * reducible
    return (
        L - R,
        R * beta / (alpha + beta),
        R * alpha / (alpha + beta),
        alpha,
        beta,
        log_N,
        math.log(_ANCHOR_C / 6) - log_N,
    )


def _add(ahead: float, rng: np.random.Generator, *, k: float = 1.0, g: float = 0.0) -> Callable[[Array, Array], Array]:
    E, A, B, alpha, beta, x0, y0 = _base(ahead, rng)

    def log_loss(N: Array, D: Array) -> Array:
        x, y = np.log(N) - x0, np.log(D) - y0
        u, v = (math.log(A) - alpha * x) / k, (math.log(B) - beta * np.exp(g * x) * y) / k
        return np.asarray(np.log(E + np.exp(k * np.logaddexp(u, v))))

    return log_loss


def _real(ahead: float, rng: np.random.Generator) -> Callable[[Array, Array], Array]:
    k, g = math.exp(rng.uniform(math.log(0.28), math.log(0.9))), float(np.clip(rng.normal(-0.025, 0.02), -0.06, 0.02))
    return _add(ahead, rng, k=k, g=g)


def _far(ahead: float, rng: np.random.Generator) -> Callable[[Array, Array], Array]:
    """exp(floor(x)) + exp(term(x) - rate(x) y), each a bent line in x = ln N about the anchor.

    Slopes and bends scatter about those of Farseer's 411 published runs (floor -.107 and .036, rate -.146 and .019,
    term at fixed D .28 and -.143); the optimum at the anchor is where the slopes of the two terms balance.
    """
    while True:
        E, A, B, _, beta, x0, y0 = _base(ahead, rng)
        L = E + A + B
        floor_slope, floor_bend = -rng.uniform(0.08, 0.13), rng.normal(0.036, 0.03)
        rate_slope, rate_bend = rng.normal(-0.12, 0.04), rng.normal(0.02, 0.03)
        term_slope, term_bend = rng.normal(0.2, 0.08), rng.normal(-0.12, 0.04)
        ratio = -floor_slope / (term_slope + beta)
        made = _farseer(
            (x0, y0), (math.log(L / (1 + ratio)), floor_slope, floor_bend), (math.log(beta), rate_slope, rate_bend),
            (math.log(L * ratio / (1 + ratio)), term_slope, term_bend),
        )  # fmt: skip
        budgets = np.geomspace(FLOPS[0], 100 * FLOPS[1], 6)
        optima = np.array([_lowest(made, C) for C in budgets])
        slopes = np.diff(optima) / np.log(10)
        usual = np.all(np.abs(optima - 0.5 * np.log(budgets / 120)) < _USUAL)
        if usual and np.all((slopes > 0.35) & (slopes < 0.75)) and np.ptp(slopes) < 0.3:
            return made


def _farseer(
    at: tuple[float, float], floor: tuple[float, float, float], rate: tuple[float, float, float],
    term: tuple[float, float, float],
) -> Callable[[Array, Array], Array]:  # fmt: skip
    def bent(x: Array, level: float, slope: float, bend: float) -> Array:
        return np.asarray(level + slope * np.expm1(bend * x) / bend)

    def log_loss(N: Array, D: Array) -> Array:
        x, y = np.log(N) - at[0], np.log(D) - at[1]
        return np.asarray(np.logaddexp(bent(x, *floor), bent(x, *term) - np.exp(bent(x, *rate)) * y))

    return log_loss


def _corr(ahead: float, rng: np.random.Generator) -> Callable[[Array, Array], Array]:
    bare = _add(ahead, rng)
    by_N, by_D = rng.normal(scale=0.03, size=2)
    fade_N, fade_D = rng.uniform(0.3, 0.7, 2)

    def log_loss(N: Array, D: Array) -> Array:
        least_N, least_D = math.sqrt(FLOPS[0] / 120), math.sqrt(FLOPS[0] / 6 * 20)
        return np.asarray(bare(N, D) + by_N * (1 + N / least_N) ** -fade_N + by_D * (1 + D / least_D) ** -fade_D)

    return log_loss


def _hp(ahead: float, rng: np.random.Generator) -> Callable[[Array, Array], Array]:
    bare = _add(ahead, rng)
    steep, near = rng.uniform(0.002, 0.008, 2), rng.uniform(1.5, 3.0, 2)

    def log_loss(N: Array, D: Array) -> Array:
        off = np.log(D / N / 20)
        over, under = np.maximum(off - near[0], 0.0), np.maximum(-off - near[1], 0.0)
        return np.asarray(bare(N, D) + steep[0] * over**2 + steep[1] * under**2)

    return log_loss


def _bend(ahead: float, rng: np.random.Generator) -> Callable[[Array, Array], Array]:
    E, A, B, alpha, beta, x0, y0 = _base(ahead, rng)
    change, sharp = rng.uniform(-0.08, 0.08), rng.uniform(0.5, 1.5)
    at = y0 + rng.uniform(-3.0, 1.0)

    def log_loss(N: Array, D: Array) -> Array:
        x, y = np.log(N) - x0, np.log(D)
        softplus = (np.logaddexp(0.0, sharp * (y - at)) - np.logaddexp(0.0, sharp * (y0 - at))) / sharp
        term = math.log(B) - beta * (y - y0) - change * softplus
        return np.asarray(np.log(E + np.exp(math.log(A) - alpha * x) + np.exp(term)))

    return log_loss


_BARE: Mapping[TruthFamily, Callable[[float, np.random.Generator], Callable[[Array, Array], Array]]] = {
    TruthFamily.ADD: _add, TruthFamily.REAL: _real, TruthFamily.FAR: _far, TruthFamily.CORR: _corr, TruthFamily.HP: _hp, TruthFamily.BEND: _bend,
}  # fmt: skip
