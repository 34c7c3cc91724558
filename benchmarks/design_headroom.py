"""What any design can reach: sd of ln N* at 1e21 FLOP where the law is known, by the best plan and by isoFLOP grids.

    python benchmarks/design_headroom.py                     D/N of the plan from 1 to 500, as ours
    python benchmarks/design_headroom.py --ratio .5,2000

Worlds of ``benchmarks/design.py`` whose law is offered (``add``, ``real``, ``far``), three skills, noise as there. All
but the law's parameters is known: the law, its place, the noise, and how far the form is off (``--scale``, sd of the
discrepancy in ln L). So the plan is the best there is within its lattice, from the first run on, and no analysis plays
a part: sd by linear approximation under the priors, root of its mean square over truths and skills, geometric mean over
kinds. ``best grid``: at each budget the best of the nine. The ratio is what the best grid needs for the plan's sd.
"""

import argparse
import math
import os
from collections.abc import Iterator

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
from design import GRIDS, MOST, TARGET, UNIT, WIDE, needed

from skillscale.design.allocation import AllocationProblem, SkillInformation, allocate_runs
from skillscale.design.discrepancy import discrepancy_basis
from skillscale.design.posterior import LawPosterior, fit_posterior
from skillscale.design.priors import candidate_laws, prior_for
from skillscale.design.space import DesignSpace, RunHistory
from skillscale.errors import InputError
from skillscale.simulation.baselines import SHAPES, isoflop_grid
from skillscale.simulation.random_truths import FLOPS, NOISE, SKILLS, TruthFamily, random_truth

BUDGETS = (0.64, 2.55, 10.2, 40.8, 163.2)
LAWS = {TruthFamily.ADD: "chinchilla", TruthFamily.REAL: "drifting", TruthFamily.FAR: "farseer"}
PLANS = {f"plan, at most {MOST} runs": MOST, "plan, any number of runs": math.inf}
_STEPS = 15  # of the plan's lattice
Known = tuple[LawPosterior, np.ndarray, np.ndarray]  # the law at the truth, precision of the priors, gradient of ln N*


def known_skills(kind: TruthFamily, seed: int, scale: float) -> Iterator[Known]:
    """Each skill of a world, its law's parameters read off losses without noise."""
    world, space = random_truth(kind, seed), DesignSpace(flops=FLOPS, ratio=WIDE)
    law = next(one for one in candidate_laws(space) if one.name == LAWS[kind])
    surface = discrepancy_basis(space, TARGET)
    C, ratio = (one.ravel() for one in np.meshgrid(np.geomspace(FLOPS[0], TARGET, 30), np.geomspace(0.5, 2000, 20)))
    N, D = np.sqrt(C / 6 / ratio), np.sqrt(C / 6 * ratio)
    for skill in SKILLS:
        y = world.log_loss[skill](N, D, None)
        found = fit_posterior(law, surface, RunHistory(N=N, D=D, log_L={skill: y}, sem={skill: 0 * y}), [skill])[skill]
        sd = np.append(prior_for(law, float(np.median(y)))[1], surface.sd(scale))
        yield found, np.diag(sd**-2.0), found.log_optimum(TARGET, None)[1]


def variances(skills: list[Known], space: DesignSpace, budget: float) -> dict[str, float]:
    """Mean over skills of the variance of ln N*, by design."""
    N, D = space.lattice(steps=_STEPS)
    cost, left = space.cost(N, D), budget * UNIT
    information = [
        SkillInformation(
            M=prior, b=law.jacobian(N, D, None) / NOISE, gradients=gradient[None], current_variances=np.ones(1)
        )
        for law, prior, gradient in skills
    ]
    problem = AllocationProblem(information=information, combine=np.eye(len(skills)), weights=np.ones(len(skills)))
    found = {}
    for name, most in PLANS.items():
        counts = allocate_runs(problem, cost, budget=left, max_runs=min(most, left / float(cost.min())))
        found[name] = float(problem.variances(counts)[0].mean())
    wide = DesignSpace(flops=FLOPS, ratio=WIDE)
    for name, shape in zip(GRIDS, SHAPES, strict=True):
        try:
            runs = isoflop_grid(wide, left, shape)
        except InputError:
            continue
        each = []
        for one, prior, gradient in skills:
            rows = one.jacobian(runs.N, runs.D, None) / NOISE
            each.append(gradient @ np.linalg.solve(prior + rows.T @ rows, gradient))
        found[name] = float(np.mean(each))
    return found


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ratio", default="1,500", help="least and largest D / N of the plan")
    parser.add_argument("--scale", type=float, default=0.002, help="of the discrepancy, in ln L")
    parser.add_argument("--seeds", type=int, default=8, help="truths of each kind")
    args = parser.parse_args()
    low, high = map(float, args.ratio.split(","))
    space = DesignSpace(flops=FLOPS, ratio=(low, high))
    total: dict[tuple[str, float], list[list[float]]] = {}
    for kind in LAWS:
        for seed in range(args.seeds):
            skills = list(known_skills(kind, seed, args.scale))
            for budget in BUDGETS:
                for name, variance in variances(skills, space, budget).items():
                    total.setdefault((name, budget), [[] for _ in LAWS])[list(LAWS).index(kind)].append(variance)
    log_sd = {key: float(np.mean([0.5 * math.log(np.mean(one)) for one in each])) for key, each in total.items()}
    best = np.array([min(log_sd[name, budget] for name in GRIDS if (name, budget) in log_sd) for budget in BUDGETS])
    print("| design | " + " | ".join(f"{budget:g}" for budget in BUDGETS) + " |\n|---" + "|---" * len(BUDGETS) + "|")
    for name in (*PLANS, *GRIDS):
        print(f"| {name} | " + " | ".join(f"{math.exp(log_sd[name, budget]):.3f}" for budget in BUDGETS) + " |")
    for name in PLANS:
        aims = np.array([log_sd[name, budget] for budget in BUDGETS])
        ratios = needed(np.array(BUDGETS), np.tile(best, (len(BUDGETS), 1)), aims) - np.log(BUDGETS)
        told = [f"{math.exp(one):.2g}" if math.isfinite(one) else (">" if one > 0 else "<1") for one in ratios]
        print(f"| best grid over {name} | " + " | ".join(told) + " |")


if __name__ == "__main__":
    main()
