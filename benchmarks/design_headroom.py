"""The limit of any design: sd of ln N* at 1e21 FLOP where the law is known, for the best plan and for isoFLOP grids.

    python benchmarks/design_headroom.py                     D/N of the plan from 1 to 500, as in the Bayesian design
    python benchmarks/design_headroom.py --ratio 0.5,2000

Truths of ``benchmarks/design.py`` whose law is a candidate: chinchilla, coupled_drifting and farseer, with three skills
and the same noise. Everything is known but the law's parameters: the law, its centre, the noise, and the size of the
misfit (``--scale``, sd of the discrepancy in ln L). So the plan is optimal within its lattice from the first run on,
and no analysis plays a part. The sd is a linear approximation under the priors: the root of its mean square over truths
and skills, then the geometric mean over families. ``best grid``: the best of the nine at each budget. The ratio is the
budget that the best grid needs for the plan's sd.
"""

import argparse
import math
import os
from collections.abc import Iterator

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
from design import GRIDS, MAX_RUNS, TARGET, UNIT, WIDE, log_budget_needed

from skillscale.design.allocation import AllocationProblem, SkillInformation, allocate_runs
from skillscale.design.discrepancy import discrepancy_basis
from skillscale.design.posterior import LawPosterior, fit_posterior
from skillscale.design.priors import candidate_laws, prior_for
from skillscale.design.space import DesignSpace, RunHistory
from skillscale.errors import InputError
from skillscale.simulation.baselines import SHAPES, isoflop_grid
from skillscale.simulation.random_truths import FLOPS, NOISE, SKILLS, TruthFamily, random_truth

BUDGETS = (0.64, 2.55, 10.2, 40.8, 163.2)
LAWS = {
    TruthFamily.CHINCHILLA: "chinchilla",
    TruthFamily.COUPLED_DRIFTING: "drifting",
    TruthFamily.FARSEER: "farseer",
}
PLANS = {f"plan, at most {MAX_RUNS} runs": MAX_RUNS, "plan, any number of runs": math.inf}
_STEPS = 15  # points of the plan's lattice on a side
SkillTruth = tuple[LawPosterior, np.ndarray, np.ndarray]  # law at the truth, prior precision, gradient of ln N*


def known_skills(family: TruthFamily, seed: int, scale: float) -> Iterator[SkillTruth]:
    """Yield each skill of a truth, with the parameters of its law fitted to losses without noise."""
    truth, space = random_truth(family, seed), DesignSpace(flops=FLOPS, ratio=WIDE)
    law = next(law for law in candidate_laws(space) if law.name == LAWS[family])
    discrepancy = discrepancy_basis(space, TARGET)
    grids = np.meshgrid(np.geomspace(FLOPS[0], TARGET, 30), np.geomspace(0.5, 2000, 20))
    C, ratio = (grid.ravel() for grid in grids)
    N, D = np.sqrt(C / 6 / ratio), np.sqrt(C / 6 * ratio)
    for skill in SKILLS:
        y = truth.log_loss(skill, N, D)
        history = RunHistory(N=N, D=D, log_L={skill: y}, sem={skill: 0 * y})
        posterior = fit_posterior(law, discrepancy, history, [skill])[skill]
        sd = np.append(prior_for(law, float(np.median(y)))[1], discrepancy.sd(scale))
        yield posterior, np.diag(sd**-2.0), posterior.log_optimum(TARGET, None)[1]


def variances(skills: list[SkillTruth], space: DesignSpace, budget: float) -> dict[str, float]:
    """Return the mean over skills of the variance of ln N*, by design."""
    N, D = space.lattice(steps=_STEPS)
    cost, flops = space.cost(N, D), budget * UNIT
    information = [
        SkillInformation(
            M=prior, b=law.jacobian(N, D, None) / NOISE, gradients=gradient[None], current_variances=np.ones(1)
        )
        for law, prior, gradient in skills
    ]
    problem = AllocationProblem(information=information, combine=np.eye(len(skills)), weights=np.ones(len(skills)))
    by_design = {}
    for name, max_runs in PLANS.items():
        counts = allocate_runs(problem, cost, budget=flops, max_runs=min(max_runs, flops / float(cost.min())))
        by_design[name] = float(problem.variances(counts)[0].mean())
    wide = DesignSpace(flops=FLOPS, ratio=WIDE)
    for name, shape in zip(GRIDS, SHAPES, strict=True):
        try:
            runs = isoflop_grid(wide, flops, shape)
        except InputError:
            continue
        by_skill = []
        for posterior, prior, gradient in skills:
            rows = posterior.jacobian(runs.N, runs.D, None) / NOISE
            by_skill.append(gradient @ np.linalg.solve(prior + rows.T @ rows, gradient))
        by_design[name] = float(np.mean(by_skill))
    return by_design


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ratio", default="1,500", help="smallest and largest D / N of the plan")
    parser.add_argument("--scale", type=float, default=0.002, help="sd of the discrepancy, in ln L")
    parser.add_argument("--seeds", type=int, default=8, help="truths of each family")
    args = parser.parse_args()
    low, high = map(float, args.ratio.split(","))
    space = DesignSpace(flops=FLOPS, ratio=(low, high))
    total: dict[tuple[str, float], list[list[float]]] = {}
    for family in LAWS:
        for seed in range(args.seeds):
            skills = list(known_skills(family, seed, args.scale))
            for budget in BUDGETS:
                for name, variance in variances(skills, space, budget).items():
                    total.setdefault((name, budget), [[] for _ in LAWS])[list(LAWS).index(family)].append(variance)
    log_sd = {
        key: float(np.mean([0.5 * math.log(np.mean(values)) for values in by_family]))
        for key, by_family in total.items()
    }
    best = np.array([min(log_sd[name, budget] for name in GRIDS if (name, budget) in log_sd) for budget in BUDGETS])
    print("| design | " + " | ".join(f"{budget:g}" for budget in BUDGETS) + " |\n|---" + "|---" * len(BUDGETS) + "|")
    for name in (*PLANS, *GRIDS):
        print(f"| {name} | " + " | ".join(f"{math.exp(log_sd[name, budget]):.3f}" for budget in BUDGETS) + " |")
    for name in PLANS:
        goals = np.array([log_sd[name, budget] for budget in BUDGETS])
        ratios = log_budget_needed(np.array(BUDGETS), np.tile(best, (len(BUDGETS), 1)), goals) - np.log(BUDGETS)
        cells = [f"{math.exp(x):.2g}" if math.isfinite(x) else (">" if x > 0 else "<1") for x in ratios]
        print(f"| best grid over {name} | " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
