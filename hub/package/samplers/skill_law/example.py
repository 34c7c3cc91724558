"""Choose runs of two skills whose losses follow known laws: the interval of their compute optima narrows."""

import math
from pathlib import Path

import optuna
import optunahub

SPACE = {
    "log_n_params": optuna.distributions.FloatDistribution(math.log(1e6), math.log(1e9)),
    "log_n_tokens": optuna.distributions.FloatDistribution(math.log(1e7), math.log(1e11)),
}


def objective(trial: optuna.Trial) -> float:
    """Train a model of this size on so many tokens; here two laws stand in its place."""
    n_params = math.exp(trial.suggest_float("log_n_params", math.log(1e6), math.log(1e9)))
    n_tokens = math.exp(trial.suggest_float("log_n_tokens", math.log(1e7), math.log(1e11)))
    code = 1.2 + 350 * n_params**-0.34 + 420 * n_tokens**-0.29
    prose = 1.9 + 410 * n_params**-0.34 + 380 * n_tokens**-0.28
    trial.set_user_attr("loss/code", code)
    trial.set_user_attr("loss/prose", prose)
    return (code + prose) / 2


if __name__ == "__main__":
    module = optunahub.load_local_module("samplers/skill_law", registry_root=str(Path(__file__).parents[2]))
    sampler = module.SkillLawSampler(skills=["code", "prose"], search_space=SPACE, seed=0)
    study = optuna.create_study(sampler=sampler)
    study.optimize(objective, n_trials=12, callbacks=[module.stop_when_done])
    for trial in study.trials:
        print(trial.number, f"{math.exp(trial.params['log_n_params']):.2g}", trial.user_attrs.get("skillscale/why"))
