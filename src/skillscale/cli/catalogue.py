"""The commands of ``skillscale``: the one list that the command line, ``MLproject`` and the reference are made from."""

from skillscale.cli.command import Command
from skillscale.config import options
from skillscale.config.options import ShortOption
from skillscale.config.readers import list_of, mixes, positive


def _read_shares(text: str) -> list[dict[str, float]]:
    """Read mixes as the setting ``sample.mixes`` has them: shares by category."""
    return [dict(mix.shares) for mix in mixes(text) or ()]


_LAW = ShortOption(
    name="law", setting="laws.law", common=True, group="the law",
    help="chinchilla, drifting, separable, ...; empty: the best on held-out larger runs",
)  # fmt: skip
_SAMPLE = (
    ShortOption(
        name="budget", setting="sample.budget", read=positive, common=True, group="which runs may be made",
        help="FLOP for all sampled runs (suggest: what is left of it); empty: ten of the largest run",
    ),
    ShortOption(
        name="flops_max", setting="sample.flops_max", read=positive, common=True, group="which runs may be made",
        help="6 N D of the largest run, FLOP; empty: the largest of the study",
    ),
    ShortOption(
        name="mixes", setting="sample.mixes", read=_read_shares, group="which runs may be made",
        help="mixes to train on, between semicolons; empty: the study's",
    ),
    ShortOption(
        name="target_skills", setting="sample.target_skills", read=list_of(str), common=True, group="the targets",
        help="skills to learn about; empty: all. A trainer of yours needs them",
    ),
    ShortOption(
        name="target_flops", setting="sample.target_flops", read=list_of(positive), group="the targets",
        help="C of the optima to learn, FLOP; empty: 10 and 100 times flops_max",
    ),
    ShortOption(
        name="target_half_width", setting="sample.target_half_width", read=positive, group="the targets",
        help="half width of ln N* at which sampling stops; empty: when the budget is spent",
    ),
)  # fmt: skip

COMMANDS = (
    Command(
        name="main", common=True, options=options.MainOptions, run="skillscale.commands.main:main",
        help="prepare the data, train the study and a few sampled runs, fit every skill, write the page",
        examples=(
            "skillscale main",
            "skillscale main --study smoke --sample.share_after_grid 0",
            "skillscale main --workers 8 --tracking http://host:5000 --page main.html",
        ),
    ),
    Command(
        name="demo", options=options.DemoOptions, run="skillscale.commands.demo:demo", project=False,
        help="fit real runs that come with the package: predictions, plan and page in a minute; trains nothing",
        examples=("skillscale demo", "skillscale demo --out first-look"),
    ),
    Command(
        name="check", common=True, options=options.CheckOptions, run="skillscale.commands.check:check", any_study=True,
        help="say what the columns of a table are, and what its runs can and can't determine",
        examples=(
            "skillscale check --table runs.csv",
            "skillscale check --table runs.csv --file columns.yaml",
        ),
    ),
    Command(
        name="fit", common=True, options=options.FitOptions,
        run="skillscale.commands.fit:fit", short=(_LAW,), any_study=True,
        help="fit every skill's law and compute optimum, from the runs of a study or of a table",
        examples=(
            "skillscale fit --study main",
            "skillscale fit --table runs.csv --columns map.yaml --flops 1e21,1e22",
            "skillscale fit --study theirs --law chinchilla --laws.tie exponents --register their-law",
        ),
    ),
    Command(
        name="plan", common=True, options=options.PlanOptions,
        run="skillscale.commands.plan:plan", short=(_LAW,), any_study=True,
        help="choose N, D and mix for a budget and skill weights; price other sizes; show trade-offs between skills",
        examples=(
            "skillscale plan --study main --flops 7e12 --skill_weights code=1,prose=1 --figure plan.svg",
            "skillscale plan --table runs.csv --columns map.yaml --gpu_hours 500 --gpu_flops 989e12 --mfu 0.4",
            "skillscale plan --from models:/their-law@champion --flops 1e21,1e22 --json",
        ),
    ),
    Command(
        name="suggest", common=True, options=options.SuggestOptions,
        run="skillscale.commands.suggest:suggest", short=_SAMPLE,
        any_study=True,
        help="print the next runs and the reason for each, from a study or a table; trains nothing",
        examples=(
            "skillscale suggest --study main --count 8",
            "skillscale suggest --table runs.csv --columns map.yaml --flops_max 1e19 --file next.csv",
        ),
    ),
    Command(
        name="grid", common=True, options=options.GridOptions, run="skillscale.commands.grid:grid",
        help="train the points of a study: budgets x sizes x mixes x seeds",
        examples=(
            "skillscale grid --study ratio-hour --dry_run",
            "skillscale grid --study ratio-hour --workers 4",
            "skillscale grid --study ratio-gpu --launcher slurm --workers 8 --launcher_options slurm_partition=gpu",
        ),
    ),
    Command(
        name="sample", common=True, options=options.SampleOptions,
        run="skillscale.commands.sample:sample", short=_SAMPLE, any_study=True,
        help="choose the runs that narrow the intervals most per FLOP, train them, fit again",
        examples=(
            "skillscale sample --study main --budget 4e12",
            "skillscale sample --study mine --trainer my_trainer.py:train --target_skills code,prose --flops_max 1e18",
        ),
    ),
    Command(
        name="report", common=True, options=options.ReportOptions,
        run="skillscale.commands.report:report", short=(_LAW,), any_study=True,
        help="fit, and write figures, tables and the page",
        examples=(
            "skillscale report --study main",
            "skillscale report --table runs.csv --columns map.yaml --page runs.html",
        ),
    ),
    Command(
        name="import", common=True, options=options.ImportOptions,
        run="skillscale.commands.import_runs:import_runs", settings=False,
        help="write runs from a table, W&B, lm-eval results or an MLflow experiment into a study",
        examples=(
            "skillscale import --table runs.csv --columns map.yaml --study theirs",
            "skillscale import --from_tracking http://host:5000 --experiment sweep --columns map.yaml --study theirs",
        ),
    ),
    Command(
        name="watch", common=True, options=options.WatchOptions, run="skillscale.commands.watch:watch", settings=False,
        help="show the progress of a study: points, FLOP, expected end, widest interval, workers",
        examples=("skillscale watch --study main", "skillscale watch --study main --once --json"),
    ),
    Command(
        name="prepare", options=options.PrepareOptions, run="skillscale.commands.prepare:prepare",
        help="build or fetch the data, train the tokenizer, write the token arrays",
        examples=("skillscale prepare --study main", "skillscale prepare --study large --cache /data/skillscale"),
    ),
    Command(
        name="train", options=options.TrainOptions, run="skillscale.commands.train:train",
        help="train and measure one point",
        examples=(
            "skillscale train --n_params 2e5 --flops 1e11",
            "skillscale train --n_params 2e5 --n_tokens 4e6 --mix code=0.7,prose=0.3 --train.clip_norm 0.5",
        ),
    ),
    Command(
        name="worker", options=options.WorkerOptions, run="skillscale.commands.worker:worker", any_study=True,
        help="train the points that wait in the queue of a study until there are none",
        examples=(
            "skillscale worker --study ratio-hour",
            "skillscale worker --study main --queue postgresql+psycopg2://me@host/queue --tracking http://host:5000",
            "skillscale worker --study mine --trainer my_trainer.py:train",
        ),
    ),
    Command(
        name="tune", options=options.TuneOptions, run="skillscale.commands.tune:tune",
        help="search learning rate and batch at a few sizes, and refit the rule for them",
        examples=("skillscale tune --study main --trials 20", "skillscale tune --study main --n_params 3e4,1e6"),
    ),
    Command(
        name="backtest", options=options.BacktestOptions,
        run="skillscale.commands.backtest:backtest", short=(_LAW,), any_study=True,
        help="fit the smaller runs, predict the larger ones, and report error and coverage of each skill",
        examples=(
            "skillscale backtest --study main --max_flops 3e11",
            "skillscale backtest --table runs.csv --columns map.yaml --max_params 6.8e8",
        ),
    ),
    Command(
        name="simulate", options=options.SimulateOptions, run="skillscale.commands.simulate:simulate", settings=False,
        help="try designs of experiments on a known truth: errors, coverage and cost",
        examples=(
            "skillscale simulate --truth coupled_drifting --design bayes,grid --seeds 5",
            "skillscale simulate --truth my_truth.py --budget 10 --flops_max 1e20",
        ),
    ),
    Command(
        name="evaluate", options=options.EvaluateOptions, run="skillscale.commands.evaluate:evaluate", any_study=True,
        help="measure Hugging Face checkpoints in local folders on the skills, as runs of a study",
        examples=(
            "skillscale evaluate --study open --checkpoint pythia-70m --n_tokens 3e11",
            "skillscale evaluate --study open --table checkpoints.csv --dtype bfloat16 --device cuda",
        ),
    ),
    Command(
        name="export", options=options.ExportOptions,
        run="skillscale.commands.export:export", short=(_LAW,), any_study=True,
        help="write the runs of a study to a CSV or Parquet file, or its laws as JSON or Python",
        examples=(
            "skillscale export --study theirs --file runs.csv",
            "skillscale export --study theirs --law chinchilla --file law.py",
            "skillscale export --from models:/their-law@champion --file law.json",
        ),
    ),
    Command(
        name="close_stale", options=options.CloseStaleOptions,
        run="skillscale.commands.close_stale:close_stale", settings=False,
        help="close the runs whose process has ended",
        examples=(
            "skillscale close_stale",
            "skillscale close_stale --study main --stale_after_s 600",
        ),
    ),
)  # fmt: skip
