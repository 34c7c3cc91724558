"""Dual numbers with exact first and second derivatives, on stacks. Laws are written in them.

A ``Jet`` holds one value per problem and point, (K, n), and its derivatives by the parameters that it depends on. A law
writes its formula once, with ``+ - * /``, ``exp``, ``log``, ``growth`` and ``logsumexp``. The chain rule then gives its
Jacobian and its second derivatives to machine precision. The full Hessian (K, n, p, p) is never formed: a fit needs
only sum_i v_i H_i, which one backward pass over the formula's operations collects.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]
Indices = tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Jet:
    """A dual number (a "jet", as in Ceres): values (K, n) and derivatives (K, s, n) by the s parameters in ``support``.

    Either K or n may be 1 where all problems or points agree. A jet without ``jac`` is a constant.

    ``operands``: the jets it was computed from, each with the slope by it. ``cross_terms``: pairs of operands with the
    second derivative by both (a pair of two different operands stands for both orders). ``self_curvature``: factor of
    the outer product of its gradient with itself, where the second derivative has such a term.
    """

    value: Array
    support: Indices = ()
    jac: Array | None = None
    operands: "tuple[tuple[Jet, Array], ...]" = ()
    cross_terms: "tuple[tuple[Jet, Jet, Array], ...]" = ()
    self_curvature: float = 0.0

    def weighted_hessian(self, v: Array) -> Array:
        """Return sum_i v_i d2 value_i / dq dq' over the points, (K, s, s), for weights v (K, n)."""
        H = np.zeros((len(v), len(self.support), len(self.support)))
        weight = {id(self): v}
        for jet in _reverse_order(self):
            w = weight[id(jet)]
            for operand, slope in jet.operands:
                if operand.operands:
                    so_far = weight.get(id(operand))
                    weight[id(operand)] = w * slope if so_far is None else so_far + w * slope
            for first, other, curvature in jet.cross_terms:
                _add(H, first, w * curvature, other, self.support)
                if first is not other:
                    _add(H, other, w * curvature, first, self.support)
            if jet.self_curvature:
                _add(H, jet, w * jet.self_curvature, jet, self.support)
        return H

    __array_ufunc__ = None  # numpy then leaves array * jet to Jet.__rmul__

    def __add__(self, other: "Jet | npt.ArrayLike") -> "Jet":
        b = as_jet(other)
        return _compose(self.value + b.value, [(self, _ONE), (b, _ONE)])

    def __neg__(self) -> "Jet":
        return _compose(-self.value, [(self, -_ONE)])

    def __sub__(self, other: "Jet | npt.ArrayLike") -> "Jet":
        b = as_jet(other)
        return _compose(self.value - b.value, [(self, _ONE), (b, -_ONE)])

    def __rsub__(self, other: npt.ArrayLike) -> "Jet":
        return as_jet(other) - self

    def __mul__(self, other: "Jet | npt.ArrayLike") -> "Jet":
        b = as_jet(other)
        return _compose(self.value * b.value, [(self, b.value), (b, self.value)], [(self, b, _ONE)])

    def __truediv__(self, other: "Jet | npt.ArrayLike") -> "Jet":
        return self * reciprocal(as_jet(other))

    __radd__ = __add__
    __rmul__ = __mul__


_ONE = np.ones((1, 1))


def leaves(q: Array, *, derivatives: bool) -> tuple[Jet, ...]:
    """Return the columns of parameters (K, p) as jets, each (K, 1)."""
    unit = np.ones((1, 1, 1)) if derivatives else None
    return tuple(Jet(q[:, j : j + 1], (j,) if derivatives else (), unit) for j in range(q.shape[1]))


def as_jet(value: "Jet | npt.ArrayLike") -> Jet:
    """Return a constant as a jet. Shape (n,) becomes (1, n)."""
    return value if isinstance(value, Jet) else Jet(np.atleast_2d(np.asarray(value, dtype=float)))


def exp(a: Jet) -> Jet:
    """Return e^a."""
    value = np.exp(a.value)
    return _compose(value, [(a, value)], [(a, a, value)])


def log(a: Jet) -> Jet:
    """Return ln a."""
    slope = 1 / a.value
    return _compose(np.log(a.value), [(a, slope)], [(a, a, -(slope**2))])


def reciprocal(a: Jet) -> Jet:
    """Return 1 / a."""
    value = 1 / a.value
    return _compose(value, [(a, -(value**2))], [(a, a, 2 * value**3)])


def growth(t: Jet) -> Jet:
    """Return (e^t - 1) / t, and 1 at t = 0. With t = a x, x times that is a straight line in x that bends by a."""
    near = np.abs(t.value) < _NEAR
    safe = np.where(near, 1.0, t.value)
    e = np.exp(np.minimum(safe, 700.0))
    far = ((e - 1) / safe, (e * (safe - 1) + 1) / safe**2, (e * (safe**2 - 2 * safe + 2) - 2) / safe**3)
    close = [np.polynomial.polynomial.polyval(np.where(near, t.value, 0.0), series) for series in _GROWTH]
    value, slope, curvature = (np.where(near, c, f) for c, f in zip(close, far, strict=True))
    return _compose(value, [(t, slope)], [(t, t, curvature)])


_NEAR = 0.5  # below this |t| the series is used, because the quotients cancel
_SERIES = np.array([1 / math.factorial(k + 1) for k in range(18)])
_GROWTH = (_SERIES, np.polynomial.polynomial.polyder(_SERIES), np.polynomial.polynomial.polyder(_SERIES, 2))


def logsumexp(*terms: "Jet | npt.ArrayLike") -> Jet:
    """Return ln sum_j e^(term_j). A term may be -inf.

    With p the terms' shares of the sum, the gradient by the terms is p and the Hessian is diag(p) - p p'.
    """
    jets = [as_jet(term) for term in terms]
    top = jets[0].value
    for jet in jets[1:]:
        top = np.maximum(top, jet.value)
    top = np.where(np.isfinite(top), top, 0.0)
    shares = [np.exp(jet.value - top) for jet in jets]
    total = shares[0]
    for share in shares[1:]:
        total = total + share
    with np.errstate(divide="ignore"):
        value = top + np.log(total)
    if all(jet.jac is None for jet in jets):
        return Jet(value)
    live = [(jet, share / np.where(total > 0, total, 1.0)) for jet, share in zip(jets, shares, strict=True)]
    live = [(jet, share) for jet, share in live if jet.jac is not None]
    support = _union([jet for jet, _ in live])
    curvatures = tuple((jet, jet, share) for jet, share in live)
    return Jet(value, support, _sum_jac(live, support), tuple(live), curvatures, -1.0)


def _compose(
    value: Array, operands: Sequence[tuple[Jet, Array]], cross_terms: Sequence[tuple[Jet, Jet, Array]] = ()
) -> Jet:
    """Build a function of jets from its value, its slopes and its second derivatives by pairs of operands."""
    live = tuple((jet, slope) for jet, slope in operands if jet.jac is not None)
    if not live:
        return Jet(value)
    support = _union([jet for jet, _ in live])
    curved_pairs = tuple(pair for pair in cross_terms if pair[0].jac is not None and pair[1].jac is not None)
    return Jet(value, support, _sum_jac(live, support), live, curved_pairs)


def _reverse_order(root: Jet) -> list[Jet]:
    """List a jet and all jets it was computed from, each after every jet that depends on it."""
    order: list[Jet] = []
    seen: set[int] = set()
    stack: list[tuple[Jet, bool]] = [(root, False)]
    while stack:
        jet, expanded = stack.pop()
        if expanded:
            order.append(jet)
        elif id(jet) not in seen:
            seen.add(id(jet))
            stack.append((jet, True))
            stack += [(operand, False) for operand, _ in jet.operands if operand.operands]
    return order[::-1]


def _union(jets: Sequence[Jet]) -> Indices:
    first = jets[0].support
    return (
        first if all(jet.support == first for jet in jets) else tuple(sorted({j for jet in jets for j in jet.support}))
    )


def _sum_jac(live: Sequence[tuple[Jet, Array]], support: Indices) -> Array:
    """Return sum_j slope_j J_j in the columns of ``support``."""
    parts = [(jet.support, jet.jac, slope[:, None]) for jet, slope in live if jet.jac is not None]
    if len(parts) == 1:
        return parts[0][1] * parts[0][2]
    K, n = (max(max(jac.shape[axis], slope.shape[axis]) for _, jac, slope in parts) for axis in (0, 2))
    total, filled = np.empty((K, len(support), n)), set[int]()
    for some, jac, slope in parts:
        for of_part, columns in _runs(some, support):
            part = jac[:, of_part]
            if filled.isdisjoint(some[of_part]):
                np.multiply(slope, part, out=total[:, columns])  # most terms have parameters of their own
            else:
                fresh = [support.index(j) for j in some[of_part] if j not in filled]
                total[:, fresh] = 0.0
                total[:, columns] += slope * part
        filled.update(some)
    return total


@lru_cache(maxsize=10_000)
def _runs(some: Indices, support: Indices) -> tuple[tuple[slice, slice], ...]:
    """Return the consecutive parameters in ``some`` as slices of it, and where they are in ``support``."""
    at = [support.index(j) for j in some]
    ends = [k for k in range(1, len(at) + 1) if k == len(at) or at[k] != at[k - 1] + 1]
    starts = [0, *ends[:-1]]
    return tuple((slice(k, end), slice(at[k], at[k] + end - k)) for k, end in zip(starts, ends, strict=True))


def _outer(a: Array, v: Array, b: Array) -> Array:
    """Return sum_i v_i a_i b_i', (K, s_a, s_b). A point axis of length 1 stands for all points."""
    n = max(a.shape[2], v.shape[1], b.shape[2])
    if a.shape[2] == 1 and b.shape[2] == 1:
        total = v.sum(1) if v.shape[1] == n else v[:, 0] * n
        return np.asarray(total[:, None, None] * a * np.swapaxes(b, 1, 2))
    weighted = np.broadcast_to(v[:, None] * a, (max(len(v), len(a)), a.shape[1], n))
    return weighted @ np.swapaxes(np.broadcast_to(b, (*b.shape[:2], n)), 1, 2)


def _add(H: Array, first: Jet, v: Array, other: Jet, support: Indices) -> None:
    """Add sum_i v_i (gradient of first)_i (gradient of other)_i' to H (K, s, s)."""
    if first.jac is None or other.jac is None:
        return
    rows = [support.index(j) for j in first.support]
    columns = [support.index(j) for j in other.support]
    H[:, np.array(rows)[:, None], np.array(columns)[None, :]] += _outer(first.jac, v, other.jac)
