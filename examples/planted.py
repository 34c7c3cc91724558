"""Runs of a planted law, as a table of the kind that papers publish: what the notebook and the tour begin with.

    python examples/planted.py          # writes planted.csv and planted.yaml beside this file

No model was trained. Each skill's loss, in nats per token, is

    L = (E + A (N / 3e8)^-alpha + B (D / 1e10)^-beta) (3 h)^-c,   h the share of its own category,

times noise of .3 %. So what a fit should find is known: ``truth`` has each skill's compute optimum.
"""

from pathlib import Path

import numpy as np
import pandas as pd

# E, A, B, alpha, beta, c: numbers of the size that published fits have (assumption)
SKILLS = {
    "code": (1.05, 0.30, 0.42, 0.36, 0.31, 0.07),
    "knowledge": (1.50, 0.62, 0.40, 0.33, 0.37, 0.05),
    "prose": (1.75, 0.45, 0.44, 0.34, 0.34, 0.03),
}
MIXES = {"even": (0.34, 0.33, 0.33), "code": (0.6, 0.2, 0.2), "knowledge": (0.2, 0.6, 0.2), "prose": (0.2, 0.2, 0.6)}
SIZES = (5e7, 1.2e8, 3e8, 7e8, 1.6e9)
RATIOS = (8, 25, 80)  # tokens per parameter
NOISE = 0.003
COLUMNS = """\
n_params: params
n_tokens: tokens
mix: {code: mix_code, knowledge: mix_knowledge, prose: mix_prose}
skills: {code: loss_code, knowledge: loss_knowledge, prose: loss_prose}
"""


def table(seed: int = 0) -> pd.DataFrame:
    """One row a run: params (N), tokens (D), flops (6 N D), shares of the mix, a loss a skill."""
    rng = np.random.default_rng(seed)
    rows = []
    for N in SIZES:
        for ratio in RATIOS:
            for mix, shares in MIXES.items():
                run = {"params": int(N), "tokens": int(N * ratio), "flops": 6 * int(N) * int(N * ratio), "mix_id": mix}
                run |= {f"mix_{name}": share for name, share in zip(SKILLS, shares, strict=True)}
                losses = {
                    f"loss_{name}": round(loss(name, N, N * ratio, share) * np.exp(NOISE * rng.normal()), 5)
                    for name, share in zip(SKILLS, shares, strict=True)
                }
                rows.append(run | losses)
    return pd.DataFrame(rows)


def loss(skill: str, N: float, D: float, share: float) -> float:
    """Return the loss by the planted law."""
    E, A, B, alpha, beta, c = SKILLS[skill]
    return float((E + A * (N / 3e8) ** -alpha + B * (D / 1e10) ** -beta) * (3 * share) ** -c)


def truth(C: float) -> pd.Series:
    """Each skill's N* at a compute of C FLOP: where A alpha N^-alpha = B beta D^-beta, D = C / 6 N."""
    best = {}
    for name, (_, A, B, alpha, beta, _) in SKILLS.items():
        u, v = A * alpha * 3e8**alpha, B * beta * 1e10**beta
        best[name] = (u / v * (C / 6) ** beta) ** (1 / (alpha + beta))
    return pd.Series(best, name=f"N* at {C:g} FLOP")


if __name__ == "__main__":
    here = Path(__file__).parent
    table().to_csv(here / "planted.csv", index=False)
    (here / "planted.yaml").write_text(COLUMNS, encoding="utf-8")
