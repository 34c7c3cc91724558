"""Laws of N and D, and the base class of all laws.

In: N, D, the mix and a stack of K parameter vectors. Out: ln L with exact derivatives, and the compute optimum. A law
is one frozen class with its formula; ``catalogue`` lists them. The stack lets a fit follow many starts, or a thousand
resamples, at once.

A law works with *log-parameters* q and centred logarithms x = ln N - x0, y = ln D - y0, where a fit is well
conditioned. Derivatives follow from the formula (``autodiff``). Shapes: ``q`` (K, p); ``x``, ``y`` (n,); ``h``
(n, n_categories); values (K, n), Jacobian (K, n, p), weighted Hessian (K, p, p); ``theta`` (K, n_parameters).
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Self

import numpy as np
import numpy.typing as npt

from skillscale.errors import InputError
from skillscale.laws.forms.autodiff import Jet, as_jet, exp, growth, leaves, log, logsumexp

Array = npt.NDArray[np.float64]

# Exponents of the seeds, from nearly flat to steeper than any published law of language models (assumption, not tuned).
SEED_EXPONENTS = np.geomspace(0.03, 2.0, 20)
SEED_FLOOR = 1e-3  # a term that the linear step makes negative starts at this share of the loss
SEARCH_REACH = math.log(1e6)  # how far from the centre of the data, in ln N, the optimum of a law is searched
SEARCH_POINTS = 193


@dataclass(frozen=True)
class Covariates:
    """Where losses were measured: x = ln N - x0 and y = ln D - y0, (n,); shares ``h`` (n, n_categories) or None."""

    x: Any  # arrays, or jets for derivatives by N, D and the shares
    y: Any
    h: Any = None

    def __len__(self) -> int:
        return len(self.x)


@dataclass(frozen=True, eq=False)
class JetShares:
    """Shares of a mix that carry derivatives. A law reads them like an array: ``h[..., k]``, ``h - constant``."""

    parts: tuple[Jet, ...]

    def __getitem__(self, at: tuple[Any, int]) -> Jet:
        return self.parts[at[-1]]

    def __sub__(self, constant: float) -> "JetShares":
        return JetShares(tuple(part - constant for part in self.parts))


@dataclass(frozen=True)
class Prior:
    """A weak Gaussian prior of a log-parameter, in units of q. A fit scales it by the noise of the runs."""

    mean: float
    sd: float


@dataclass(frozen=True)
class Law(ABC):
    """A law of the loss. It holds no data except the centre of its logarithms and the names of the categories.

    ``x0``, ``y0``: ln N and ln D at the centre. ``categories``: names of the mix, for laws that need one.
    """

    x0: float = 0.0
    y0: float = 0.0
    categories: tuple[str, ...] = ()

    name: ClassVar[str]
    needs_mix: ClassVar[bool] = False
    joint: ClassVar[bool] = False  # whether all skills share all parameters

    @property
    @abstractmethod
    def parameters(self) -> tuple[str, ...]:
        """Names of the natural parameters."""

    @property
    @abstractmethod
    def log_names(self) -> tuple[str, ...]:
        """Names of the p log-parameters q."""

    @abstractmethod
    def form(self, q: Sequence[Jet], z: Covariates) -> Jet:
        """Return ln L, as a formula."""

    @abstractmethod
    def seeds(self, z: Covariates, log_L: Array, weights: Array) -> Array:
        """Return starting points of a fit, (K, p)."""

    @abstractmethod
    def theta(self, q: Array) -> Array:
        """Return natural parameters (K, n_parameters), in the order of ``parameters``."""

    @abstractmethod
    def log_parameters(self, theta: Array) -> Array:
        """Return log-parameters (K, p), the inverse of ``theta``."""

    @property
    def fixable(self) -> Mapping[str, tuple[int, bool]]:
        """Natural parameters that one log-parameter decides: its position in q, and whether it is a logarithm."""
        return {}

    def fix(self, parameter: str, value: float) -> tuple[int, float]:
        """Return position and value of the log-parameter that fixes a natural parameter.

        Raises:
            InputError: the parameter can't be fixed alone, or not at this value.
        """
        if parameter not in self.fixable:
            raise InputError(
                f"{parameter} of {self.name} can't be fixed. Fix one of: {', '.join(self.fixable) or 'none'}."
            )
        at, is_logarithm = self.fixable[parameter]
        low, high = self.bounds.get(parameter, (0.0 if is_logarithm else -math.inf, math.inf))
        if not low < value < high:
            span = f"between {low:g} and {high:g}" if high < math.inf else f"above {low:g}"
            raise InputError(f"{parameter} of {self.name} must be {span}, but it is {value}. Fix it at a value inside.")
        return at, math.log(value) if is_logarithm else float(value)

    @property
    def priors(self) -> Mapping[int, Prior]:
        """Weak priors by position in q, for parameters that the runs may not determine. None by default."""
        return {}

    @property
    def bounds(self) -> Mapping[str, tuple[float, float]]:
        """Range of natural parameters outside which the law has no meaning. An estimate there is 'not identified'."""
        return {}

    def bind(self, x0: float, y0: float, categories: tuple[str, ...] = ()) -> Self:
        """Return the law about the centre of some data, for these categories.

        Raises:
            InputError: the law needs a mix and there are no categories.
        """
        if self.needs_mix and not categories:
            raise InputError(
                f"the law {self.name} needs a mix, but the runs have none, or all the same. Map `mix:` in the columns "
                "file, add runs of other mixes, or choose a law in N and D alone."
            )
        return replace(self, x0=x0, y0=y0, categories=categories if self.needs_mix else ())

    def for_skill(self, skill: str) -> Self:
        """Return the law of one skill's loss. Most laws are the same for every skill."""
        del skill
        return self

    def positions(self, name: str) -> tuple[int, ...]:
        """Return the positions in q of a parameter, or group, that may be tied or partially pooled over skills.

        Raises:
            InputError: the law has nothing of that name in ``tieable``.
        """
        if name not in self.tieable:
            names = ", ".join(self.tieable) or "none"
            raise InputError(f"{name} of {self.name} can't be tied or pooled over skills. Choose one of: {names}.")
        return self.tieable[name]

    @property
    def tieable(self) -> Mapping[str, tuple[int, ...]]:
        """Positions in q of what skills may share: every fixable parameter, and ``exponents`` (alpha and beta)."""
        single = {name: (at,) for name, (at, _) in self.fixable.items()}
        if "alpha" in single and "beta" in single:
            return single | {"exponents": (*single["alpha"], *single["beta"])}
        return single

    def log_loss(self, q: Array, z: Covariates) -> Array:
        """Return ln L, (K, n)."""
        return np.broadcast_to(self.form(leaves(q, derivatives=False), z).value, (len(q), len(z)))

    def jet(self, q: Array, z: Covariates) -> Jet:
        """Return ln L with its derivatives by q."""
        return self.form(leaves(q, derivatives=True), z)

    def jacobian(self, q: Array, z: Covariates) -> Array:
        """Return first derivatives of ln L by q, (K, n, p)."""
        jet = self.jet(q, z)
        jac = np.zeros((len(q), len(z), q.shape[1]))
        if jet.jac is not None:
            jac[..., list(jet.support)] = np.swapaxes(jet.jac, 1, 2)
        return jac

    def weighted_hessian(self, q: Array, z: Covariates, v: Array) -> Array:
        """Return sum_i v_i d2 ln L_i / dq dq', exact; ``v`` (K, n) -> (K, p, p)."""
        jet = self.jet(q, z)
        H = np.zeros((len(q), q.shape[1], q.shape[1]))
        at = np.array(jet.support)
        H[:, at[:, None], at[None, :]] = jet.weighted_hessian(v)
        return H

    def covariates(self, N: npt.ArrayLike, D: npt.ArrayLike, h: npt.ArrayLike | None = None) -> Covariates:
        """Return N parameters and D tokens, (n,), and shares (n, n_categories) or one mix, about the law's centre."""
        x, y = (np.log(np.atleast_1d(np.asarray(z, dtype=float))) for z in (N, D))
        x, y = np.broadcast_arrays(x - self.x0, y - self.y0)
        return Covariates(x, y, self._shares(h, len(x)))

    def _shares(self, h: npt.ArrayLike | None, n: int) -> Array | None:
        """Return the mix of each of n points, (n, n_categories); None where the law takes no mix."""
        if not self.needs_mix:
            return None
        if h is None:
            raise InputError(
                f"the law {self.name} needs a mix, but none is given. Give the shares of {', '.join(self.categories)}."
            )
        return np.broadcast_to(np.asarray(h, dtype=float), (n, len(self.categories)))

    def loss(self, theta: npt.ArrayLike, N: npt.ArrayLike, D: npt.ArrayLike, h: npt.ArrayLike | None = None) -> Array:
        """Return L in nats per token at N parameters and D tokens; ``theta`` (p,) or (K, p), ``N`` and ``D`` (n,)."""
        stack = np.atleast_2d(np.asarray(theta, dtype=float))
        value = np.exp(self.log_loss(self.log_parameters(stack), self.covariates(N, D, h)))
        return np.asarray(value if np.ndim(theta) == 2 else value[0])

    def log_optimum(self, theta: Array, C: npt.ArrayLike, h: npt.ArrayLike | None = None) -> Array:
        """Return ln N*(C), the N nearest the data that minimises L under C = 6 N D; (K, n_C), NaN where there is none.

        Args:
            theta: natural parameters, (K, n_parameters).
            C: budgets in FLOP, (n_C,).
            h: mix, for laws that need one.
        """
        q = self.log_parameters(np.atleast_2d(theta))
        s = self._search(q, C, h)
        return np.where(np.isfinite(s), s + self.x0, np.nan)

    def optimum_exponent(self, theta: Array, C: float | None = None, h: npt.ArrayLike | None = None) -> Array:
        """Return the exponent a = d ln N*(C) / d ln C, (K,), at ``C``; by default at the centre of the data."""
        at = 6 * math.exp(self.x0 + self.y0) if C is None else C
        step = 0.05
        ends = self.log_optimum(theta, [at * math.exp(-step), at * math.exp(step)], h)
        return np.asarray((ends[:, 1] - ends[:, 0]) / (2 * step))

    def _search(self, q: Array, C: npt.ArrayLike, h: npt.ArrayLike | None) -> Array:
        """Return the x of the minimum along each budget, (K, n_C); NaN where there is none."""
        log_C = np.log(np.atleast_1d(np.asarray(C, dtype=float)) / 6)
        along = np.linspace(-SEARCH_REACH, SEARCH_REACH, SEARCH_POINTS)
        total = log_C - self.x0 - self.y0
        x = np.add.outer(total / 2, along)
        mix = self._shares(h, len(total))
        shares = None if mix is None else np.repeat(mix, SEARCH_POINTS, axis=0)
        with np.errstate(over="ignore", invalid="ignore"):
            values = self.log_loss(q, Covariates(x.ravel(), (total[:, None] - x).ravel(), shares))
            values = values.reshape(len(q), *x.shape)
            values = np.where(np.isfinite(values), values, np.inf)
        best, inside = _nearest_minimum(values)
        rows, budgets = np.nonzero(inside)
        s = np.full(best.shape, np.nan)
        near = x[budgets, best[inside]]
        budget_mixes = None if mix is None else mix[budgets]
        s[inside] = self._refine(q[rows], near, total[budgets], budget_mixes, width=along[1] - along[0])
        return s

    def _refine(self, q: Array, near: Array, total: Array, h: Array | None, *, width: float) -> Array:
        """Return the x of minima along their budgets, (m,), from positions within a ``width`` of them."""
        s, low, high = near.copy(), near - width, near + width
        live = np.arange(len(s))
        for _ in range(60):
            if not len(live):
                break
            at = s[live]
            with np.errstate(over="ignore", invalid="ignore"):  # extreme draws overflow at the ends
                slope, bend = self._slope_and_curvature(q[live], at, total[live], None if h is None else h[live])
            low[live], high[live] = np.where(slope < 0, at, low[live]), np.where(slope > 0, at, high[live])
            newton = at - slope / np.where(bend > 0, bend, np.inf)
            halved = (low[live] + high[live]) / 2
            s[live] = np.where((bend > 0) & (newton > low[live]) & (newton < high[live]), newton, halved)
            live = live[np.abs(s[live] - at) >= 1e-12]
        return s

    def _slope_and_curvature(self, q: Array, s: Array, total: Array, h: Array | None) -> tuple[Array, Array]:
        """Return both derivatives of ln L by x at fixed budget, each (m,).

        Args:
            q: log-parameters, (m, p).
            s: x, (m,).
            total: x + y, (m,).
            h: mix of each point, (m, n_categories), or None.
        """
        flat = Jet(s[:, None], (0,), np.ones((1, 1, 1)))
        jet = self.form(
            leaves(q, derivatives=False), Covariates(flat, total[:, None] - flat, None if h is None else h[:, None, :])
        )
        bend = jet.weighted_hessian(np.ones((len(s), 1)))[:, 0, 0]
        slope = np.broadcast_to(jet.jac if jet.jac is not None else np.zeros((1, 1, 1)), (len(s), 1, 1))[:, 0, 0]
        return slope, np.broadcast_to(bend, (len(s),))


def _nearest_minimum(values: Array) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.bool_]]:
    """Return the index of the local minimum nearest the middle of the last axis, and whether there is one.

    Far from the data a flexible law may fall again. Such a minimum says nothing about the optimum near the data.
    """
    middle = values[..., 1:-1]
    minimal = np.isfinite(middle) & (middle < values[..., :-2]) & (middle <= values[..., 2:])
    away = np.abs(np.arange(1, values.shape[-1] - 1) - values.shape[-1] // 2)
    return np.where(minimal, away, values.shape[-1]).argmin(-1) + 1, np.asarray(minimal.any(-1))


@dataclass(frozen=True)
class Chinchilla(Law):
    """L = E + A N^-alpha + B D^-beta (Hoffmann et al. 2022, approach 3); q = (ln E, ln A', ln B', alpha, beta).

    A' = A exp(-alpha x0) and B' = B exp(-beta y0) are the two terms at the centre of the data.
    """

    name: ClassVar[str] = "chinchilla"

    @property
    def parameters(self) -> tuple[str, ...]:
        """E, A, B, alpha, beta."""
        return ("E", "A", "B", "alpha", "beta")

    @property
    def log_names(self) -> tuple[str, ...]:
        """Names of ln E, the logarithms of the two terms at the centre, and the exponents."""
        return ("ln E", "ln A'", "ln B'", "alpha", "beta")

    @property
    def bounds(self) -> Mapping[str, tuple[float, float]]:
        """Bounds of the exponents: the range that loss curves of language models can have (assumption)."""
        return {"alpha": (0.02, 2.0), "beta": (0.02, 2.0)}

    def form(self, q: Sequence[Jet], z: Covariates) -> Jet:
        """Return ln(E + A N^-alpha + B D^-beta) as a log-sum-exp."""
        e, a, b, alpha, beta = q
        return logsumexp(e, a - alpha * z.x, b - beta * z.y)

    def seeds(self, z: Covariates, log_L: Array, weights: Array) -> Array:
        """Return one start per (alpha, beta); E, A and B solve a weighted linear least squares of relative errors."""
        m = len(SEED_EXPONENTS)
        relative = np.exp(-log_L) * np.sqrt(weights)
        bases = np.vstack(
            [
                relative,
                np.exp(-np.outer(SEED_EXPONENTS, z.x)) * relative,
                np.exp(-np.outer(SEED_EXPONENTS, z.y)) * relative,
            ]
        )
        gram, projected = bases @ bases.T, bases @ np.sqrt(weights)
        i, j = (grid.ravel() for grid in np.meshgrid(np.arange(m), np.arange(m), indexing="ij"))
        which = np.column_stack([np.zeros_like(i), 1 + i, 1 + m + j])
        G, r = gram[which[:, :, None], which[:, None, :]], projected[which]
        ridge = 1e-10 * np.trace(G, axis1=1, axis2=2)[:, None, None] * np.eye(3)
        terms = np.linalg.solve(G + ridge, r[..., None])[..., 0]
        floor = SEED_FLOOR * np.exp(log_L.min())
        return np.column_stack([np.log(np.maximum(terms, floor)), SEED_EXPONENTS[i], SEED_EXPONENTS[j]])

    def theta(self, q: Array) -> Array:
        """Return (E, A, B, alpha, beta)."""
        alpha, beta = q[:, 3], q[:, 4]
        # An exponent that diverges in one resample overflows A or B to inf, which is correct.
        with np.errstate(over="ignore"):
            E, A, B = np.exp(q[:, 0]), np.exp(q[:, 1] + alpha * self.x0), np.exp(q[:, 2] + beta * self.y0)
        return np.column_stack([E, A, B, alpha, beta])

    def log_parameters(self, theta: Array) -> Array:
        """Return (ln E, ln A', ln B', alpha, beta)."""
        with np.errstate(divide="ignore"):  # E = 0 is allowed
            E, A, B = np.log(theta[:, :3]).T
        alpha, beta = theta[:, 3], theta[:, 4]
        return np.column_stack([E, A - alpha * self.x0, B - beta * self.y0, alpha, beta])

    @property
    def fixable(self) -> Mapping[str, tuple[int, bool]]:
        """E, alpha and beta."""
        return {"E": (0, True), "alpha": (3, False), "beta": (4, False)}

    def log_optimum(self, theta: Array, C: npt.ArrayLike, h: npt.ArrayLike | None = None) -> Array:
        """Return ln N*: N* = G (C/6)^(beta/(alpha+beta)), G^(alpha+beta) = alpha A / (beta B) (Hoffmann, eq. 4)."""
        del h
        _, A, B, alpha, beta = (column[:, None] for column in np.atleast_2d(theta).T)
        usable = (alpha > 0) & (beta > 0) & (A > 0) & (B > 0) & np.isfinite(A) & np.isfinite(B)
        with np.errstate(all="ignore"):  # the unusable rows are NaN below
            log_G = (np.log(alpha) + np.log(A) - np.log(beta) - np.log(B)) / (alpha + beta)
            log_N = log_G + beta / (alpha + beta) * np.log(np.atleast_1d(np.asarray(C, dtype=float)) / 6)
        return np.where(usable, log_N, np.nan)

    def optimum_exponent(self, theta: Array, C: float | None = None, h: npt.ArrayLike | None = None) -> Array:
        """Return the exponent a = beta / (alpha + beta)."""
        del C, h
        alpha, beta = np.atleast_2d(theta)[:, 3:].T
        total = alpha + beta
        return np.where((alpha > 0) & (beta > 0), beta / np.where(total == 0, 1.0, total), np.nan)


@dataclass(frozen=True)
class Drifting(Law):
    """L = E + (e^(u/k) + e^(v/k))^k, u = ln A - alpha x, v = ln B - beta e^(g x) y (coupled terms, drifting exponent).

    Source: our form. x and y are ln N and ln D about the centre of the data, where A and B are the two terms in nats
    per token. With g != 0 the form depends on that centre, which is then part of the law. k = 1, g = 0 is Chinchilla. k
    < 1 couples the terms as a maximum does, and g lets the data exponent change with N. Most studies determine k and g
    poorly, so both have weak priors.
    """

    name: ClassVar[str] = "drifting"

    @property
    def parameters(self) -> tuple[str, ...]:
        """E, A, B, alpha, beta, k, g."""
        return ("E", "A", "B", "alpha", "beta", "k", "g")

    @property
    def log_names(self) -> tuple[str, ...]:
        """The parameters, with logarithms of E, A, B and k."""
        return ("ln E", "ln A", "ln B", "alpha", "beta", "ln k", "g")

    @property
    def priors(self) -> Mapping[int, Prior]:
        """Priors: k within a factor of 2 of 0.85, g of some hundredths; from fits of large tables (assumption)."""
        return {5: Prior(math.log(0.85), 0.35), 6: Prior(0.0, 0.05)}

    @property
    def bounds(self) -> Mapping[str, tuple[float, float]]:
        """Bounds of the exponents, as in ``Chinchilla``."""
        return {"alpha": (0.02, 2.0), "beta": (0.02, 2.0)}

    def form(self, q: Sequence[Jet], z: Covariates) -> Jet:
        """Return ln(E + (e^(u/k) + e^(v/k))^k)."""
        e, a, b, alpha, beta, log_k, g = q
        k, inverse = exp(log_k), exp(-log_k)
        u = a - alpha * z.x
        v = b - beta * exp(g * z.x) * z.y
        return logsumexp(e, k * logsumexp(u * inverse, v * inverse))

    def seeds(self, z: Covariates, log_L: Array, weights: Array) -> Array:
        """Return Chinchilla's seeds: uncoupled, coupled, and coupled with a small drift of either sign."""
        base = Chinchilla().seeds(z, log_L, weights)
        extra = [(0.0, 0.0), (math.log(0.7), 0.0), (math.log(0.85), 0.03), (math.log(0.85), -0.03)]
        return np.vstack([np.column_stack([base, np.tile(pair, (len(base), 1))]) for pair in extra])

    def theta(self, q: Array) -> Array:
        """Return (E, A, B, alpha, beta, k, g), with A and B at the centre."""
        with np.errstate(over="ignore"):
            return np.column_stack([np.exp(q[:, :3]), q[:, 3:5], np.exp(q[:, 5]), q[:, 6]])

    def log_parameters(self, theta: Array) -> Array:
        """Return log-parameters, the inverse of ``theta``."""
        with np.errstate(divide="ignore"):
            return np.column_stack([np.log(theta[:, :3]), theta[:, 3:5], np.log(theta[:, 5]), theta[:, 6]])

    @property
    def fixable(self) -> Mapping[str, tuple[int, bool]]:
        """E, alpha, beta, k and g."""
        return {"E": (0, True), "alpha": (3, False), "beta": (4, False), "k": (5, True), "g": (6, False)}


@dataclass(frozen=True)
class Coupled(Drifting):
    """L = E + (e^(u/k) + e^(v/k))^k, u = ln A - alpha ln N, v = ln B - beta ln D.

    Source: our form. It is ``Drifting`` with g = 0.
    """

    name: ClassVar[str] = "coupled"

    @property
    def parameters(self) -> tuple[str, ...]:
        """E, A, B, alpha, beta, k."""
        return ("E", "A", "B", "alpha", "beta", "k")

    @property
    def log_names(self) -> tuple[str, ...]:
        """The parameters, with logarithms of E, A', B' and k."""
        return ("ln E", "ln A'", "ln B'", "alpha", "beta", "ln k")

    @property
    def priors(self) -> Mapping[int, Prior]:
        """Prior of k, as in ``Drifting``."""
        return {5: Prior(math.log(0.85), 0.35)}

    def form(self, q: Sequence[Jet], z: Covariates) -> Jet:
        """Return ln(E + (e^(u/k) + e^(v/k))^k)."""
        e, a, b, alpha, beta, log_k = q
        inverse = exp(-log_k)
        return logsumexp(e, exp(log_k) * logsumexp((a - alpha * z.x) * inverse, (b - beta * z.y) * inverse))

    def seeds(self, z: Covariates, log_L: Array, weights: Array) -> Array:
        """Return Chinchilla's seeds, uncoupled and coupled."""
        base = Chinchilla().seeds(z, log_L, weights)
        return np.vstack([np.column_stack([base, np.full(len(base), math.log(k))]) for k in (1.0, 0.8, 0.6)])

    def theta(self, q: Array) -> Array:
        """Return (E, A, B, alpha, beta, k), with A and B as in ``Chinchilla``."""
        with np.errstate(over="ignore"):
            return np.column_stack([Chinchilla(self.x0, self.y0).theta(q[:, :5]), np.exp(q[:, 5])])

    def log_parameters(self, theta: Array) -> Array:
        """Return log-parameters, the inverse of ``theta``."""
        return np.column_stack([Chinchilla(self.x0, self.y0).log_parameters(theta[:, :5]), np.log(theta[:, 5])])

    @property
    def fixable(self) -> Mapping[str, tuple[int, bool]]:
        """E, alpha, beta and k."""
        return {"E": (0, True), "alpha": (3, False), "beta": (4, False), "k": (5, True)}


@dataclass(frozen=True)
class Farseer(Law):
    """L = exp(a3 N^g + b3) + exp(a2 N^b + b2) D^(-exp(a1 N^a + b1)) (Li et al. 2025, Farseer).

    Each exponent is written about the centre of the data as level + slope (e^(a x) - 1) / a: a straight line in ln N
    that bends by a. In the published form a N^a + b, a and b are nearly degenerate.
    """

    name: ClassVar[str] = "farseer"

    @property
    def parameters(self) -> tuple[str, ...]:
        """Names in the order of the formula's three exponentials, from the last to the first."""
        return ("a1", "b1", "a", "a2", "b2", "b", "a3", "b3", "g")

    @property
    def log_names(self) -> tuple[str, ...]:
        """Names of level at the centre, slope and bend of the data exponent, the data term and the floor."""
        return tuple(
            f"{part} of {quantity}" for quantity in ("rate", "term", "floor") for part in ("level", "slope", "bend")
        )

    @property
    def priors(self) -> Mapping[int, Prior]:
        """Priors: bends of a few tenths, and a slope of the data exponent as in published fits (widened)."""
        bends = {2: Prior(0.0, 0.3), 5: Prior(0.0, 0.3), 8: Prior(0.0, 0.3)}
        return bends | {1: Prior(0.0, 0.3)}

    def form(self, q: Sequence[Jet], z: Covariates) -> Jet:
        """Return ln of the sum of the two terms. The rate times y0 accounts for the centre of ln D."""
        rate_level, rate_slope, a, term_level, term_slope, b, floor_level, floor_slope, g = q
        rate = exp(rate_level + rate_slope * (growth(a * z.x) * z.x))
        term = term_level + term_slope * (growth(b * z.x) * z.x) + (exp(rate_level) - rate) * self.y0 - rate * z.y
        return logsumexp(floor_level + floor_slope * (growth(g * z.x) * z.x), term)

    def seeds(self, z: Covariates, log_L: Array, weights: Array) -> Array:
        """Return Chinchilla's best seeds, E and A N^-alpha as the floor, with small slopes of the data exponent."""
        base = Chinchilla().seeds(z, log_L, weights)
        F = (weights * np.abs(log_L - Chinchilla().log_loss(base, z))).sum(1)
        starts = []
        for e, u, v, alpha, beta in base[np.argsort(F)[:16]]:
            floor = np.logaddexp(e, u - alpha * z.x)
            for bend in (-0.3, 0.1):
                line = z.x * growth(as_jet(bend * z.x)).value[0]
                slope, level = np.polyfit(line, floor, 1)
                starts += [
                    (math.log(beta), tilt, curl, v, beta * tilt * self.y0, curl, level, slope, bend)
                    for tilt in (0.0, 0.05, -0.05)
                    for curl in (-0.1, 0.1)
                ]
        return np.array(starts)

    def theta(self, q: Array) -> Array:
        """Return the published parameters, for N in parameters and D in tokens."""
        rate_level, rate_slope, a, term_level, term_slope, b, floor_level, floor_slope, g = q.T
        with np.errstate(over="ignore", divide="ignore", invalid="ignore"):
            a1, a2, a3 = rate_slope / a, term_slope / b, floor_slope / g
            b2 = term_level - a2 + np.exp(rate_level) * self.y0
            columns = [a1 * np.exp(-a * self.x0), rate_level - a1, a, a2 * np.exp(-b * self.x0), b2, b]
            return np.column_stack([*columns, a3 * np.exp(-g * self.x0), floor_level - a3, g])

    def log_parameters(self, theta: Array) -> Array:
        """Return log-parameters, the inverse of ``theta``."""
        a1, b1, a, a2, b2, b, a3, b3, g = theta.T
        a1, a2, a3 = a1 * np.exp(a * self.x0), a2 * np.exp(b * self.x0), a3 * np.exp(g * self.x0)
        term_level = a2 + b2 - np.exp(a1 + b1) * self.y0
        return np.column_stack([a1 + b1, a1 * a, a, term_level, a2 * b, b, a3 + b3, a3 * g, g])


def require_shares(h: Any) -> Any:
    """Return the shares. A bound law that needs a mix always has them."""
    assert h is not None, "a law that needs a mix was given covariates without one"
    return h


def log_shares(h: Any) -> Any:
    """Return ln h, (..., n_categories). Absent categories get a floor that no fitted exponent can make relevant."""
    if isinstance(h, Jet):
        return log(h)
    if isinstance(h, JetShares):
        return JetShares(tuple(log(part) for part in h.parts))
    return np.log(np.maximum(require_shares(h), 1e-200))


def dot(weights: Sequence[Jet], h: Any) -> Jet:
    """Return sum_k w_k h_k over categories, for shares (n, m), or (K, 1, m) for one point per problem."""
    total = weights[0] * h[..., 0]
    for k, weight in enumerate(weights[1:], start=1):
        total = total + weight * h[..., k]
    return as_jet(total)
