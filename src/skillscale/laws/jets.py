"""Numbers that carry their exact first and second derivatives, on stacks: what laws are written in.

A ``Jet`` is a value per problem and point, (K, n), with its derivatives by the parameters it depends on. A law writes
its formula once, with ``+ - * /``, ``exp``, ``log``, ``growth`` and
``logsumexp``; its Jacobian and its second order follow by the
chain rule, to machine precision. The full Hessian (K, n, p, p) is never formed: a fit needs only sum_i v_i H_i, and
each operation passes such a weighted sum on to its operands.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]
Indices = tuple[int, ...]
Contraction = Callable[[Array], Array]


@dataclass(frozen=True)
class Jet:
    """Values (K, n) with first derivatives (K, n, s) by the s parameters named in ``support``.

    Any of K and n may be 1 where all problems or points agree. ``second``: from weights v (K, n) to
    sum_i v_i d2 value_i / dq dq', (K, s, s); None where the value is linear in the parameters. A jet without ``jac`` is
    a constant, or a value whose derivatives nobody asked for.
    """

    value: Array
    support: Indices = ()
    jac: Array | None = None
    second: Contraction | None = None

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
        cross = [(0, 1, _ONE)] if self.jac is not None and b.jac is not None else []
        return _combined(self.value * b.value, [(self, b.value), (b, self.value)], cross)

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
    return _combined(value, [(a, value)], [(0, 0, value)])


def log(a: Jet) -> Jet:
    """Ln a."""
    slope = 1 / a.value
    return _combined(np.log(a.value), [(a, slope)], [(0, 0, -(slope**2))])


def reciprocal(a: Jet) -> Jet:
    """1 / a."""
    value = 1 / a.value
    return _combined(value, [(a, -(value**2))], [(0, 0, 2 * value**3)])


def growth(t: Jet) -> Jet:
    """The quotient of e^t - 1 by t, 1 at t = 0; x times that of a x is a straight line that bends by a."""
    near = np.abs(t.value) < _NEAR
    safe = np.where(near, 1.0, t.value)
    e = np.exp(np.minimum(safe, 700.0))
    far = ((e - 1) / safe, (e * (safe - 1) + 1) / safe**2, (e * (safe**2 - 2 * safe + 2) - 2) / safe**3)
    close = [np.polynomial.polynomial.polyval(np.where(near, t.value, 0.0), series) for series in _GROWTH]
    value, slope, bend = (np.where(near, c, f) for c, f in zip(close, far, strict=True))
    return _combined(value, [(t, slope)], [(0, 0, bend)])


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
    shares = [share / np.where(total > 0, total, 1.0) for share in shares]
    support = _union(jets)
    jac = _sum_jac(jets, shares, support)

    def second(v: Array) -> Array:
        H = -_outer(jac, v, jac)
        for jet, share in zip(jets, shares, strict=True):
            if jet.jac is not None:
                own = _outer(jet.jac, v * share, jet.jac)
                _place(H, own if jet.second is None else own + jet.second(v * share), jet.support, support)
        return H

    return Jet(value, support, jac, second)


def _combined(
    value: Array, operands: Sequence[tuple[Jet, Array]], curved: Sequence[tuple[int, int, Array]] = ()
) -> Jet:
    """A function of jets from its value, its slopes by each, and its second derivatives by pairs (a <= b) of them."""
    live = [(jet, slope) for jet, slope in operands if jet.jac is not None]
    if not live:
        return Jet(value)
    jets = [jet for jet, _ in live]
    support = _union(jets)
    jac = _sum_jac(jets, [slope for _, slope in live], support)
    if not curved and all(jet.second is None for jet in jets):
        return Jet(value, support, jac)

    def second(v: Array) -> Array:
        H = np.zeros((1, len(support), len(support)))
        for jet, slope in live:
            if jet.second is not None:
                H = _placed(H, jet.second(v * slope), jet.support, support)
        for a, b, bend in curved:
            first, other = operands[a][0], operands[b][0]
            if first.jac is None or other.jac is None:
                continue
            block = _outer(first.jac, v * bend, other.jac)
            H = _placed(H, block, first.support, support, columns=other.support)
            if a != b:
                H = _placed(H, np.swapaxes(block, 1, 2), other.support, support, columns=first.support)
        return H

    return Jet(value, support, jac, second)


def _union(jets: Sequence[Jet]) -> Indices:
    first = jets[0].support
    return (
        first if all(jet.support == first for jet in jets) else tuple(sorted({j for jet in jets for j in jet.support}))
    )


def _sum_jac(jets: Sequence[Jet], slopes: Sequence[Array], support: Indices) -> Array:
    """sum_j slope_j J_j in the columns of ``support``."""
    scaled = [(jet, slope[..., None] * jet.jac) for jet, slope in zip(jets, slopes, strict=True) if jet.jac is not None]
    if len(scaled) == 1:
        return scaled[0][1]
    shape = np.broadcast_shapes(*(one.shape[:2] for _, one in scaled))
    jac = np.zeros((*shape, len(support)))
    for jet, one in scaled:
        if len(jet.support) == len(support):
            jac += one
        else:
            for column, j in enumerate(jet.support):
                jac[..., support.index(j)] += one[..., column]
    return jac


def _outer(a: Array, v: Array, b: Array) -> Array:
    """sum_i v_i a_i b_i', (K, s_a, s_b); a point axis of 1 in a, v or b stands for all points."""
    n = max(a.shape[1], v.shape[1], b.shape[1])
    if a.shape[1] == 1 and b.shape[1] == 1:
        total = v.sum(1) if v.shape[1] == n else v[:, 0] * n
        return np.asarray(total[:, None, None] * a[:, 0, :, None] * b[:, 0, None, :])
    left = np.broadcast_to(a, (a.shape[0], n, a.shape[2]))
    return np.swapaxes(left, 1, 2) @ (v[..., None] * np.broadcast_to(b, (b.shape[0], n, b.shape[2])))


def _place(H: Array, block: Array, rows: Indices, support: Indices, *, columns: Indices | None = None) -> None:
    at = [support.index(j) for j in rows]
    across = at if columns is None else [support.index(j) for j in columns]
    H[:, np.array(at)[:, None], np.array(across)[None, :]] += block


def _placed(H: Array, block: Array, rows: Indices, support: Indices, *, columns: Indices | None = None) -> Array:
    """As ``_place``, on a copy where the block has more problems than H."""
    if block.shape[0] > H.shape[0]:
        H = np.repeat(H, block.shape[0], axis=0)
    _place(H, block, rows, support, columns=columns)
    return H
