"""Translate laws to JavaScript: the formula of each law runs on symbols, which record what it computes.

So no formula is written twice. A law goes in, bound to its categories and skill. The text of a function of its
log-parameters comes out.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from skillscale.laws.forms.autodiff import Jet
from skillscale.laws.forms.nd import Covariates, JetShares, Law

_PAIRS = {
    "add": "{}+{}", "subtract": "{}-{}", "multiply": "{}*{}", "true_divide": "{}/{}", "divide": "{}/{}",
    "less": "{}<{}", "maximum": "Math.max({},{})", "minimum": "Math.min({},{})", "power": "{}**{}",
}  # fmt: skip
_SINGLES = {
    "negative": "-{}", "exp": "Math.exp({})", "log": "Math.log({})", "absolute": "Math.abs({})",
    "isfinite": "isFinite({})",
}  # fmt: skip
_TEMPLATES = _PAIRS | _SINGLES
_SETTLED_STEPS = 24  # of an iteration whose end depends on the values: Newton steps on a convex curve need fewer


def javascript_of(law: Law) -> str:
    """Return the function ``(q, o, x, y, h) => ln L`` of a law.

    ``q`` holds log-parameters, from position ``o`` on. ``x`` and ``y`` are ln N and ln D about the law's centre. ``h``
    holds shares above 0, in the order of the categories.
    """
    recorder = _Recorder()
    q = [Jet(recorder.symbol(f"q[o+{at}]")) for at in range(len(law.log_names))]  # type: ignore[arg-type]
    x, y = (Jet(recorder.symbol(name)) for name in "xy")  # type: ignore[arg-type]
    shares = JetShares(tuple(Jet(recorder.symbol(f"h[{k}]")) for k in range(len(law.categories))))  # type: ignore[arg-type]
    value = law.form(q, Covariates(x, y, shares if law.needs_mix else None)).value
    return recorder.function(recorder.lift(value))


@dataclass(eq=False)
class _Recorder:
    """Operations in the order in which a formula does them. Equal operations are recorded once."""

    lines: list[tuple[str, tuple["_Symbol", ...]]] = field(default_factory=list)
    symbols: dict[str, "_Symbol"] = field(default_factory=dict)
    steps: int = 0

    def symbol(self, text: str, operands: tuple["_Symbol", ...] = ()) -> "_Symbol":
        if text not in self.symbols:
            name = text
            if operands:
                name = f"t{len(self.lines)}"
                self.lines.append((text, operands))
            self.symbols[text] = _Symbol(self, name)
        return self.symbols[text]

    def lift(self, value: Any) -> "_Symbol":
        """Return a constant, or an array of one, as a symbol."""
        if not isinstance(value, _Symbol):
            value = np.asarray(value).item()
        if isinstance(value, _Symbol):
            return value
        text = repr(float(value))
        text = text.replace("inf", "Infinity").replace("nan", "NaN")
        return self.symbol(f"({text})" if text.startswith("-") else text)

    def apply(self, template: str, *values: Any) -> "_Symbol":
        operands = tuple(self.lift(value) for value in values)
        return self.symbol(template.format(*(operand.text for operand in operands)), operands)

    def function(self, result: "_Symbol") -> str:
        needed, kept = {result.text}, []
        for at in range(len(self.lines) - 1, -1, -1):
            text, operands = self.lines[at]
            if f"t{at}" in needed:
                needed |= {operand.text for operand in operands}
                kept.append(f"t{at}={text}")
        body = f"const {','.join(reversed(kept))};" if kept else ""
        return f"(q,o,x,y,h)=>{{{body}return {result.text}}}"


class _Symbol(np.lib.mixins.NDArrayOperatorsMixin):
    """A number that is not known yet. numpy's functions of it are recorded."""

    def __init__(self, recorder: _Recorder, text: str) -> None:
        self.recorder, self.text = recorder, text

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *inputs: Any, **options: Any) -> Any:
        if method != "__call__" or options or ufunc.__name__ not in _TEMPLATES:
            return NotImplemented
        if any(isinstance(value, _Symbols) for value in inputs):
            return _elementwise(ufunc, inputs)
        return self.recorder.apply(_TEMPLATES[ufunc.__name__], *inputs)

    def __array_function__(self, function: Callable[..., Any], types: Any, args: Any, kwargs: Any) -> Any:
        return _array_function(function, args)

    def max(self) -> "_StepSize":
        """Return the size of a step, with which a law decides whether its iteration goes on."""
        self.recorder.steps += 1
        return _StepSize(self.recorder.steps)


@dataclass(frozen=True)
class _StepSize:
    """The size of step ``number`` of an iteration, taken as small after enough steps."""

    number: int

    def __lt__(self, limit: float) -> bool:
        return self.number >= _SETTLED_STEPS


class _Symbols(np.lib.mixins.NDArrayOperatorsMixin):
    """Several symbols along a first axis."""

    def __init__(self, items: Sequence[_Symbol]) -> None:
        self.items = tuple(items)

    def __array_ufunc__(self, ufunc: np.ufunc, method: str, *inputs: Any, **options: Any) -> Any:
        return NotImplemented if method != "__call__" or options else _elementwise(ufunc, inputs)

    def sum(self, axis: int) -> _Symbol:  # noqa: ARG002 - as numpy calls it
        return self._reduce(np.add)

    def max(self, axis: int) -> _Symbol:  # noqa: ARG002 - as numpy calls it
        return self._reduce(np.maximum)

    def _reduce(self, ufunc: np.ufunc) -> _Symbol:
        total: Any = self.items[0]
        for item in self.items[1:]:
            total = ufunc(total, item)
        return total  # type: ignore[no-any-return]


def _elementwise(ufunc: np.ufunc, inputs: Sequence[Any]) -> _Symbols:
    length = next(len(value.items) for value in inputs if isinstance(value, _Symbols))
    columns = [value.items if isinstance(value, _Symbols) else (value,) * length for value in inputs]
    return _Symbols([ufunc(*row) for row in zip(*columns, strict=True)])


def _array_function(function: Callable[..., Any], args: Any) -> Any:
    if function is np.where:
        recorder = next(value.recorder for value in args if isinstance(value, _Symbol))
        return recorder.apply("{}?{}:{}", *args)
    if function is np.broadcast_arrays:
        return args
    if function is np.stack:
        return _Symbols(args[0])
    return NotImplemented
