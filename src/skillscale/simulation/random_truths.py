"""Random truths: three skills, losses of any run, and the optima that a design has to find.

Five families follow a published comparison of designs by its description, at the scale of one run of 1e16 to 1e19 FLOP.
The sixth, ``broken_power_law``, is new. Each truth is random within what published fits of language models show. The
noise of ln L is 0.4 %, and half of its variance is common to all skills of a run.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum

import numpy as np

from skillscale.laws.forms.nd import Array
from skillscale.simulation.truth import LossTable

SKILLS = ("knowledge", "code", "prose")
FLOPS = (1e16, 1e19)
NOISE = 0.004
SHARED = 0.5  # share of the noise variance that is common to all skills of a run
_ANCHOR_C = 1e18  # compute at which terms, exponents and optima are drawn
_AHEAD = {"knowledge": 0.5, "code": -0.4, "prose": 0.0}  # mean shift of ln N* at the anchor
_BAD_SHARE, _BAD_ERROR = 0.04, 0.05  # share of bad runs, and their error in ln L
_REACH = math.log(1e4)
_USUAL = math.log(50)  # largest distance of an optimum from 20 tokens a parameter, in ln N
LogLoss = Callable[[Array, Array, Array | None], Array]
BareLogLoss = Callable[[Array, Array], Array]  # without a mix


class TruthFamily(StrEnum):
    """The form of a random truth.

    ``chinchilla``: Chinchilla's form. ``coupled_drifting``: coupled terms, and an exponent of the data that drifts with
    N. ``farseer``: Farseer's form. ``small_scale_correction``: Chinchilla's form with corrections that vanish with
    scale. ``mistuned``: Chinchilla's form with extremes of D/N that train badly, and 4 % of the runs silently 5 % off.
    ``broken_power_law``: Chinchilla's form with an exponent of the data that changes with D (smoothly broken).
    """

    CHINCHILLA = "chinchilla"
    COUPLED_DRIFTING = "coupled_drifting"
    FARSEER = "farseer"
    SMALL_SCALE_CORRECTION = "small_scale_correction"
    MISTUNED = "mistuned"
    BROKEN_POWER_LAW = "broken_power_law"


@dataclass(frozen=True, kw_only=True)
class RandomTruth:
    """A ``Truth`` with the losses of a family.

    ``log_losses``: ln L of each skill at (N, D, h). ``noise``: sd of ln L of a run. ``bad_share``: share of runs that
    are off in all skills.
    """

    family: TruthFamily
    log_losses: Mapping[str, LogLoss] = field(repr=False)
    categories: tuple[str, ...] = ()
    noise: float = NOISE
    bad_share: float = 0.0

    @property
    def skills(self) -> tuple[str, ...]:
        """Names of the skills."""
        return tuple(self.log_losses)

    @property
    def why_unknown(self) -> str:
        """Nothing: optima are known."""
        return ""

    def measure(self, N: Array, D: Array, h: Array | None, rng: np.random.Generator) -> tuple[LossTable, LossTable]:
        """Return measured ln L of each skill, (n,), without standard errors, which are 0."""
        common = rng.normal(scale=self.noise * math.sqrt(SHARED), size=len(N))
        common = common + _BAD_ERROR * (rng.random(len(N)) < self.bad_share)
        sd = self.noise * math.sqrt(1 - SHARED)
        log_L = {
            skill: log_loss(N, D, h) + common + rng.normal(scale=sd, size=len(N))
            for skill, log_loss in self.log_losses.items()
        }
        return log_L, {skill: np.zeros(len(N)) for skill in log_L}

    def log_loss(self, skill: str, N: Array, D: Array, h: Array | None = None) -> Array:
        """Return ln L without noise, (n,)."""
        return self.log_losses[skill](N, D, h)

    def log_optimum(self, skill: str, C: float, h: Array | None = None) -> float:
        """Return ln N*(C) by search, for one mix."""
        log_loss = self.log_losses[skill]
        return _lowest(lambda N, D: log_loss(N, D, None if h is None else np.tile(h, (len(N), 1))), float(C))


def _lowest(log_loss: BareLogLoss, C: float) -> float:
    """Return ln N*(C), by ever finer grids."""
    middle, reach = 0.5 * math.log(C / 6 / 20), _REACH
    for _ in range(4):
        log_N = np.linspace(middle - reach, middle + reach, 201)
        middle = float(log_N[np.argmin(log_loss(np.exp(log_N), C / (6 * np.exp(log_N))))])
        reach /= 50
    return middle


def random_truth(family: TruthFamily, seed: int, categories: tuple[str, ...] = ()) -> RandomTruth:
    """Draw a truth of a family; with ``categories`` their shares act as effective data.

    In mixed truths of the family ``farseer`` the shares act as no candidate law of the design does: with diminishing
    returns, and on the floor as well.
    """
    rng = np.random.default_rng([seed, list(TruthFamily).index(family), len(categories)])
    return RandomTruth(
        family=family, log_losses={skill: _random_skill(family, skill, rng, categories) for skill in SKILLS},
        categories=categories, bad_share=_BAD_SHARE if family is TruthFamily.MISTUNED else 0.0,
    )  # fmt: skip


def _random_skill(family: TruthFamily, skill: str, rng: np.random.Generator, categories: tuple[str, ...]) -> LogLoss:
    bare = _FORMS[family](_AHEAD[skill], rng)
    if not categories:
        return lambda N, D, _: bare(N, D)
    best = SKILLS.index(skill) % len(categories)
    log_t = rng.normal(scale=0.6, size=len(categories))
    log_t[best] += 1.2
    t = np.exp(log_t - np.log(np.mean(np.exp(log_t))))
    rho, floor = (rng.uniform(0.5, 0.8), rng.uniform(0.0, 0.05)) if family is TruthFamily.FARSEER else (1.0, 0.0)

    def mixed(N: Array, D: Array, h: Array | None) -> Array:
        assert h is not None
        share = ((h**rho) @ t) ** (1 / rho) / len(categories) ** (1 / rho - 1)
        return bare(N, D * share) + floor * (1 - h[:, best])

    return mixed


def _base(ahead: float, rng: np.random.Generator) -> tuple[float, float, float, float, float, float, float]:
    """Draw E, and at the anchor the two terms, alpha, beta, and ln N and ln D of the optimum."""
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


def _chinchilla(ahead: float, rng: np.random.Generator, *, k: float = 1.0, g: float = 0.0) -> BareLogLoss:
    E, A, B, alpha, beta, x0, y0 = _base(ahead, rng)

    def log_loss(N: Array, D: Array) -> Array:
        x, y = np.log(N) - x0, np.log(D) - y0
        u, v = (math.log(A) - alpha * x) / k, (math.log(B) - beta * np.exp(g * x) * y) / k
        return np.asarray(np.log(E + np.exp(k * np.logaddexp(u, v))))

    return log_loss


def _coupled_drifting(ahead: float, rng: np.random.Generator) -> BareLogLoss:
    k, g = math.exp(rng.uniform(math.log(0.28), math.log(0.9))), float(np.clip(rng.normal(-0.025, 0.02), -0.06, 0.02))
    return _chinchilla(ahead, rng, k=k, g=g)


def _farseer(ahead: float, rng: np.random.Generator) -> BareLogLoss:
    """Draw exp(floor(x)) + exp(term(x) - rate(x) y), each a bent line in x = ln N about the anchor.

    Slopes and bends scatter about those of Farseer's 411 published runs: floor -0.107 and 0.036, rate -0.146 and 0.019,
    term at fixed D 0.28 and -0.143. The optimum at the anchor is where the slopes of the two terms balance.
    """
    while True:
        E, A, B, _, beta, x0, y0 = _base(ahead, rng)
        L = E + A + B
        floor_slope, floor_bend = -rng.uniform(0.08, 0.13), rng.normal(0.036, 0.03)
        rate_slope, rate_bend = rng.normal(-0.12, 0.04), rng.normal(0.02, 0.03)
        term_slope, term_bend = rng.normal(0.2, 0.08), rng.normal(-0.12, 0.04)
        ratio = -floor_slope / (term_slope + beta)
        log_loss = _farseer_form(
            (x0, y0), (math.log(L / (1 + ratio)), floor_slope, floor_bend), (math.log(beta), rate_slope, rate_bend),
            (math.log(L * ratio / (1 + ratio)), term_slope, term_bend),
        )  # fmt: skip
        budgets = np.geomspace(FLOPS[0], 100 * FLOPS[1], 6)
        optima = np.array([_lowest(log_loss, C) for C in budgets])
        slopes = np.diff(optima) / np.log(10)
        usual = np.all(np.abs(optima - 0.5 * np.log(budgets / 120)) < _USUAL)
        if usual and np.all((slopes > 0.35) & (slopes < 0.75)) and np.ptp(slopes) < 0.3:
            return log_loss


def _farseer_form(
    at: tuple[float, float], floor: tuple[float, float, float], rate: tuple[float, float, float],
    term: tuple[float, float, float],
) -> BareLogLoss:  # fmt: skip
    def bent(x: Array, level: float, slope: float, bend: float) -> Array:
        return np.asarray(level + slope * np.expm1(bend * x) / bend)

    def log_loss(N: Array, D: Array) -> Array:
        x, y = np.log(N) - at[0], np.log(D) - at[1]
        return np.asarray(np.logaddexp(bent(x, *floor), bent(x, *term) - np.exp(bent(x, *rate)) * y))

    return log_loss


def _small_scale_correction(ahead: float, rng: np.random.Generator) -> BareLogLoss:
    bare = _chinchilla(ahead, rng)
    by_N, by_D = rng.normal(scale=0.03, size=2)
    fade_N, fade_D = rng.uniform(0.3, 0.7, 2)

    def log_loss(N: Array, D: Array) -> Array:
        least_N, least_D = math.sqrt(FLOPS[0] / 120), math.sqrt(FLOPS[0] / 6 * 20)
        return np.asarray(bare(N, D) + by_N * (1 + N / least_N) ** -fade_N + by_D * (1 + D / least_D) ** -fade_D)

    return log_loss


def _mistuned(ahead: float, rng: np.random.Generator) -> BareLogLoss:
    bare = _chinchilla(ahead, rng)
    steep, near = rng.uniform(0.002, 0.008, 2), rng.uniform(1.5, 3.0, 2)

    def log_loss(N: Array, D: Array) -> Array:
        off = np.log(D / N / 20)
        over, under = np.maximum(off - near[0], 0.0), np.maximum(-off - near[1], 0.0)
        return np.asarray(bare(N, D) + steep[0] * over**2 + steep[1] * under**2)

    return log_loss


def _broken_power_law(ahead: float, rng: np.random.Generator) -> BareLogLoss:
    E, A, B, alpha, beta, x0, y0 = _base(ahead, rng)
    change, sharp = rng.uniform(-0.08, 0.08), rng.uniform(0.5, 1.5)
    at = y0 + rng.uniform(-3.0, 1.0)

    def log_loss(N: Array, D: Array) -> Array:
        x, y = np.log(N) - x0, np.log(D)
        softplus = (np.logaddexp(0.0, sharp * (y - at)) - np.logaddexp(0.0, sharp * (y0 - at))) / sharp
        term = math.log(B) - beta * (y - y0) - change * softplus
        return np.asarray(np.log(E + np.exp(math.log(A) - alpha * x) + np.exp(term)))

    return log_loss


_FORMS: Mapping[TruthFamily, Callable[[float, np.random.Generator], BareLogLoss]] = {
    TruthFamily.CHINCHILLA: _chinchilla,
    TruthFamily.COUPLED_DRIFTING: _coupled_drifting,
    TruthFamily.FARSEER: _farseer,
    TruthFamily.SMALL_SCALE_CORRECTION: _small_scale_correction,
    TruthFamily.MISTUNED: _mistuned,
    TruthFamily.BROKEN_POWER_LAW: _broken_power_law,
}
