"""Simulated studies: a truth for each skill, a grid of runs, and the kinds of noise that real runs share.

Tests and benchmarks use them. The default scale is that of the main study: optima near 6e4 parameters, 2 to 4 nats per
token, noise below 1 %.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.optimize import minimize_scalar

from skillscale.laws.fit.data import RunData
from skillscale.laws.forms.nd import Array, Drifting, Law


@dataclass(frozen=True, kw_only=True)
class PlantedLaw:
    """L = E + (e^(u/k) + e^(v/k))^k, u = ln A - alpha x, v = ln B - beta e^(g x) y, x = ln N/N0, y = ln D/D0.

    k = 1, g = 0 is Chinchilla; k < 1 couples the two terms, g lets the data exponent drift with N. ``A`` and ``B`` are
    the terms at (N0, D0), in nats per token.
    """

    E: float
    A: float
    B: float
    alpha: float
    beta: float
    N0: float = field(metadata={"unit": "parameters"})
    D0: float = field(metadata={"unit": "tokens"})
    k: float = 1.0
    g: float = 0.0

    @classmethod
    def at_optimum(
        cls,
        *,
        N: float,
        C: float,
        L: float,
        reducible: float,
        alpha: float,
        beta: float,
        k: float = 1.0,
        g: float = 0.0,
    ) -> "PlantedLaw":
        """Return the truth with optimum N at budget C, loss L there, and ``reducible`` the share of L above E."""
        total = (reducible * L) ** (1 / k)
        A, B = (beta / (alpha + beta) * total) ** k, (alpha / (alpha + beta) * total) ** k
        return cls(E=(1 - reducible) * L, A=A, B=B, alpha=alpha, beta=beta, N0=N, D0=C / (6 * N), k=k, g=g)

    def loss(self, N: npt.ArrayLike, D: npt.ArrayLike) -> Array:
        """Return L in nats per token."""
        x, y = np.log(np.asarray(N, dtype=float) / self.N0), np.log(np.asarray(D, dtype=float) / self.D0)
        u, v = math.log(self.A) - self.alpha * x, math.log(self.B) - self.beta * np.exp(self.g * x) * y
        return np.asarray(self.E + (np.exp(u / self.k) + np.exp(v / self.k)) ** self.k)

    def optimum(self, C: float) -> float:
        """Return N*(C) by search within a factor 10^4 of N0."""
        ln_N0 = math.log(self.N0)
        result = minimize_scalar(
            lambda ln_N: float(self.loss(math.exp(ln_N), C / (6 * math.exp(ln_N)))),
            bounds=(ln_N0 - 9.2, ln_N0 + 9.2), method="bounded", options={"xatol": 1e-9},
        )  # fmt: skip
        return math.exp(result.x)


@dataclass(frozen=True, kw_only=True)
class Grid:
    """A grid: ``sizes`` at each budget over +-``span`` about ``coefficient`` C^``exponent``, each ``seeds`` times."""

    budgets: tuple[float, ...] = (5e10, 1.6e11, 5e11)
    sizes: int = 7
    span: float = 8.0
    seeds: int = 2
    coefficient: float = 0.1
    exponent: float = 0.5


@dataclass(frozen=True, kw_only=True)
class NoiseModel:
    """The errors of ln L.

    ``run``: sd of a run. ``shared``: share of its variance that is common to all skills. ``seed_level`` and
    ``seed_tilt``: sd of the effect of a seed's token stream, on all sizes and per unit of ln(N / centre), common to all
    skills and budgets. ``small``: the run sd grows as (N / centre)^-small.
    """

    run: float = 0.004
    shared: float = 0.5
    seed_level: float = 0.003
    seed_tilt: float = 0.0
    small: float = 0.0


def simulate_study(
    truths: Mapping[str, PlantedLaw], rng: np.random.Generator, *, grid: Grid | None = None,
    noise: NoiseModel | None = None, mix: str = "all=1",
) -> pd.DataFrame:  # fmt: skip
    """Return the runs of a study as rows: run_id, C, N, D, mix, seed, and a loss column for each truth."""
    grid, noise = grid or Grid(), noise or NoiseModel()
    rows: list[dict[str, object]] = []
    size_step = np.linspace(-math.log(grid.span), math.log(grid.span), grid.sizes)
    streams = rng.normal(size=(grid.seeds, 2))
    for C in grid.budgets:
        centre = grid.coefficient * C**grid.exponent
        for seed, (level, tilt) in enumerate(streams):
            for x in size_step:
                N = float(round(centre * math.exp(x)))
                common = noise.seed_level * level + noise.seed_tilt * tilt * x
                sd = noise.run * math.exp(-noise.small * x)
                errors = rng.normal(size=len(truths)) * math.sqrt(1 - noise.shared)
                errors = errors + rng.normal() * math.sqrt(noise.shared)
                D = C / (6 * N)
                losses = {
                    skill: float(truth.loss(N, D)) * math.exp(common + sd * error)
                    for (skill, truth), error in zip(truths.items(), errors, strict=True)
                }
                rows.append(
                    {"run_id": f"run-{len(rows):03d}", "C": C, "N": N, "D": D, "mix": mix, "seed": seed} | losses
                )
    return pd.DataFrame(rows)


def random_planted_law(
    rng: np.random.Generator, *, kind: str = "chinchilla", C: float = 1.6e11, off_centre: float = 1.6
) -> PlantedLaw:
    """Draw a truth at the scale of the main study.

    Args:
        rng: random numbers.
        kind: ``chinchilla`` (k = 1, g = 0) or ``drifting`` (k from 0.5 to 1, g from -0.05 to 0.05).
        C: budget of the optimum.
        off_centre: largest factor between the optimum and the centre of the default grid (about 4e4 at this budget).
    """
    drifting = kind == "drifting"
    return PlantedLaw.at_optimum(
        N=0.1 * math.sqrt(C) * off_centre ** rng.uniform(-1, 1),
        C=C,
        L=rng.uniform(2, 4),
        reducible=rng.uniform(0.25, 0.65),
        alpha=rng.uniform(0.25, 0.6),
        beta=rng.uniform(0.25, 0.6),
        k=rng.uniform(0.5, 1) if drifting else 1.0,
        g=rng.uniform(-0.05, 0.05) if drifting else 0.0,
    )


def demo_study(seed: int = 0, *, noise: NoiseModel | None = None) -> tuple[pd.DataFrame, dict[str, PlantedLaw]]:
    """Return a study with a capacity-hungry, a data-hungry and an average skill and their aggregate, and the truths."""
    at = {"C": 1.6e11, "reducible": 0.5}
    truths = {
        "knowledge": PlantedLaw.at_optimum(N=5.6e4, L=3.6, alpha=0.42, beta=0.36, **at),
        "code": PlantedLaw.at_optimum(N=3.0e4, L=2.4, alpha=0.38, beta=0.40, **at),
        "prose": PlantedLaw.at_optimum(N=4.1e4, L=3.1, alpha=0.40, beta=0.38, **at),
        "aggregate": PlantedLaw.at_optimum(N=4.1e4, L=3.0, alpha=0.40, beta=0.38, **at),
    }
    return simulate_study(truths, np.random.default_rng(seed), noise=noise), truths


CENTRE_C = 1.6e11  # middle budget of the designs below: 4e4 parameters with 6.7e5 tokens
NAMES = ("code", "prose", "wiki")


class NoiseDraws(StrEnum):
    """The kind of noise of simulated runs."""

    EVEN = "even"
    UNEVEN = "uneven"
    CLUSTERED = "clustered"
    OUTLIERS = "outliers"

    def draw(self, points: RunData, rng: np.random.Generator, x: Array) -> Array:
        """Draw errors of ln L, (n,), of runs at x = ln N about the design's centre, with sd 0.005 overall.

        ``uneven``: three times as large at the smallest N as at the largest. ``clustered``: 0.004 for all checkpoints
        of a run and 0.0015 for each. ``outliers``: 2 % of the runs are 0.05 higher.
        """
        return np.asarray(self.draw_skills(points, rng, x, skills=1)[0])

    def draw_skills(self, points: RunData, rng: np.random.Generator, x: Array, *, skills: int) -> Array:
        """Draw errors (skills, n) of the same runs in several skills; half their variance is common to all skills.

        An outlier is one in every skill, as a bad run is.
        """
        error = 0.005 * _shared_in_part(rng, skills, len(x))
        match self:
            case NoiseDraws.UNEVEN:
                return np.asarray(error * 3 ** (-x / _SPAN))
            case NoiseDraws.CLUSTERED:
                run_error = 0.004 * _shared_in_part(rng, skills, points.n_clusters)
                return np.asarray(0.3 * error + run_error[:, np.asarray(points.clusters)])
            case NoiseDraws.OUTLIERS:
                return np.asarray(error + 0.05 * (rng.random(len(x)) < 0.02))
        return error


_SPAN = 2 * math.log(32)  # range of ln N in the designs below


def _shared_in_part(rng: np.random.Generator, skills: int, n: int) -> Array:
    """Draw standard normals (skills, n) with correlation 0.5 between skills."""
    separate = rng.normal(size=(skills, n))
    return separate if skills == 1 else (separate + rng.normal(size=n)) / math.sqrt(2)


def design_points(rng: np.random.Generator, *, mixed: bool = False, checkpoints: int = 1) -> RunData:
    """Return runs at five budgets over a factor of 256, with sizes over +-8x about their optima; losses are 1.

    Args:
        rng: random numbers for the mixes.
        mixed: whether the runs differ in their mix of three categories. Then they are twice as many.
        checkpoints: checkpoints of each run, the last at its budget. With several there are fewer runs.
    """
    sizes = (9 if checkpoints == 1 else 6) * (1 + mixed)
    C = np.repeat(CENTRE_C * 4.0 ** np.arange(-2, 3), sizes)
    N = 0.1 * np.sqrt(C) * np.tile(np.geomspace(1 / 8, 8, sizes), 5)
    h = np.repeat(0.04 + 0.88 * rng.dirichlet(np.ones(3), len(N)), checkpoints, axis=0)
    D = np.outer(C / (6 * N), np.geomspace(1 / 8, 1, checkpoints) if checkpoints > 1 else [1.0]).ravel()
    return RunData(
        N=np.repeat(N, checkpoints), D=D, L=np.ones(len(D)), h=h if mixed else None,
        categories=NAMES if mixed else (), clusters=np.repeat(np.arange(len(N)), checkpoints),
    )  # fmt: skip


def random_parameters(law: Law, rng: np.random.Generator, *, edge: bool = False) -> Array:
    """Draw log-parameters (p,) of a truth with its optimum near the centre of the design.

    Parameters with a weak prior are drawn from it, within two sd, and closer where the law would fit no language model.
    ``edge``: k and g are two sd from the prior's mean.
    """
    m = len(law.categories)
    total, reducible = rng.uniform(2, 4), rng.uniform(0.35, 0.65)
    alpha, beta = rng.uniform(0.28, 0.5, 2)
    log_k = _weak(law, 5, rng, edge=edge) if isinstance(law, Drifting) else 0.0
    terms = (reducible * total) ** math.exp(-log_k) * np.array([beta, alpha]) / (alpha + beta)
    aside = rng.uniform(-0.5, 0.5) * np.array([beta, -alpha]) / 2
    base = [math.log((1 - reducible) * total), *(math.exp(log_k) * np.log(terms) + aside), alpha, beta]
    match law.name:
        case "chinchilla":
            return np.array(base)
        case "coupled":
            return np.array([*base, log_k])
        case "drifting":
            return np.array([*base, log_k, _weak(law, 6, rng, edge=edge)])
        case "farseer":
            return _farseer(law, base, rng)
        case "effective_data":
            return np.array([*base, *rng.normal(scale=0.8, size=m)])
        case "capacity_competition":
            return _competing(base, rng, m)
        case "additive_mixture" | "joint_mixture":
            base[0] += math.log(0.6)
            more = [*rng.normal(1.2, 0.5, m), *rng.normal(math.log(0.5), 0.4, m)]
            tilts = [*rng.normal(scale=0.8, size=2 * m), *rng.normal(scale=0.2, size=2)]
            return np.array([*base, *more, *(tilts if law.name == "joint_mixture" else [])])
    more = [rng.normal(scale=0.05), *rng.normal(scale=0.3, size=m), rng.uniform(0.03, 0.2)]
    late = [rng.normal(-1, 0.7), rng.normal(2, 0.5), rng.normal(scale=0.15)]
    return np.array([*base, *more, *(late if law.name == "separable_transient" else [])])


def _weak(law: Law, place: int, rng: np.random.Generator, *, edge: bool) -> float:
    """Draw a log-parameter from its prior."""
    prior = law.priors[place]
    z = 2 * rng.choice([-1.0, 1.0]) if edge else float(np.clip(rng.normal(), -2, 2))
    return prior.mean + prior.sd * z


def _farseer(law: Law, base: list[float], rng: np.random.Generator) -> Array:
    """Draw a floor that falls like E + A N^-alpha at the centre, and a data term that hardly depends on N there."""
    log_E, log_A, log_B, alpha, beta = base
    floor, share = np.logaddexp(log_E, log_A), 1 / (1 + math.exp(log_E - log_A))
    tilt, bend = rng.normal(scale=0.05), rng.normal(-0.1, 0.15)
    term = beta * tilt * law.y0 + rng.normal(scale=0.03)
    return np.array([
        math.log(beta), tilt, bend, log_B, term, bend + rng.normal(scale=0.05),
        floor, -alpha * share, rng.normal(-0.15, 0.1),
    ])  # fmt: skip


def _competing(base: list[float], rng: np.random.Generator, m: int) -> Array:
    """Draw categories that differ by about 0.3 in ln of floor and terms, and by 0.1 in the exponents."""
    log_E, log_c, log_A, b, a = base
    e, c, A = (level + rng.uniform(-0.3, 0.3, m) for level in (log_E, log_c, log_A))
    steep = [np.log(exponent + rng.uniform(-0.08, 0.08, m)) for exponent in (b, a)]
    return np.concatenate([e, c, steep[0], A, steep[1]])


@dataclass(frozen=True, kw_only=True)
class SimulatedSkill:
    """A simulated study of one skill under one law.

    ``q``: log-parameters of the truth, for ``law``, which is bound to the centre of the runs. ``far``: 10 times the
    largest budget. ``log_optimum``: true ln N* there. ``new_error``: error of ln L of another run there.
    """

    law: Law
    q: Array
    points: RunData
    far: float = field(metadata={"unit": "FLOP"})
    log_optimum: float
    new_error: float

    @property
    def mix(self) -> Array | None:
        """Mean mix of the runs, None where the law needs none."""
        return None if self.points.h is None else self.points.h.mean(0)


def plant(law: Law, errors: NoiseDraws, rng: np.random.Generator, *, edge: bool = False) -> SimulatedSkill:
    """Draw a truth of the law, and runs with errors of a kind; its optimum is within a factor 20 of the centre's."""
    return _plant(law, errors, rng, names=NAMES[:1], edge=edge)[NAMES[0]]


def plant_skills(law: Law, errors: NoiseDraws, rng: np.random.Generator) -> dict[str, SimulatedSkill]:
    """Draw the same for a law of all skills at once: each category is a skill, with one truth and the same runs.

    Half the variance of a run's error is common to all skills.
    """
    return _plant(law, errors, rng, names=NAMES)


def _plant(
    law: Law, errors: NoiseDraws, rng: np.random.Generator, *, names: tuple[str, ...], edge: bool = False
) -> dict[str, SimulatedSkill]:
    several = (3 if law.needs_mix else 5) if errors is NoiseDraws.CLUSTERED else 1
    design = design_points(rng, mixed=law.needs_mix, checkpoints=several)
    laws = [design.bind(law).for_skill(name) for name in names]
    mix = None if design.h is None else design.h.mean(0)
    budgets = CENTRE_C * np.array([1 / 16, 160])
    while True:
        q = random_parameters(laws[0], rng, edge=edge)
        log_N = np.array([law.log_optimum(law.theta(q[None]), budgets, mix)[0] for law in laws])
        if np.all(np.abs(log_N - np.log(0.1 * np.sqrt(budgets))) < 3):
            break
    middle = math.log(0.1 * math.sqrt(CENTRE_C))
    noise = errors.draw_skills(design, rng, np.log(design.N) - middle, skills=len(names))
    studies = {}
    for name, skill_law, error, (_, far) in zip(names, laws, noise, log_N, strict=True):
        L = np.exp(skill_law.log_loss(q[None], design.covariates(skill_law))[0] + error)
        point = RunData(N=np.exp([far]), D=np.ones(1), L=np.ones(1))
        new_error = float(errors.draw(point, rng, np.array([far - middle]))[0])
        studies[name] = SimulatedSkill(
            law=skill_law, q=q, points=replace(design, L=L), far=budgets[1], log_optimum=float(far),
            new_error=new_error,
        )  # fmt: skip
    return studies
