"""isoFLOP curves (approach 2): a polynomial in ln N on ln L at each budget, by one of three methods (``CURVES``).

x = ln N - centre of the budget:

    shared      ln L = c0 + c1 x + c2 x^2 + s x^3 + t x^4; c0, c1, c2 are the budget's own, s and t the skill's
    quadratic   ln L = c0 + c1 x + c2 x^2, the parabola that most of the field fits
    cubic       ln L = c0 + c1 x + c2 x^2 + c3 x^3, all the budget's own

Real curves are skewed, and a bare parabola over +-8x puts N* off by 7 to 10 % however little noise there is. A cubic at
every budget pays for the cure in variance; a common skew and tail cost less and are close to true, because the curve's
shape changes slowly with C: so ``shared`` is the default. What each method leaves is in its intervals (``FORM``). Raw
loss, a local parabola and a parabola around the parametric law were tried too: ``benchmarks/isoflop_coverage.py
shapes`` prints the comparison, ``benchmarks/approach2_bias.py`` the bias of each far beyond the runs.

ln L rather than L: errors are proportional to the loss, and the objective is then that of the parametric fit: Huber's,
with delta at ``HUBER`` robust standard deviations of the runs about their curves, so that a bad run bends no curve.
``benchmarks/isoflop_coverage.py outliers`` prints what that gains, and that it costs no coverage without any.
"""

import math
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from skillscale.errors import InputError
from skillscale.laws.forms.nd import Array
from skillscale.laws.results import Interval, IsoflopCurve, IsoflopMinimum, Status
from skillscale.laws.uncertainty.resamples import interval

CURVES = ("shared", "quadratic", "cubic")
DEGREES = {"shared": 2, "quadratic": 2, "cubic": 3}  # highest power that is a budget's own
HUBER = 2.0  # robust standard deviations where a residual begins to count less
STEPS = 100
FREEDOM = 0.3  # share of degrees of freedom below which an outlier can't be told from a curve (assumption, not tuned)
SEED_RUNS = 4  # runs a seed needs at a budget before its level is its own
SEARCH = np.linspace(-1, 1, 81)  # where a curve's minimum is looked for, in half widths of its grid
OUTSIDE = 1.5  # where a resample's minimum counts as being when it lies beyond the grid, in half widths
# What a curve of so many own and shared powers beyond the first leaves in ln N* over +-8x without any noise: rms of its
# mean over budgets, and of its trend per unit of ln C, over random Chinchilla and drifting truths
# (``benchmarks/isoflop_coverage.py form``). Both fall with the square of the grid's width.
FORM = {(2, 0): 0.085, (2, 1): 0.020, (2, 2): 0.008, (3, 0): 0.020}
FORM_TREND = 0.007
FORM_SPAN = math.log(8)


@dataclass(frozen=True, kw_only=True)
class BootstrapMinima:
    """What K resamples of the errors make of a skill's minima.

    ``optima`` (ln N*) and ``curvature``: (K, n_budgets); ``rise``: (K, n_budgets, 2), ln L at the smallest and at the
    largest size above ln L at the estimated minimum: what brackets it; ``level``: (K, n_budgets), ln L at the latter.
    """

    optima: Array = field(metadata={"unit": "ln parameters"})
    level: Array = field(metadata={"unit": "ln L"})
    curvature: Array = field(metadata={"unit": "d2 ln L / d(ln N)2"})
    rise: Array = field(metadata={"unit": "ln L"})


@dataclass(frozen=True, kw_only=True)
class IsoflopFit:
    """The isoFLOP curves of one skill and mix, fitted together on ln L.

    They are the least-squares curves of values in which outliers were drawn in (``bootstrap_minima``), ``residuals`` those of
    these values: so ``projection`` and ``leverage`` are those of least squares, and so is every resample.

    ``coefficients``: (n_budgets, 5), lowest power first; ``projection``: (n_budgets, 5, n) from ln L to them, which
    turns resampled errors into resampled curves; ``leverage``: (n,) of the runs used; ``used``: mask over the runs
    given; ``degree``: highest power that is a budget's own; ``shared``: further powers common to the budgets (1: skew,
    2: skew and tail).
    """

    budgets: tuple[float, ...]
    too_few: tuple[tuple[float, int, int], ...] = field(metadata={"unit": "budgets left out: C, runs, distinct sizes"})
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

    @property
    def half_widths(self) -> Array:
        """Half the width of each budget's grid in ln N, (n_budgets,)."""
        return np.array([np.ptp(np.log(self.N[np.equal(self.C, budget)])) / 2 for budget in self.budgets])

    def minima(self) -> tuple[Array, Array]:
        """Ln N* (infinite where beyond the grid) and d2 ln L / d(ln N)2 there, each (n_budgets,)."""
        x, curvature = lowest(self.coefficients, self.half_widths)
        return self.centres + x, curvature

    def drawn_minima(self, errors: Array, form: Array) -> BootstrapMinima:
        """The minima of resampled curves.

        Args:
            errors: of ln L, (K, n).
            form: standard normal, (K, 2): where each resample lies in the allowance for what the curve's form leaves,
                by level and by trend over ln C.
        """
        half, log_C = self.half_widths, np.log(np.array(self.budgets))
        drawn = self.coefficients + np.einsum("bcn,kn->kbc", self.projection, errors)
        x, curvature = lowest(drawn, half)
        x = np.clip(x, -OUTSIDE * half, OUTSIDE * half)
        off = form[:, :1] * FORM[self.degree, self.shared] + form[:, 1:] * FORM_TREND * (log_C - log_C.mean())
        estimate = np.clip(lowest(self.coefficients, half)[0], -half, half)
        levels = _polynomial(drawn, np.column_stack([-half, half, estimate]))
        return BootstrapMinima(
            optima=self.centres + x + off * (half / FORM_SPAN) ** 2, curvature=curvature,
            rise=levels[..., :2] - levels[..., 2:], level=levels[..., 2],
        )  # fmt: skip

    def curve(self, b: int) -> IsoflopCurve:
        """The fitted curve of budget number ``b``."""
        mine = np.equal(self.C, self.budgets[b])
        sizes, freedom = self.N[mine], max(float((1 - self.leverage[mine]).sum()), 1.0)
        fitted = self.coefficients[b, : 1 + self.degree + self.shared]
        return IsoflopCurve(
            centre=float(self.centres[b]), coefficients=tuple(float(c) for c in fitted), N_min=float(sizes.min()),
            N_max=float(sizes.max()), noise=math.sqrt(float((self.residuals[mine] ** 2).sum()) / freedom),
        )  # fmt: skip


def lowest(c: Array, half: Array) -> tuple[Array, Array]:
    """Minimum of polynomials within +-half, and the second derivative there.

    Args:
        c: coefficients, (..., n_budgets, 5), lowest power first.
        half: (n_budgets,).

    Returns:
        x, the lowest interior minimum, or +-inf where the curve only falls towards that edge; the second derivative at
        x, or at 0 where there is none.
    """
    values = _polynomial(c, SEARCH * half[:, None])
    inner = values[..., 1:-1]
    valley = (inner <= values[..., :-2]) & (inner <= values[..., 2:])
    deepest = np.where(valley, inner, np.inf).argmin(-1) + 1
    found = valley.any(-1)
    x = np.where(found, SEARCH[deepest] * half, 0.0)
    first, second = _derivative(c), _derivative(_derivative(c))
    step = (SEARCH[1] - SEARCH[0]) * half
    for _ in range(4):
        slope, curvature = (_polynomial(d, x[..., None])[..., 0] for d in (first, second))
        move = np.where(found & (curvature > 0), -slope / np.where(curvature > 0, curvature, 1.0), 0.0)
        x = x + np.clip(move, -step, step)
    curvature = _polynomial(second, x[..., None])[..., 0]
    edge = np.where(values[..., -1] < values[..., 0], np.inf, -np.inf)
    return np.where(found, x, edge), curvature


def _polynomial(c: Array, x: Array) -> Array:
    """Values (..., m) of polynomials (..., p) at x (..., m)."""
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
        C: nominal budget of each run, in FLOP, (n,); equal numbers are one budget.
        N: parameters, (n,).
        L: loss, nats per token, (n,).
        seeds: label of each run's token stream; a stream shared by the sizes of a budget gets a level of its own.
        curve: the method, one of ``CURVES``.
        shared: how many powers beyond the parabola the budgets share, 0 to 2, where the method is ``shared``; by
            default as many as the sizes can tell.
        huber: delta of the Huber loss in robust standard deviations; infinite for least squares.

    Returns:
        The fit, or None where no budget has the sizes for a curve.

    Raises:
        InputError: there is no such curve.
    """
    least = min_sizes(curve)
    labels = np.zeros(len(N), dtype=int) if seeds is None else np.asarray(seeds)
    sizes = {float(budget): distinct_sizes(N[np.equal(C, budget)]) for budget in np.unique(C)}
    budgets = tuple(budget for budget, count in sizes.items() if count >= least)
    too_few = tuple((C_b, int(np.equal(C, C_b).sum()), count) for C_b, count in sizes.items() if count < least)
    if not budgets:
        return None
    used = np.isin(C, budgets)
    ends = [np.log(N[np.equal(C, budget)]) for budget in budgets]
    centres = np.array([(log_N.max() + log_N.min()) / 2 for log_N in ends])
    degree = DEGREES[curve]
    own = (degree + 1) * len(budgets)
    terms = 0 if curve != "shared" else _shared_terms([sizes[b] for b in budgets]) if shared is None else shared
    design = _design(
        C[used], np.log(N[used]), labels[used], budgets=budgets, centres=centres, degree=degree, shared=terms
    )
    inverse = np.asarray(np.linalg.pinv(design), dtype=float)
    log_L = bootstrap_minima(np.log(L[used]), C[used], design, inverse, huber=huber)
    projection = np.zeros((len(budgets), 5, int(used.sum())))
    projection[:, : degree + 1] = inverse[:own].reshape(len(budgets), degree + 1, -1)
    projection[:, degree + 1 : degree + 1 + terms] = inverse[own : own + terms]
    return IsoflopFit(
        budgets=budgets, too_few=too_few, centres=centres, coefficients=projection @ log_L, projection=projection,
        residuals=log_L - design @ (inverse @ log_L), leverage=np.einsum("np,pn->n", design, inverse),
        used=used, C=C[used], N=N[used], degree=degree, shared=terms,
    )  # fmt: skip


def bootstrap_minima(log_L: Array, C: Array, design: Array, inverse: Array, *, huber: float) -> Array:
    """Values (n,) whose least squares is the Huber fit of ``log_L``, and has its standard errors.

    Huber's fit is where psi(residuals) is orthogonal to the design: least squares of fit + psi (pseudo-values, Bickel
    1976). Divided by the share of residuals within delta, and times Huber's factor for few degrees of freedom (Huber
    1981, section 7.6), psi has the variance that least squares must be told.
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
    """Robust sd of each run's error, (n,): its budget's, or all runs' where larger; a noisy budget has no bad runs."""
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
    """Refuse a method that there is not.

    Raises:
        InputError: names those that there are.
    """
    if curve not in CURVES:
        raise InputError(f"there is no isoFLOP curve {curve!r}; it is one of {', '.join(CURVES)}")


def min_sizes(curve: str) -> int:
    """Distinct sizes that a budget needs for a curve: one more than its own coefficients."""
    check_curve(curve)
    return DEGREES[curve] + 2


def _shared_terms(sizes: list[int]) -> int:
    """How many shared terms the sizes of the budgets can tell: each needs sizes to spare over a budget's own three."""
    spare = sum(max(count - 4, 0) for count in sizes)
    if max(sizes) >= 6 and spare >= 6:
        return 2
    return 1 if max(sizes) >= 5 and spare >= 2 else 0


def _design(
    C: Array, log_N: Array, seeds: npt.NDArray[np.generic], *, budgets: tuple[float, ...], centres: Array, degree: int,
    shared: int,
) -> Array:  # fmt: skip
    """Powers of x up to ``degree`` at each budget; the shared ones beyond; the seeds' levels, summing to zero there."""
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


def distinct_sizes(N: Array) -> int:
    """Number of sizes that differ by more than .1 %."""
    return len(np.unique(np.round(np.log(N), 3)))


def find_minima(fit: IsoflopFit, drawn: BootstrapMinima, *, level: float, mix: str, skill: str) -> list[IsoflopMinimum]:
    """The compute optimum at each budget with its interval, or the reason for refusing it.

    Args:
        fit: the curves.
        drawn: the same minima of the resamples.
        level: of the intervals.
        mix: name to put on the values.
        skill: likewise.
    """
    x, curved = fit.minima()
    found = [
        IsoflopMinimum(
            mix=mix, skill=skill, C=C, n_runs=runs, n_sizes=count, status=Status.TOO_FEW,
            reason=f"{count} distinct sizes; a curve needs {fit.degree + 2}, better 7 over +-8x",
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
        ok = status is Status.OK
        N = log_N.map(math.exp) if ok else Interval()
        found.append(
            IsoflopMinimum(
                mix=mix, skill=skill, C=C, status=status, reason=reason, n_runs=int(mine.sum()),
                n_sizes=distinct_sizes(fit.N[mine]), N=N, loss=float(curve.loss(N.value)) if ok else math.nan,
                curvature=curvature, curve=curve, draws=np.column_stack([drawn.optima[:, b], drawn.level[:, b]]),
            )
        )  # fmt: skip
    return sorted(found, key=lambda minimum: minimum.C)


def check_minimum(
    log_N: Interval, curvature: float, curve: IsoflopCurve, *, rises: tuple[bool, bool]
) -> tuple[Status, str]:
    """Whether a minimum stands, and if not why and what to run.

    A curve through pure noise has a minimum somewhere in a third of all cases, so more is asked than a positive
    curvature: the loss must rise from the minimum to both ends of the sizes by more than its error (``rises``).
    """
    low, high = math.log(curve.N_min), math.log(curve.N_max)
    if not (math.isfinite(log_N.value) and low < log_N.value < high):
        if curvature <= 0:
            return Status.CONCAVE, "the curve bends down, so it has no minimum; add sizes and seeds"
        end = "largest" if curve.loss(curve.N_max) < curve.loss(curve.N_min) else "smallest"
        return Status.NOT_BRACKETED, f"the loss still falls at the {end} size; add sizes beyond it"
    if not any(rises):
        return Status.TOO_FLAT, (
            f"the loss rises from the minimum to neither end by more than its error (noise {curve.noise:.2%}); "
            "add seeds or a wider span"
        )
    if not all(rises):
        end = "largest" if rises[0] else "smallest"
        return Status.NOT_BRACKETED, f"the rise to the {end} size is within its error; add sizes beyond it, or seeds"
    if not (log_N.lo > low and log_N.hi < high):
        end = "smallest" if log_N.lo <= low else "largest"
        return Status.NOT_BRACKETED, f"the interval of the minimum passes the {end} size; add sizes beyond it"
    return Status.OK, ""
