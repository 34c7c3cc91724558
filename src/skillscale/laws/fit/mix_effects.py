"""Offsets of ln L that each mix adds at every size, in addition to what a law predicts."""

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from skillscale.laws.forms.nd import Array

_ALIKE = 1000  # shares that agree to one part in this are one mix


@dataclass(frozen=True, kw_only=True)
class MixEffects:
    """Offsets of ln L by mix. ``offsets``: (n,). ``mixes``: shares of ``categories``, (n, n_categories)."""

    categories: tuple[str, ...] = ()
    mixes: Array = field(default_factory=lambda: np.zeros((0, 0)), repr=False)
    offsets: Array = field(default_factory=lambda: np.zeros(0), repr=False)

    def __len__(self) -> int:
        return len(self.offsets)

    def offsets_for(self, h: npt.ArrayLike | None, n: int) -> Array:
        """Return the offsets of n runs of mixes (n, n_categories), or of one mix; 0 for a mix that was not run."""
        if h is None or not len(self):
            return np.zeros(n)
        shares = np.broadcast_to(np.asarray(h, dtype=float), (n, len(self.categories)))
        offsets = dict(zip(mix_names(self.mixes), self.offsets, strict=True))
        return np.array([offsets.get(name, 0.0) for name in mix_names(shares)])


def mix_names(h: Array) -> npt.NDArray[np.str_]:
    """Return a name for each row of shares (n, n_categories), equal for equal mixes."""
    rounded = np.round(np.asarray(h) * _ALIKE).astype(int)
    return np.array([" ".join(map(str, row)) for row in rounded])
