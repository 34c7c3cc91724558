"""Fit isoFLOP curves (approach 2): ln L as a polynomial in ln N at each budget, by one of three methods (``CURVES``).

Runs of one skill and mix go in. Curves, their minima and the minima of the bootstrap resamples come out.

x = ln N - centre of the budget:

    shared      ln L = c0 + c1 x + c2 x^2 + s x^3 + t x^4; c0, c1, c2 per budget, s and t common to the skill's budgets
    quadratic   ln L = c0 + c1 x + c2 x^2, the parabola that most of the field fits
    cubic       ln L = c0 + c1 x + c2 x^2 + c3 x^3, all per budget

Real curves are skewed. A plain parabola over +-8x has an error of 7 to 10 % in N*, even without noise. A cubic at every
budget removes this bias and adds variance. A common skew and tail add less variance. They are nearly correct, because
the shape of the curve changes slowly with C. So ``shared`` is the default. The intervals include the remaining bias of
each method (``FORM``).

The data choose how many powers ``shared`` has: those with the least expected square error of ln N*. It is its variance
at the noise that the runs show, plus ``FORM`` squared. So noisy budgets get a parabola. The smallest and largest sizes
of a budget are often trained badly, which bends a curve far more than it raises the noise. So the curve is fitted
without them too. Where N* of the two differ by more than their errors allow, the ends do not count. For the gain:
``benchmarks/isoflop_coverage.py ends``.

Raw loss, a local parabola and a parabola around the parametric law were tried too.
``benchmarks/isoflop_coverage.py shapes`` prints the comparison, and ``benchmarks/approach2_bias.py`` the bias of each
method far beyond the runs.

The fit uses ln L rather than L because errors are proportional to the loss. The objective is that of the parametric
fit: Huber's, with delta at ``HUBER`` robust standard deviations of the runs about their curves, so that one bad run
cannot bend a curve. ``benchmarks/isoflop_coverage.py outliers`` prints the gain with outliers, and that coverage stays
the same without them.
"""

import math
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt
from scipy.stats import f as f_distribution

from skillscale.errors import InputError
from skillscale.laws.forms.nd import Array
from skillscale.laws.results import Interval, IsoflopCurve, IsoflopMinimum, Status
from skillscale.laws.uncertainty.resamples import interval

CURVES = ("shared", "quadratic", "cubic")
DEGREES = {"shared": 2, "quadratic": 2, "cubic": 3}  # highest power with a coefficient per budget
HUBER = 2.0  # robust standard deviations where a residual begins to count less
STEPS = 100
FREEDOM = 0.3  # share of degrees of freedom below which outliers cannot be recognised (assumption, not tuned)
SEED_RUNS = 4  # runs that a seed needs at a budget for a level term
SEARCH = np.linspace(-1, 1, 81)  # places where a curve's minimum is searched, in half widths of its grid
OUTSIDE = 1.5  # place assigned to a resample's minimum beyond the grid, in half widths
# Error in ln N* of a curve with (degree, shared powers) over +-8x without noise: rms of its mean over budgets, and of
# its trend per unit of ln C, over random Chinchilla and drifting truths (``benchmarks/isoflop_coverage.py form``). Both
# fall with the square of the grid's width.
FORM = {(2, 0): 0.085, (2, 1): 0.020, (2, 2): 0.008, (3, 0): 0.020}
FORM_TREND = 0.007
FORM_SPAN = math.log(8)
_NO_ENDS = (
    "the smallest and largest sizes would move the minimum by more than its error, so the curve is without them. Check "
    "their training"
)
_LEAST_FREEDOM = 2.0  # of the fit without the ends, for a test
ENDS_P = 0.02  # p of the difference in N* below which the smallest and largest sizes of the budgets do not count


@dataclass(frozen=True, kw_only=True)
class BootstrapMinima:
    """The minima of one skill in K bootstrap resamples.

    ``optima`` (ln N*) and ``curvature``: (K, n_budgets). ``level``: (K, n_budgets), ln L at the estimated minimum.
    ``rise``: (K, n_budgets, 2), ln L at the smallest and at the largest size above that level, which shows whether the
    sizes bracket the minimum.
    """

    optima: Array = field(metadata={"unit": "ln parameters"})
    level: Array = field(metadata={"unit": "ln L"})
    curvature: Array = field(metadata={"unit": "d2 ln L / d(ln N)2"})
    rise: Array = field(metadata={"unit": "ln L"})


@dataclass(frozen=True, kw_only=True)
class IsoflopFit:
    """The isoFLOP curves of one skill and mix, fitted together on ln L.

    They are the least-squares curves of values whose outliers were reduced (``huber_pseudo_values``). ``residuals`` are
    those of these values. So ``projection``, ``leverage`` and every resample are those of least squares.

    ``coefficients``: (n_budgets, 5), lowest power first. ``projection``: (n_budgets, 5, n) from ln L to coefficients,
    which turns resampled errors into resampled curves. ``leverage``: (n,) of the runs used. ``used``: mask over the
    input runs. ``degree``: highest power with a coefficient per budget. ``shared``: number of further powers common to
    the budgets (1: skew, 2: skew and tail). ``without_ends``: whether the smallest and largest sizes of the budgets
    do not count, because they would move N*.
    """

    budgets: tuple[float, ...]
    too_few: tuple[tuple[float, int, int], ...] = field(metadata={"unit": "excluded budgets: C, runs, sizes"})
    centres: Array
    coefficients: Array
    projection: Array = field(repr=False)
    residuals: Array = field(repr=False, metadata={"unit": "ln L"})
    leverage: Array = field(repr=False)
    used: npt.NDArray[np.bool_] = field(repr=False)
    C: Array = field(repr=False, metadata={"unit": "FLOP, of the runs used"})
    N: Array = field(repr=False, metadata={"unit": "parameters, of the runs used"})
    degree: int
    shared: int
    without_ends: bool = False

    @property
    def noise(self) -> float:
        """Sd of the runs about the curves, in ln L."""
        return math.sqrt(float((self.residuals**2).sum()) / max(self.freedom, 1.0))

    @property
    def freedom(self) -> float:
        """Degrees of freedom of the residuals."""
        return len(self.residuals) - float(self.leverage.sum())

    @property
    def form_error(self) -> Array:
        """Error of ln N* by the form of the curves, (n_budgets,)."""
        return FORM[self.degree, self.shared] * np.asarray(self.half_widths / FORM_SPAN) ** 2

    def sensitivity(self, optima: Array, curvature: Array) -> Array:
        """Return derivatives of ln N* by ln L of the runs, (n_budgets, n), at given minima; NaN where there is none."""
        x = np.where(np.isfinite(optima), optima - self.centres, np.nan)[:, None]
        powers = np.arange(5)
        slope = powers * x ** np.maximum(powers - 1, 0)
        return np.asarray(-np.einsum("bc,bcn->bn", slope, self.projection) / curvature[:, None])

    @property
    def half_widths(self) -> Array:
        """Half width of each budget's grid in ln N, (n_budgets,)."""
        return np.array([np.ptp(np.log(self.N[np.equal(self.C, budget)])) / 2 for budget in self.budgets])

    def minima(self) -> tuple[Array, Array]:
        """Return ln N* (infinite where beyond the grid) and d2 ln L / d(ln N)2 there, each (n_budgets,)."""
        x, curvature = minimise_polynomials(self.coefficients, self.half_widths)
        return self.centres + x, curvature

    def resample_minima(self, errors: Array, form: Array) -> BootstrapMinima:
        """Return the minima of resampled curves.

        Args:
            errors: resampled errors of ln L, (K, n).
            form: standard normals, (K, 2), that scale the allowed error of the curve's form: its level, and its trend
                over ln C.
        """
        half, log_C = self.half_widths, np.log(np.array(self.budgets))
        drawn = self.coefficients + np.einsum("bcn,kn->kbc", self.projection, errors)
        x, curvature = minimise_polynomials(drawn, half)
        x = np.clip(x, -OUTSIDE * half, OUTSIDE * half)
        off = form[:, :1] * FORM[self.degree, self.shared] + form[:, 1:] * FORM_TREND * (log_C - log_C.mean())
        estimate = np.clip(minimise_polynomials(self.coefficients, half)[0], -half, half)
        levels = _polynomial(drawn, np.column_stack([-half, half, estimate]))
        return BootstrapMinima(
            optima=self.centres + x + off * (half / FORM_SPAN) ** 2, curvature=curvature,
            rise=levels[..., :2] - levels[..., 2:], level=levels[..., 2],
        )  # fmt: skip

    def curve(self, b: int) -> IsoflopCurve:
        """Return the fitted curve of budget number ``b``."""
        mine = np.equal(self.C, self.budgets[b])
        sizes, freedom = self.N[mine], max(float((1 - self.leverage[mine]).sum()), 1.0)
        fitted = self.coefficients[b, : 1 + self.degree + self.shared]
        return IsoflopCurve(
            centre=float(self.centres[b]), coefficients=tuple(float(c) for c in fitted), N_min=float(sizes.min()),
            N_max=float(sizes.max()), noise=math.sqrt(float((self.residuals[mine] ** 2).sum()) / freedom),
        )  # fmt: skip


def minimise_polynomials(c: Array, half: Array) -> tuple[Array, Array]:
    """Return the minimum of polynomials within +-half, and the second derivative there.

    Args:
        c: coefficients, (..., n_budgets, 5), lowest power first.
        half: half widths, (n_budgets,).

    Returns:
        x, the lowest interior minimum, or +-inf where the curve only falls towards that edge. Then the second
        derivative at x, or at 0 where there is no minimum.
    """
    values = _polynomial(c, SEARCH * half[:, None])
    inner = values[..., 1:-1]
    valley = (inner <= values[..., :-2]) & (inner <= values[..., 2:])
    deepest = np.where(valley, inner, np.inf).argmin(-1) + 1
    has_minimum = valley.any(-1)
    x = np.where(has_minimum, SEARCH[deepest] * half, 0.0)
    first, second = _derivative(c), _derivative(_derivative(c))
    step = (SEARCH[1] - SEARCH[0]) * half
    for _ in range(4):
        slope, curvature = (_polynomial(d, x[..., None])[..., 0] for d in (first, second))
        move = np.where(has_minimum & (curvature > 0), -slope / np.where(curvature > 0, curvature, 1.0), 0.0)
        x = x + np.clip(move, -step, step)
    curvature = _polynomial(second, x[..., None])[..., 0]
    edge = np.where(values[..., -1] < values[..., 0], np.inf, -np.inf)
    return np.where(has_minimum, x, edge), curvature


def _polynomial(c: Array, x: Array) -> Array:
    """Evaluate polynomials (..., p) at x (..., m)."""
    value = np.zeros(np.broadcast_shapes(c[..., :1].shape, x.shape))
    for power in range(c.shape[-1] - 1, -1, -1):
        value = value * x + c[..., power : power + 1]
    return value


def _derivative(c: Array) -> Array:
    return c[..., 1:] * np.arange(1, c.shape[-1])


def fit_isoflops(
    C: Array, N: Array, L: Array, *, seeds: npt.ArrayLike | None = None, curve: str = "shared",
    shared: int | None = None, huber: float = HUBER,
) -> IsoflopFit | None:  # fmt: skip
    """Fit one skill's isoFLOP curves, all budgets together.

    Args:
        C: nominal budget of each run, FLOP, (n,). Equal numbers are one budget.
        N: parameters of each run, (n,).
        L: loss of each run, nats per token, (n,).
        seeds: label of each run's token stream. A stream shared by the sizes of a budget gets a level term.
        curve: method, one of ``CURVES``.
        shared: number of powers beyond the parabola that the budgets share, 0 to 2, for the method ``shared``. Default:
            the data choose it, and whether the smallest and largest sizes count.
        huber: delta of the Huber loss in robust standard deviations. Infinite: least squares.

    Returns:
        The fit, or None where no budget has enough sizes for a curve.

    Raises:
        InputError: unknown curve.
    """
    check_curve(curve)
    sample = _Sample(
        C=C, N=N, L=L, seeds=np.zeros(len(N), dtype=int) if seeds is None else np.asarray(seeds), curve=curve,
        huber=huber,
    )  # fmt: skip
    everything = np.ones(len(N), dtype=bool)
    if curve != "shared" or shared is not None:
        return sample.fit(everything, shared or 0)
    chosen = sample.choose(everything)
    if chosen is None:
        return None
    inner = _inner_sizes(C, N)
    rival = sample.choose(inner) if inner.any() else None
    if rival is None or rival.budgets != chosen.budgets or not _ends_disagree(chosen, rival):
        return chosen
    return replace(rival, without_ends=True)


@dataclass(frozen=True, kw_only=True)
class _Sample:
    """The runs of one skill, and how curves are fitted to some of them."""

    C: Array
    N: Array
    L: Array
    seeds: npt.NDArray[np.generic]
    curve: str
    huber: float

    def choose(self, rows: npt.NDArray[np.bool_]) -> IsoflopFit | None:
        """Return the fit whose N* has the least expected error, over the numbers of shared powers."""
        sizes = [count_sizes(self.N[rows & np.equal(self.C, budget)]) for budget in np.unique(self.C[rows])]
        sizes = [count for count in sizes if count >= min_sizes(self.curve)]
        most = _shared_terms(sizes) if sizes else 0
        fits = [fit for fit in (self.fit(rows, terms) for terms in range(most + 1)) if fit is not None]
        if not fits:
            return None
        # At the minima of the parabola for all: else a curve that noise bends more would look the more certain
        noise, minima = fits[-1].noise, fits[0].minima()
        errors = np.array([noise**2 * (fit.sensitivity(*minima) ** 2).sum(1) + fit.form_error**2 for fit in fits])
        comparable = np.isfinite(errors[0])
        return fits[int(errors[:, comparable].mean(1).argmin())] if comparable.any() else fits[-1]

    def fit(self, rows: npt.NDArray[np.bool_], terms: int) -> IsoflopFit | None:
        """Fit the curves to some rows, with a number of shared powers; None where no budget has enough sizes."""
        fewest = min_sizes(self.curve)
        at_budget = {float(budget): rows & np.equal(self.C, budget) for budget in np.unique(self.C[rows])}
        sizes = {budget: count_sizes(self.N[mine]) for budget, mine in at_budget.items()}
        budgets = tuple(budget for budget, count in sizes.items() if count >= fewest)
        too_few = tuple((C, int(at_budget[C].sum()), count) for C, count in sizes.items() if count < fewest)
        if not budgets:
            return None
        used = rows & np.isin(self.C, budgets)
        C, N, log_L = self.C[used], self.N[used], np.log(self.L[used])
        log_sizes = [np.log(self.N[at_budget[budget]]) for budget in budgets]
        centres = np.array([(log_N.max() + log_N.min()) / 2 for log_N in log_sizes])
        degree = DEGREES[self.curve]
        n_budget_terms = (degree + 1) * len(budgets)
        design = _design(C, np.log(N), self.seeds[used], budgets=budgets, centres=centres, degree=degree, shared=terms)
        inverse = np.asarray(np.linalg.pinv(design), dtype=float)
        log_L = huber_pseudo_values(log_L, C, design, inverse, huber=self.huber)
        projection = np.zeros((len(budgets), 5, int(used.sum())))
        projection[:, : degree + 1] = inverse[:n_budget_terms].reshape(len(budgets), degree + 1, -1)
        projection[:, degree + 1 : degree + 1 + terms] = inverse[n_budget_terms : n_budget_terms + terms]
        return IsoflopFit(
            budgets=budgets, too_few=too_few, centres=centres, coefficients=projection @ log_L, projection=projection,
            residuals=log_L - design @ (inverse @ log_L), leverage=np.einsum("np,pn->n", design, inverse),
            used=used, C=C, N=N, degree=degree, shared=terms,
        )  # fmt: skip


def _inner_sizes(C: Array, N: Array) -> npt.NDArray[np.bool_]:
    """Return a mask of the runs that are not at the smallest or the largest size of their budget, (n,)."""
    inner, log_N = np.ones(len(N), dtype=bool), np.round(np.log(N), 3)
    for budget in np.unique(C):
        mine = np.equal(C, budget)
        inner[mine] = (log_N[mine] > log_N[mine].min()) & (log_N[mine] < log_N[mine].max())
    return inner


def _ends_disagree(everything: IsoflopFit, inner: IsoflopFit) -> bool:
    """Check whether N* without the ends of the sizes differs by more than the errors of runs and form allow.

    An F test. Both fits are linear in the same losses, so that the variance of the difference is known up to the noise.
    """
    with np.errstate(invalid="ignore"):
        difference = inner.minima()[0] - everything.minima()[0]
    if inner.freedom < _LEAST_FREEDOM or not np.isfinite(difference).all():
        return False
    weights = -everything.sensitivity(*everything.minima())
    weights[:, inner.used[everything.used]] += inner.sensitivity(*inner.minima())
    variance = inner.noise**2 * (weights**2).sum(1) + everything.form_error**2 + inner.form_error**2
    return float(f_distribution.sf(np.mean(difference**2 / variance), len(difference), inner.freedom)) < ENDS_P


def huber_pseudo_values(log_L: Array, C: Array, design: Array, inverse: Array, *, huber: float) -> Array:
    """Return values (n,) whose least-squares fit is the Huber fit of ``log_L``, with its standard errors.

    At Huber's fit psi(residuals) is orthogonal to the design, so it is the least-squares fit of fit + psi
    (pseudo-values, Bickel 1976). psi is divided by the share of residuals within delta and multiplied by Huber's factor
    for few degrees of freedom (Huber 1981, section 7.6). It then has the variance that least squares needs.
    """
    leverage = np.einsum("np,pn->n", design, inverse)
    rank = float(leverage.sum())
    if len(log_L) - rank < FREEDOM * len(log_L):
        return log_L
    fitted = np.asarray(design @ (inverse @ log_L))
    for _ in range(STEPS):
        residuals = log_L - fitted
        delta = huber * _scale(residuals, leverage, C)
        psi = np.asarray(np.clip(residuals, -delta, delta))
        move = design @ (inverse @ psi)
        fitted = fitted + move
        if np.abs(move).max() <= 1e-10 * delta.min():
            break
    within = float((np.abs(residuals) <= delta).mean())
    if within == 1:
        return log_L
    few = 1 + rank / len(log_L) * (1 - within) / within
    return np.asarray(fitted + psi * few / within)


def _scale(residuals: Array, leverage: Array, C: Array) -> Array:
    """Return the robust sd of each run's error, (n,): that of its budget, or of all runs where this is larger.

    Runs of a noisy budget are thus no outliers.
    """
    common = _robust_sd(residuals, leverage)
    scale = np.full(len(C), common)
    for budget in np.unique(C):
        mine = budget == C
        scale[mine] = max(common, _robust_sd(residuals[mine], leverage[mine]))
    return scale


def _robust_sd(residuals: Array, leverage: Array) -> float:
    share = max(float((1 - leverage).mean()), FREEDOM)
    return float(1.4826 * np.median(np.abs(residuals))) / math.sqrt(share)


def check_curve(curve: str) -> None:
    """Refuse an unknown method.

    Raises:
        InputError: the method is not one of ``CURVES``.
    """
    if curve not in CURVES:
        raise InputError(f"unknown isoFLOP curve: {curve!r}. Use one of {', '.join(CURVES)}.")


def min_sizes(curve: str) -> int:
    """Return the number of distinct sizes that a budget needs: one more than its coefficients."""
    check_curve(curve)
    return DEGREES[curve] + 2


def _shared_terms(sizes: list[int]) -> int:
    """Return how many shared terms the sizes can determine. Each needs sizes beyond the three of a parabola."""
    spare = sum(max(count - 4, 0) for count in sizes)
    if max(sizes) >= 6 and spare >= 6:
        return 2
    return 1 if max(sizes) >= 5 and spare >= 2 else 0


def _design(
    C: Array, log_N: Array, seeds: npt.NDArray[np.generic], *, budgets: tuple[float, ...], centres: Array, degree: int,
    shared: int,
) -> Array:  # fmt: skip
    """Return the design matrix: powers of x per budget, the shared powers, and seed levels that sum to zero."""
    columns, levels, everywhere = [], [], np.zeros(len(C))
    for budget, centre in zip(budgets, centres, strict=True):
        mine = np.equal(C, budget)
        x = np.where(mine, log_N - centre, 0.0)
        columns += [mine.astype(float), *(x**power for power in range(1, degree + 1))]
        everywhere += x
        levels += _seed_levels(seeds, mine)
    return np.column_stack(columns + [everywhere ** (degree + 1 + j) for j in range(shared)] + levels)


def _seed_levels(seeds: npt.NDArray[np.generic], mine: npt.NDArray[np.bool_]) -> list[Array]:
    names, counts = np.unique(seeds[mine], return_counts=True)
    if len(names) < 2 or counts.min() < SEED_RUNS:
        return []
    last = mine & (seeds == names[-1])
    return [(mine & (seeds == name)).astype(float) - last for name in names[:-1]]


def count_sizes(N: Array) -> int:
    """Return the number of sizes that differ by more than 0.1 %."""
    return len(np.unique(np.round(np.log(N), 3)))


def find_minima(fit: IsoflopFit, drawn: BootstrapMinima, *, level: float, mix: str, skill: str) -> list[IsoflopMinimum]:
    """Return the compute optimum at each budget with its interval, or the reason for its refusal.

    Args:
        fit: fitted curves.
        drawn: minima of the resamples.
        level: level of the intervals.
        mix: name of the mix in the results.
        skill: name of the skill in the results.
    """
    x, curved = fit.minima()
    minima = [
        IsoflopMinimum(
            mix=mix, skill=skill, C=C, n_runs=runs, n_sizes=count, status=Status.TOO_FEW,
            reason=f"{count} distinct sizes: a curve needs {fit.degree + 2}, better 7 over +-8x",
        )
        for C, runs, count in fit.too_few
    ]  # fmt: skip
    for b, C in enumerate(fit.budgets):
        mine = fit.C == C
        log_N = interval(float(x[b]), drawn.optima[:, b], level)
        curvature = interval(float(curved[b]), drawn.curvature[:, b], level)
        curve = fit.curve(b)
        rises = np.quantile(drawn.rise[:, b], (1 - level) / 2, axis=0) > 0
        status, reason = check_minimum(log_N, curvature.value, curve, rises=(bool(rises[0]), bool(rises[1])))
        reason = reason or (_NO_ENDS if fit.without_ends else "")
        ok = status is Status.OK
        N = log_N.map(math.exp) if ok else Interval()
        minima.append(
            IsoflopMinimum(
                mix=mix, skill=skill, C=C, status=status, reason=reason, n_runs=int(mine.sum()),
                n_sizes=count_sizes(fit.N[mine]), N=N, loss=float(curve.loss(N.value)) if ok else math.nan,
                curvature=curvature, curve=curve, draws=np.column_stack([drawn.optima[:, b], drawn.level[:, b]]),
            )
        )  # fmt: skip
    return sorted(minima, key=lambda minimum: minimum.C)


def check_minimum(
    log_N: Interval, curvature: float, curve: IsoflopCurve, *, rises: tuple[bool, bool]
) -> tuple[Status, str]:
    """Return the status of a minimum, and the reason and cure where it is refused.

    A curve through pure noise has a minimum in a third of all cases. So a positive curvature is not enough: the loss
    must rise from the minimum to both ends of the sizes by more than its error (``rises``).
    """
    low, high = math.log(curve.N_min), math.log(curve.N_max)
    if not (math.isfinite(log_N.value) and low < log_N.value < high):
        if curvature <= 0:
            return Status.CONCAVE, "the curve bends down, so it has no minimum: add sizes and seeds"
        end = "largest" if curve.loss(curve.N_max) < curve.loss(curve.N_min) else "smallest"
        return Status.NOT_BRACKETED, f"the loss still falls at the {end} size: add sizes beyond it"
    if not any(rises):
        return Status.TOO_FLAT, (
            f"the loss rises from the minimum to neither end by more than its error (noise {100 * curve.noise:.2f} %): "
            "add seeds or a wider span"
        )
    if not all(rises):
        end = "largest" if rises[0] else "smallest"
        return Status.NOT_BRACKETED, f"the rise to the {end} size is within its error: add sizes beyond it, or seeds"
    if not (log_N.lo > low and log_N.hi < high):
        end = "smallest" if log_N.lo <= low else "largest"
        return Status.NOT_BRACKETED, f"the interval of the minimum passes the {end} size: add sizes beyond it"
    return Status.OK, ""
