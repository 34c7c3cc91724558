"""What is known of one skill under one law: Gaussian about the mode, with a discrepancy beside the law's form.

ln L = f(q; N, D, h) + sum_j w_j phi_j + noise: q under weak priors, phi the features of a ``Surface``, w ~ N(0, s^2).
The noise and s are learnt together on a grid; errors are Student's, so that a run gone wrong counts for less. As all
is Gaussian about the mode (Laplace), what another run would add is one more row of a matrix.
"""

import math
from dataclasses import dataclass, field

import numpy as np

from skillscale.laws.design.offered import prior_of
from skillscale.laws.design.space import History
from skillscale.laws.design.surface import Surface
from skillscale.laws.forms import Array, Covariates, Law
from skillscale.laws.jets import leaves

SCALES = np.array([0.0002, 0.0005, 0.001, 0.002, 0.004, 0.008, 0.016])  # of the discrepancy, in ln L
NOISES = np.geomspace(0.0008, 0.05, 25)  # of a run, in ln L
_SCALE, _NOISE = (0.002, 1.0), (0.005, 1.0)  # median and sd of the logarithm: tried in docs/sampling.md
FREEDOM = 5.0  # of Student's distribution of errors
_CORE = math.sqrt((FREEDOM + 3) / (FREEDOM + 1))  # sd of the normal errors that tell as much as Student's of scale 1
_ROUNDS, _STEPS = 4, 30
_ENOUGH = 1e-3  # fall of the negative log posterior at which the mode is found
_NEGLIGIBLE = 0.01  # probability of a scale that is left out
_NOTHING = math.log(3.0)  # ln L that the priors are about before any run


@dataclass(frozen=True, kw_only=True)
class Belief:
    """About the weights u = (q, w) of one skill under one law.

    ``q`` (p,), ``w`` (m,): the mode at the likeliest noise and scale; ``precision`` (p + m, p + m) there; ``noise``: sd
    of a run; ``evidence``: ln marginal likelihood, to compare laws; ``shifts`` (S, p + m), ``precisions`` and
    ``chances`` (S,): the belief at each likely scale, as steps from the mode; ``trust`` (n,): weight of each run.
    """

    law: Law
    surface: Surface
    q: Array
    w: Array
    precision: Array = field(repr=False)
    noise: float
    scale: float
    evidence: float
    shifts: Array = field(repr=False)
    precisions: Array = field(repr=False)
    chances: Array = field(repr=False)
    trust: Array = field(repr=False)

    def rows(self, N: Array, D: Array, h: Array | None) -> Array:
        """What runs of noise 1 tell: rows b (n, p + m), of which b b' is added to the precision."""
        z = self.law.covariates(N, D, h)
        return np.hstack([self.law.jacobian(self.q[None], z)[0], self.surface(np.log(N), np.log(D), h)])

    def log_loss(self, N: Array, D: Array, h: Array | None) -> Array:
        """Ln L expected, (n,)."""
        told = self.law.log_loss(self.q[None], self.law.covariates(N, D, h))[0]
        return np.asarray(told + self.surface(np.log(N), np.log(D), h) @ self.w)

    def optimum(self, C: float, h: Array | None) -> tuple[float, Array]:
        """Ln N* at C and its gradient by u, (p + m,), by the implicit function theorem; NaN where there is none.

        The discrepancy moves the law's optimum by minus its slope along the budget over the law's second derivative.
        """
        at = float(self.law.log_optimum(self.law.theta(self.q[None]), [C], h)[0, 0])
        p = len(self.q)
        if not math.isfinite(at):
            return math.nan, np.full(p + len(self.w), np.nan)
        total = math.log(C / 6)
        jets = leaves(np.append(self.q, 0.0)[None], derivatives=True)  # the last one moves along the budget
        shares = None if h is None or not self.law.needs_mix else h[None, None, :]
        moved = Covariates(jets[p] + (at - self.law.x0), (total - at - self.law.y0) - jets[p], shares)
        jet = self.law.form(jets[:p], moved)
        H = np.zeros((p + 1, p + 1))
        H[np.ix_(jet.support, jet.support)] = jet.second(np.ones((1, 1)))[0]
        mix = None if h is None else h[None]
        slopes = self.surface.slopes(np.array([at]), np.array([total - at]), mix)[0]
        return at - float(slopes @ self.w) / H[p, p], -np.concatenate([H[:p, p], slopes]) / H[p, p]

    def spread(self, gradient: Array) -> tuple[Array, Array]:
        """Steps from the mode (S,) and sds (S,), at each likely scale, of a quantity with this gradient."""
        solved = np.linalg.solve(self.precisions, gradient[:, None])[..., 0]
        return self.shifts @ gradient, np.sqrt(solved @ gradient)


def believe(law: Law, surface: Surface, history: History, skill: str) -> Belief:
    """The belief about a skill after the runs that have measured it; without any it is the prior."""
    there = history.having(skill)
    if not there.any():
        return _beforehand(law, surface)
    N, D, y = history.N[there], history.D[there], history.log_L[skill][there]
    h = None if history.h is None else history.h[there]
    mean, sd = prior_of(law, float(np.median(y)))
    z, features = law.covariates(N, D, h), surface(np.log(N), np.log(D), h)
    trust, noise, scale, q = np.ones(len(y)), _NOISE[0], _SCALE[0], mean
    for _ in range(_ROUNDS):
        q = _mode(law, z, y, features, q, (mean, sd), (trust / noise**2, surface.sd(scale)))
        J = law.jacobian(q[None], z)[0]
        bent, B = y - law.log_loss(q[None], z)[0] + J @ (q - mean), np.hstack([J, features])
        grid = _grid(B, bent, trust, sd, surface)
        at, scale_at = np.unravel_index(int(grid.argmax()), grid.shape)[::-1]
        noise, scale = float(NOISES[at]), float(SCALES[scale_at])
        _, u = _solve(B, bent, trust / noise**2, np.append(sd, surface.sd(scale)))
        trust = _trust((bent - B @ u) / noise)
    by_scale = np.logaddexp.reduce(grid, axis=1)
    evidence = float(np.logaddexp.reduce(by_scale))
    chances = np.exp(by_scale - evidence)
    likely = chances > _NEGLIGIBLE
    noise *= _CORE
    weights = trust / (float(trust.mean()) * noise**2)
    M, u = _solve(B, bent, weights, np.append(sd, surface.sd(scale)))
    others = [_solve(B, bent, weights, np.append(sd, surface.sd(one))) for one in SCALES[likely]]
    p = len(q)
    return Belief(
        law=law, surface=surface, q=q, w=u[p:], precision=M, noise=noise, scale=scale, evidence=evidence,
        shifts=np.array([step for _, step in others]) - np.concatenate([q - mean, u[p:]]),
        precisions=np.array([one for one, _ in others]), chances=chances[likely] / chances[likely].sum(), trust=trust,
    )  # fmt: skip


def _beforehand(law: Law, surface: Surface) -> Belief:
    mean, sd = prior_of(law, _NOTHING)
    noise, scale = _NOISE[0], _SCALE[0]
    spread = np.append(sd, surface.sd(scale))
    return Belief(
        law=law, surface=surface, q=mean, w=np.zeros(len(spread) - len(mean)), precision=np.diag(spread**-2.0),
        noise=noise, scale=scale, evidence=0.0, shifts=np.zeros((1, len(spread))),
        precisions=np.diag(spread**-2.0)[None], chances=np.ones(1), trust=np.zeros(0),
    )  # fmt: skip


def _trust(standard: Array) -> Array:
    """Weight of each run by its error in units of the noise, 1 for the best."""
    weights = (FREEDOM + 1) / (FREEDOM + standard**2)
    return np.asarray(weights / max(float(weights.max(initial=0.0)), 1e-9))


def _solve(B: Array, bent: Array, weights: Array, sd: Array) -> tuple[Array, Array]:
    """Precision and mean of u less its prior mean, for the straightened losses ``bent``."""
    M = B.T @ (B * weights[:, None]) + np.diag(sd**-2.0)
    return M, np.asarray(np.linalg.solve(M, B.T @ (bent * weights)))


def _mode(
    law: Law, z: Covariates, y: Array, features: Array, q: Array, prior: tuple[Array, Array],
    scales: tuple[Array, Array],
) -> Array:  # fmt: skip
    """Damped Gauss-Newton steps on q, the discrepancy integrated out; ``scales``: runs' precisions, sds of w."""
    (mean, sd), (w, feature_sd) = prior, scales
    weighted = features * w[:, None]
    inner = np.linalg.inv(features.T @ weighted + np.diag(feature_sd**-2.0))

    def solve(r: Array) -> Array:
        """Inverse covariance of the errors times r, (n, k)."""
        return np.asarray(w[:, None] * r - weighted @ (inner @ (weighted.T @ r)))

    def value(q: Array) -> float:
        with np.errstate(over="ignore", invalid="ignore"):
            r = (y - law.log_loss(q[None], z)[0])[:, None]
            F = 0.5 * float((r * solve(r)).sum()) + 0.5 * float((((q - mean) / sd) ** 2).sum())
        return F if math.isfinite(F) else math.inf

    F, damping = value(q), 1e-3
    for _ in range(_STEPS):
        J = law.jacobian(q[None], z)[0] * sd
        v = solve(np.column_stack([y - law.log_loss(q[None], z)[0], J]))
        H, slope = J.T @ v[:, 1:] + np.eye(len(q)), (q - mean) / sd - J.T @ v[:, 0]
        step = -np.linalg.solve(H + damping * np.diag(np.diag(H)), slope)
        gain = -float(slope @ step)
        tried = q + step * sd / max(1.0, float(np.abs(step).max()) / 2)
        if (F_tried := value(tried)) < F:
            q, F, damping = tried, F_tried, max(damping / 10, 1e-9)
        else:
            damping = max(damping * 10, 1e-2)
        if gain < _ENOUGH:
            break
    return q


def _grid(B: Array, bent: Array, weights: Array, sd: Array, surface: Surface) -> Array:
    """Ln of the posterior of (scale, noise) with u integrated out, (n_scales, n_noises)."""
    spread = np.array([np.append(sd, surface.sd(scale)) for scale in SCALES])
    gram, right = B.T @ (B * weights[:, None]), B.T @ (weights * bent)
    values, vectors = np.linalg.eigh(gram * spread[:, :, None] * spread[:, None, :])
    along = np.einsum("sij,si->sj", vectors, right * spread) ** 2
    v = NOISES[None, :, None] ** 2
    ratio = 1 + np.maximum(values, 0.0)[:, None, :] / v
    explained = (along[:, None, :] / (v**2 * ratio)).sum(-1)
    v = v[..., 0]
    total = float(bent @ (weights * bent))
    likelihood = -0.5 * (np.log(ratio).sum(-1) + len(bent) * np.log(v) + total / v - explained)
    return np.asarray(likelihood + _log_normal(SCALES, _SCALE)[:, None] + _log_normal(NOISES, _NOISE))


def _log_normal(values: Array, prior: tuple[float, float]) -> Array:
    median, sd = prior
    return np.asarray(-0.5 * (np.log(values / median) / sd) ** 2)
