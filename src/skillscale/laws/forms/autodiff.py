"""Numbers that carry their exact first and second derivatives, on stacks: what laws are written in.

A ``Jet`` is a value per problem and point, (K, n), with its derivatives by the parameters it depends on. A law writes
its formula once, with ``+ - * /``, ``exp``, ``log``, ``growth`` and ``logsumexp``; its Jacobian and its second order
follow by the chain rule, to machine precision. The full Hessian (K, n, p, p) is never formed: a fit needs only
sum_i v_i H_i, which is gathered from the formula's operations, each visited once with the weight that v gives it.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]
Indices = tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Jet:
    """Values (K, n) with first derivatives (K, s, n) by the s parameters named in ``support``.

    Any of K and n may be 1 where all problems or points agree. A jet without ``jac`` is a constant, or a value whose
    derivatives nobody asked for. ``operands``: what it was made of, with its slopes by them; ``curved``: pairs of
    operands with its second derivatives by them (a pair of two stands for both orders); ``self_curved``: the factor of
    its own gradient's outer product, where that is part of its second derivative.
    """

    value: Array
    support: Indices = ()
    jac: Array | None = None
    operands: "tuple[tuple[Jet, Array], ...]" = ()
    curved: "tuple[tuple[Jet, Jet, Array], ...]" = ()
    self_curved: float = 0.0

    def second(self, v: Array) -> Array:
        """sum_i v_i d2 value_i / dq dq' over the points, (K, s, s), for weights v (K, n)."""
        H = np.zeros((len(v), len(self.support), len(self.support)))
        weight = {id(self): v}
        for jet in _from_the_root(self):
            w = weight[id(jet)]
            for operand, slope in jet.operands:
                if operand.operands:
                    known = weight.get(id(operand))
                    weight[id(operand)] = w * slope if known is None else known + w * slope
            for first, other, bend in jet.curved:
                _add(H, first, w * bend, other, self.support)
                if first is not other:
                    _add(H, other, w * bend, first, self.support)
            if jet.self_curved:
                _add(H, jet, w * jet.self_curved, jet, self.support)
        return H

    __array_ufunc__ = None  # so that array * jet comes here

    def __add__(self, other: "Jet | npt.ArrayLike") -> "Jet":
        b = as_jet(other)
        return _combined(self.value + b.value, [(self, _ONE), (b, _ONE)])

    def __neg__(self) -> "Jet":
        return _combined(-self.value, [(self, -_ONE)])

    def __sub__(self, other: "Jet | npt.ArrayLike") -> "Jet":
        b = as_jet(other)
        return _combined(self.value - b.value, [(self, _ONE), (b, -_ONE)])

    def __rsub__(self, other: npt.ArrayLike) -> "Jet":
        return as_jet(other) - self

    def __mul__(self, other: "Jet | npt.ArrayLike") -> "Jet":
        b = as_jet(other)
        return _combined(self.value * b.value, [(self, b.value), (b, self.value)], [(self, b, _ONE)])

    def __truediv__(self, other: "Jet | npt.ArrayLike") -> "Jet":
        return self * reciprocal(as_jet(other))

    __radd__ = __add__
    __rmul__ = __mul__


_ONE = np.ones((1, 1))


def leaves(q: Array, *, derivatives: bool) -> tuple[Jet, ...]:
    """The columns of parameters (K, p) as jets, each (K, 1)."""
    one = np.ones((1, 1, 1)) if derivatives else None
    return tuple(Jet(q[:, j : j + 1], (j,) if derivatives else (), one) for j in range(q.shape[1]))


def as_jet(value: "Jet | npt.ArrayLike") -> Jet:
    """A constant, as a jet; (n,) becomes (1, n)."""
    return value if isinstance(value, Jet) else Jet(np.atleast_2d(np.asarray(value, dtype=float)))


def exp(a: Jet) -> Jet:
    """e^a."""
    value = np.exp(a.value)
    return _combined(value, [(a, value)], [(a, a, value)])


def log(a: Jet) -> Jet:
    """Ln a."""
    slope = 1 / a.value
    return _combined(np.log(a.value), [(a, slope)], [(a, a, -(slope**2))])


def reciprocal(a: Jet) -> Jet:
    """1 / a."""
    value = 1 / a.value
    return _combined(value, [(a, -(value**2))], [(a, a, 2 * value**3)])


def growth(t: Jet) -> Jet:
    """The quotient of e^t - 1 by t, 1 at t = 0; x times that of a x is a straight line that bends by a."""
    near = np.abs(t.value) < _NEAR
    safe = np.where(near, 1.0, t.value)
    e = np.exp(np.minimum(safe, 700.0))
    far = ((e - 1) / safe, (e * (safe - 1) + 1) / safe**2, (e * (safe**2 - 2 * safe + 2) - 2) / safe**3)
    close = [np.polynomial.polynomial.polyval(np.where(near, t.value, 0.0), series) for series in _GROWTH]
    value, slope, bend = (np.where(near, c, f) for c, f in zip(close, far, strict=True))
    return _combined(value, [(t, slope)], [(t, t, bend)])


_NEAR = 0.5  # within which the series is used, for the quotients cancel
_SERIES = np.array([1 / math.factorial(k + 1) for k in range(18)])
_GROWTH = (_SERIES, np.polynomial.polynomial.polyder(_SERIES), np.polynomial.polynomial.polyder(_SERIES, 2))


def logsumexp(*terms: "Jet | npt.ArrayLike") -> Jet:
    """Ln sum_j e^(term_j): derivatives are the terms' shares p, and diag(p) - p p'. A term may be -inf."""
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
    bends = tuple((jet, jet, share) for jet, share in live)
    return Jet(value, support, _sum_jac(live, support), tuple(live), bends, -1.0)


def _combined(
    value: Array, operands: Sequence[tuple[Jet, Array]], curved: Sequence[tuple[Jet, Jet, Array]] = ()
) -> Jet:
    """A function of jets from its value, its slopes by each, and its second derivatives by pairs of them."""
    live = tuple((jet, slope) for jet, slope in operands if jet.jac is not None)
    if not live:
        return Jet(value)
    support = _union([jet for jet, _ in live])
    bent = tuple(one for one in curved if one[0].jac is not None and one[1].jac is not None)
    return Jet(value, support, _sum_jac(live, support), live, bent)


def _from_the_root(root: Jet) -> list[Jet]:
    """All jets that a jet was made of, each after every one that was made of it."""
    order: list[Jet] = []
    seen: set[int] = set()
    stack: list[tuple[Jet, bool]] = [(root, False)]
    while stack:
        jet, left = stack.pop()
        if left:
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
    """sum_j slope_j J_j in the columns of ``support``."""
    scaled = [(jet, slope[:, None] * jet.jac) for jet, slope in live if jet.jac is not None]
    if len(scaled) == 1:
        return scaled[0][1]
    K, n = (max(one.shape[axis] for _, one in scaled) for axis in (0, 2))
    jac = np.zeros((K, len(support), n))
    for jet, one in scaled:
        jac[:, _rows(jet.support, support)] += one
    return jac


def _rows(some: Indices, support: Indices) -> slice | list[int]:
    """Where some parameters are among those of ``support``."""
    if len(some) == len(support):
        return slice(None)
    at = [support.index(j) for j in some]
    return slice(at[0], at[-1] + 1) if at[-1] - at[0] + 1 == len(at) else at


def _outer(a: Array, v: Array, b: Array) -> Array:
    """sum_i v_i a_i b_i', (K, s_a, s_b); a point axis of 1 in a, v or b stands for all points."""
    n = max(a.shape[2], v.shape[1], b.shape[2])
    if a.shape[2] == 1 and b.shape[2] == 1:
        total = v.sum(1) if v.shape[1] == n else v[:, 0] * n
        return np.asarray(total[:, None, None] * a * np.swapaxes(b, 1, 2))
    left = np.broadcast_to(v[:, None] * a, (max(len(v), len(a)), a.shape[1], n))
    return left @ np.swapaxes(np.broadcast_to(b, (*b.shape[:2], n)), 1, 2)


def _add(H: Array, first: Jet, v: Array, other: Jet, support: Indices) -> None:
    """Add sum_i v_i (gradient of first)_i (gradient of other)_i' to H (K, s, s)."""
    if first.jac is None or other.jac is None:
        return
    rows = [support.index(j) for j in first.support]
    columns = [support.index(j) for j in other.support]
    H[:, np.array(rows)[:, None], np.array(columns)[None, :]] += _outer(first.jac, v, other.jac)
