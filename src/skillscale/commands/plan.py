"""``plan``: one training run for each budget, by the runs of a study or table, or by laws fitted earlier."""

import json
from pathlib import Path

from skillscale.analysis.load_laws import LoadedLaws, check_names, fit_for_mix, load_laws
from skillscale.analysis.plan import log_plan, make_plans, read_budgets
from skillscale.cli.output import Output
from skillscale.config import Config
from skillscale.config.options import PlanOptions
from skillscale.errors import InputError
from skillscale.formatting import JsonObject, to_json
from skillscale.tables.read import exclusion_lines, read_runs


def plan(options: PlanOptions, config: Config, out: Output) -> JsonObject:
    """Plan one training run for each budget; record the plan.

    Raises:
        InputError: Not one kind of budget, skills, mixes or bounds that the laws lack, or priors decide N*.
        FitError: A skill with a weight has no law.
    """
    read_budgets(options.budget)  # refused before the fits, which take a while
    loaded = _load(options, config, out)
    made = make_plans(options, loaded)
    answer = dict(made.answer)
    record = loaded.open_record()
    if record is not None:
        with record as run:
            described = log_plan(run, made)
    if options.figure:
        path = Path(options.figure)
        path.write_bytes(made.figures[path.suffix.lower().removeprefix(".")])
        answer["figure"] = path.absolute()
    out.text(made.text)
    out.text("".join(f"\nno law of {name}: {reason}" for name, reason in loaded.unfitted.items()).rstrip())
    store, study = (loaded.runs.store, loaded.runs.study) if loaded.runs is not None else (loaded.store, None)
    if store is not None and record is not None:
        store.annotate_mlflow_project_run(
            study, note=described.note, metrics=described.metrics, result=json.loads(to_json(answer))
        )
    return answer


def _load(options: PlanOptions, config: Config, out: Output) -> LoadedLaws:
    if options.from_:
        given = [f"--{name}" for name in ("table", "columns", "n_convention") if getattr(options.source, name)]
        given += [f"--{name}" for name in config.overrides if name.startswith("laws.")]
        if given:
            raise InputError(f"--from takes laws as they were fitted, so {given[0]} has no effect. Drop one of them.")
        return load_laws(options.from_, options.source.tracking, options.mix)
    runs = read_runs(options.source, config, out.progress)
    skills = (*runs.table.judged_skills, *runs.table.aggregates)
    check_names("skill_weights", options.skill_weights, skills, runs.name)  # before the fits, which take a while
    check_names("validation", options.validation, skills, runs.name)
    check_names("bounds", options.bounds, runs.table.categories, runs.name)
    for line in exclusion_lines(runs):
        out.progress(line)
    mix = options.mix if len(runs.groups) > 1 else ""
    return fit_for_mix(runs, mix, config.laws, config.study, out.progress)
