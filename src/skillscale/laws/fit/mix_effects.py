"""What each mix that was run adds to ln L at every size, beyond what a law knows of it."""

from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from skillscale.laws.forms.nd import Array

_ALIKE = 1000  # shares are one mix where they agree to a part in this


@dataclass(frozen=True, kw_only=True)
class MixEffects:
    """``offsets``: ln L that each of ``mixes`` adds, (n,); ``mixes``: shares of ``categories``, (n, n_categories)."""

    categories: tuple[str, ...] = ()
    mixes: Array = field(default_factory=lambda: np.zeros((0, 0)), repr=False)
    offsets: Array = field(default_factory=lambda: np.zeros(0), repr=False)

    def __len__(self) -> int:
        return len(self.offsets)

    def of(self, h: npt.ArrayLike | None, n: int) -> Array:
        """Ln L added to n runs of these mixes (n, n_categories), or of one; 0 for a mix that was not run."""
        if h is None or not len(self):
            return np.zeros(n)
        shares = np.broadcast_to(np.asarray(h, dtype=float), (n, len(self.categories)))
        known = dict(zip(mix_names(self.mixes), self.offsets, strict=True))
        return np.array([known.get(name, 0.0) for name in mix_names(shares)])


def mix_names(h: Array) -> npt.NDArray[np.str_]:
    """A name for each row of shares (n, n_categories), the same for the same mix."""
    rounded = np.round(np.asarray(h) * _ALIKE).astype(int)
    return np.array([" ".join(map(str, row)) for row in rounded])
