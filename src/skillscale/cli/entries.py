"""The commands there are, each with its parameters, its function and examples; declared here once."""

from dataclasses import replace

from skillscale.cli.entry import OUTPUT, Entry, Parameter
from skillscale.cli.values import (
    amount,
    bounds,
    cache_folder,
    count,
    figure_file,
    finite,
    flag,
    launch_options,
    mixes,
    mixes_or_name,
    named,
    one_of,
    optional,
    page_file,
    positive,
    seed,
    several,
    share,
    window,
)
from skillscale.point import Mix


def _under(group: str, *parameters: Parameter) -> tuple[Parameter, ...]:
    return tuple(replace(one, group=group) for one in parameters)


_FROM, _POINTS, _SPACE = "where the runs are from", "which points", "which runs may be made"
_LAW, _STATISTICS, _QUESTION = "the law", "the statistics", "what is asked"
_KEPT, _MACHINES, _OTHER_TRAINER = "the study, and where it is kept", "workers and machines", "a trainer of yours"

_STUDY = Parameter(name="study", default="main", help="a study of conf/study, or a YAML file of one")
_DATA = Parameter(name="data", default="", help="training data: a name in conf/data, or a YAML file [the study's]")
_SKILLS = Parameter(
    name="skills", default="", help="skills to measure: a name in conf/skills, or a YAML file [the study's]"
)
_TRACKING = Parameter(name="tracking", help="MLflow store; empty: MLFLOW_TRACKING_URI, or sqlite in the working folder")
_CACHE = Parameter(
    name="cache", read=cache_folder, help="folder for prepared data; empty: SKILLSCALE_CACHE, or ~/.cache/skillscale"
)
_WORKERS = Parameter(
    name="workers",
    default="2",
    group=_MACHINES,
    read=count,
    help="processes that share the points, one thread each",
)
_PAGE = Parameter(
    name="page",
    group=OUTPUT,
    read=page_file,
    help="HTML file to write; empty: skillscale-STUDY.html in the working folder",
)
_BESIDE = Parameter(
    name="beside",
    default="roberts2025",
    group=OUTPUT,
    help="published optima to draw beside: a name in conf/optima, or a CSV file",
)
_RETRY = Parameter(
    name="retry_failed", default="false", group=_POINTS, read=flag, help="train the points that failed once more"
)
_JSON = Parameter(name="json", default="false", group=OUTPUT, read=flag, help="print one JSON object instead of text")
_KINDS_OF_TABLE = "CSV, Parquet, JSON lines, W&B export or lm-eval results, or a folder"
_TABLE = Parameter(name="table", help=f"runs by others: {_KINDS_OF_TABLE}")
_INSTEAD = replace(_TABLE, help=f"runs in place of a study: {_KINDS_OF_TABLE}; empty: the study")
_COLUMNS = Parameter(name="columns", help="YAML file that tells which column of the table is what")
_CONVENTION = Parameter(
    name="convention",
    help="what N counts: of a table, one that the columns name [the first]; of a study trained here, total or nonembed",
)
_READ = _under(_FROM, _STUDY, _DATA, _SKILLS, _TRACKING)
_TRAIN = _under(_KEPT, *_READ, _CACHE)
_OF_TABLE = _under(_FROM, _INSTEAD, _COLUMNS, _CONVENTION)
_REGISTER = Parameter(
    name="register", group=OUTPUT, help="name in the model registry under which the laws are kept; empty: nowhere"
)
_WORTH = Parameter(
    name="worth",
    group=_QUESTION,
    read=named(amount),
    help="what skills are worth, as in code=1,prose=2: their common optimum is told",
)
_BOUNDS = Parameter(
    name="bounds", group=_QUESTION, read=bounds, help="of shares in the best mix for --worth, as in code=.1:.5"
)
_HOW = (
    Parameter(
        name="law", group=_LAW, help="chinchilla, drifting, separable, ...; empty: the best on held-out larger runs"
    ),
    Parameter(
        name="objective",
        group=_STATISTICS,
        default="huber",
        help="huber, least_squares, least_absolute: of ln L; with _raw: of L",
        read=one_of("huber", "least_squares", "least_absolute", "huber_raw", "least_squares_raw", "least_absolute_raw"),
    ),
    Parameter(
        name="delta",
        group=_STATISTICS,
        read=optional(positive),
        help="where Huber turns linear, ln L; empty: twice the runs' noise",
    ),
    Parameter(
        name="weights",
        group=_STATISTICS,
        default="equal",
        read=one_of("equal", "sem"),
        help="of runs: equal, or by their sem",
    ),
    Parameter(name="pin", group=_LAW, read=named(finite), help="parameters that are given, as in E=1.7,alpha=.34"),
    Parameter(name="share", group=_LAW, read=several(str), help="parameters that all skills share, as in exponents,E"),
    Parameter(
        name="pool",
        group=_LAW,
        read=named(positive),
        help="parameters that lean together, with their spread: alpha=.05",
    ),
    Parameter(
        name="resample",
        group=_STATISTICS,
        default="wild",
        read=one_of("wild", "run", "budget", "laplace"),
        help="what intervals rest on: wild (signs of the runs' errors), run, budget, laplace (quick)",
    ),
    Parameter(
        name="flops",
        group=_QUESTION,
        read=several(positive),
        help="C of the optima told, FLOP; empty: 1, 10, 100 x the largest",
    ),
    Parameter(
        name="curve",
        group=_LAW,
        default="shared",
        read=one_of("shared", "quadratic", "cubic"),
        help="of isoFLOP budgets: shared (by all of a skill), quadratic or cubic (each by itself)",
    ),
)

_PLANNED = (
    Parameter(
        name="from",
        group=_FROM,
        help="laws that were fitted earlier: models:/NAME@champion, or a law.json; empty: fit the runs",
    ),
    Parameter(
        name="flops",
        group="the budget",
        read=several(positive),
        help="the budget C = 6 N D, FLOP; several between commas",
    ),
    Parameter(
        name="gpu_hours",
        group="the budget",
        read=several(positive),
        help="or the budget in GPU-hours, with gpu_flops and mfu",
    ),
    Parameter(
        name="gpu_flops",
        group="the budget",
        read=optional(positive),
        help="peak of one GPU in the precision trained in, FLOP/s",
    ),
    Parameter(
        name="mfu",
        group="the budget",
        read=optional(share),
        help="share of that peak which training reaches, as in 0.4",
    ),
    replace(_WORTH, help="what skills are worth, as in code=1,prose=2; empty: all skills alike"),
    Parameter(
        name="validation",
        group=_QUESTION,
        read=named(amount),
        help="weights of a validation set: what choosing by it would cost, as in prose=1 or aggregate=1",
    ),
    Parameter(
        name="mix",
        group=_QUESTION,
        help="to train on: shares as in code=.5,prose=.5, or the name of one; empty: the runs' mean",
    ),
    replace(_BOUNDS, help="of shares in the best mix, as in code=.1:.5, within those of the runs"),
    Parameter(
        name="n_params", group=_QUESTION, read=several(positive), help="sizes N to be priced beside the round ones"
    ),
    Parameter(
        name="tolerance", group=_QUESTION, default="0.01", read=share, help="share of C that is cheap enough to lose"
    ),
    Parameter(
        name="figure",
        group=OUTPUT,
        read=figure_file,
        help="SVG or PNG file to draw to; empty: none beside a study's run",
    ),
)

_STORAGE = Parameter(
    name="storage",
    group=_MACHINES,
    help="where machines share the points: a journal file, sqlite:///FILE or postgresql+psycopg2://...; "
    "empty: SKILLSCALE_QUEUE, or none: one machine",
)
_PATIENCE = Parameter(
    name="patience_s",
    group=_MACHINES,
    read=optional(positive),
    help="age of a heartbeat in the storage that is too old, s; empty: 60",
)
_LAUNCHED = (
    Parameter(
        name="launcher",
        group=_MACHINES,
        default="local",
        read=one_of("local", "none", "slurm", "ray", "kubernetes"),
        help="who starts the workers: local, slurm, ray; none: you do; kubernetes: writes a Job for you to apply",
    ),
    Parameter(
        name="launch",
        group=_MACHINES,
        read=launch_options,
        help="options of the launcher, as in slurm_partition=gpu,gpus_per_node=1",
    ),
    Parameter(
        name="file", group=_MACHINES, read=page_file, help="YAML file for the Job of kubernetes; empty: STUDY-job.yaml"
    ),
)
_SAMPLED = Parameter(
    name="sampled", group=_POINTS, default="false", read=flag, help="train only points that the sampler chose"
)
_TRAINER = Parameter(
    name="trainer",
    group=_OTHER_TRAINER,
    help="FILE.py:function(n_params, n_tokens, mix, seed) that trains in our place; empty: we train",
)
_TIMEOUT = Parameter(
    name="timeout_s",
    group=_OTHER_TRAINER,
    read=optional(positive),
    help="longest time of one run of the trainer, s; empty: no limit",
)
_ASKED = (
    Parameter(
        name="wanted", group=_QUESTION, read=several(str), help="skills to learn about; empty: all; those of a trainer"
    ),
    Parameter(
        name="budget",
        group=_SPACE,
        read=optional(positive),
        help="FLOP for all sampled runs (suggest: left to spend); empty: 10 of the largest",
    ),
    Parameter(
        name="flops_max",
        group=_SPACE,
        read=optional(positive),
        help="6 N D of the largest run; empty: the study's largest",
    ),
    Parameter(
        name="flops_min", group=_SPACE, read=optional(positive), help="6 N D of the least run; empty: flops_max / 1000"
    ),
    Parameter(
        name="mixes",
        group=_SPACE,
        read=mixes_or_name,
        help="mixes to train on, between semicolons; empty: the study's; suggest: or the name of one without shares",
    ),
    Parameter(
        name="target_flops",
        group=_QUESTION,
        read=several(positive),
        help="C at which optima are asked; empty: 10, 100 x flops_max",
    ),
    Parameter(
        name="width",
        group=_QUESTION,
        read=optional(positive),
        help="stop at this half width, ln N, of the widest interval",
    ),
)

ENTRIES = (
    Entry(
        name="main",
        help="prepare the data, train the study's points and a few sampled ones, fit every skill, write the page",
        run="skillscale.commands.main:main",
        parameters=(*_TRAIN, _WORKERS, _RETRY, _PAGE, _STORAGE, _JSON),
        examples=(
            "skillscale main",
            "skillscale main --study smoke --sample.after_grid 0",
            "skillscale main --workers 8 --tracking http://host:5000 --page main.html",
        ),
    ),
    Entry(
        name="prepare",
        help="build or fetch the data, train the tokenizer, write the token arrays",
        run="skillscale.execution.session:prepare",
        parameters=(_STUDY, _DATA, _SKILLS, _CACHE, _JSON),
        examples=(
            "skillscale prepare --study main",
            "skillscale prepare --study large --cache /data/skillscale",
        ),
    ),
    Entry(
        name="train",
        help="train and measure one point",
        run="skillscale.execution.session:train",
        parameters=(
            *_TRAIN,
            Parameter(
                name="n_params",
                group=_POINTS,
                default=None,
                read=count,
                help="N, parameters, the embedding counted once",
            ),
            Parameter(name="n_tokens", group=_POINTS, read=optional(count), help="D, training tokens; or give flops"),
            Parameter(name="flops", group=_POINTS, read=optional(positive), help="C = 6 N D, FLOP; or give n_tokens"),
            Parameter(
                name="mix",
                group=_POINTS,
                read=optional(Mix.parse),
                help="as in code=.5,prose=.5; empty: the study's first mix",
            ),
            Parameter(
                name="seed",
                group=_POINTS,
                default="0",
                read=seed,
                help="seed of the weights and of the stream of tokens",
            ),
            _RETRY,
            _STORAGE,
            _JSON,
        ),
        examples=(
            "skillscale train --n_params 2e5 --flops 1e11",
            "skillscale train --n_params 2e5 --n_tokens 4e6 --mix code=.7,prose=.3 --train.clip_norm 0.5",
        ),
    ),
    Entry(
        name="grid",
        help="train the study's points: budgets x sizes x mixes x seeds",
        run="skillscale.execution.session:grid",
        parameters=(
            *_TRAIN,
            Parameter(
                name="budgets", group=_POINTS, read=several(positive), help="C of each budget, FLOP; empty: the study's"
            ),
            Parameter(
                name="sizes",
                group=_POINTS,
                read=several(count),
                help="N of each size; empty: spread around the optimum",
            ),
            Parameter(name="mixes", group=_POINTS, read=mixes, help="mixes between semicolons; empty: the study's"),
            Parameter(name="seeds", group=_POINTS, read=several(seed), help="seeds of each point; empty: the study's"),
            _WORKERS,
            Parameter(
                name="dry_run",
                group="what it would cost",
                default="false",
                read=flag,
                help="print points, FLOP and expected time; train nothing",
            ),
            # H100 SXM, bf16 without sparsity: 989.4 TFLOP/s by its data sheet; large models reach some .4 of it
            Parameter(
                name="gpu_flops",
                group="what it would cost",
                default="9.89e14",
                read=positive,
                help="peak FLOP/s of a GPU, for the dry run",
            ),
            Parameter(
                name="mfu",
                group="what it would cost",
                default="0.4",
                read=share,
                help="share of that which 6 N D reaches",
            ),
            _RETRY,
            _STORAGE,
            _PATIENCE,
            *_LAUNCHED,
            _JSON,
        ),
        examples=(
            "skillscale grid --study ratio-hour --dry_run",
            "skillscale grid --study ratio-hour --workers 4",
            "skillscale grid --study ratio-gpu --launcher slurm --workers 8 --launch slurm_partition=gpu",
        ),
    ),
    Entry(
        name="worker",
        help="train the points that wait in the study's queue until there are none",
        run="skillscale.execution.session:worker",
        parameters=(
            *_TRAIN,
            _TRAINER,
            _TIMEOUT,
            _SAMPLED,
            _RETRY,
            _STORAGE,
            Parameter(
                name="stay",
                group=_MACHINES,
                default="true",
                read=flag,
                help="of a storage: wait while others train, to take over what they lose",
            ),
            _JSON,
        ),
        names_any_study=True,
        examples=(
            "skillscale worker --study ratio-hour",
            "skillscale worker --study main --storage postgresql+psycopg2://me@host/queue --tracking http://host:5000",
        ),
    ),
    Entry(
        name="sample",
        help="choose the points that tell most per FLOP, train them, fit again, until it is enough",
        run="skillscale.commands.sample:sample",
        parameters=(
            *_TRAIN,
            _TRAINER,
            _TIMEOUT,
            *_ASKED,
            Parameter(
                name="points",
                group=_SPACE,
                read=optional(count),
                help="most runs of this call; empty: as the budget allows",
            ),
            _WORKERS,
            _RETRY,
            Parameter(
                name="replan",
                group=_SPACE,
                default="false",
                read=flag,
                help="go on with another space or other targets than before",
            ),
            _STORAGE,
            _PATIENCE,
            *_LAUNCHED,
            _JSON,
        ),
        names_any_study=True,
        examples=(
            "skillscale sample --study main --budget 4e12",
            "skillscale sample --study mine --trainer my_trainer.py:train --wanted code,prose --flops_max 1e18",
        ),
    ),
    Entry(
        name="suggest",
        help="print the next points and why, from a study or a table; trains nothing",
        run="skillscale.commands.suggest:suggest",
        parameters=(
            *_READ,
            *_OF_TABLE,
            *_ASKED,
            Parameter(name="count", group=_QUESTION, default="4", read=count, help="how many points"),
            Parameter(name="file", group=OUTPUT, read=page_file, help="CSV file to write the points to; empty: none"),
            _JSON,
        ),
        names_any_study=True,
        examples=(
            "skillscale suggest --study main --count 8",
            "skillscale suggest --table runs.csv --columns map.yaml --flops_max 1e19 --file next.csv",
        ),
    ),
    Entry(
        name="tune",
        help="search learning rate and batch at a few sizes, and refit the rule for them",
        run="skillscale.commands.tune:tune",
        parameters=(
            *_TRAIN,
            Parameter(name="n_params", read=several(count), help="N of each size; empty: both ends of the grid"),
            Parameter(name="n_tokens", read=several(count), help="D of each size; empty: as the grid has it"),
            Parameter(name="trials", default="12", read=count, help="trainings at each size"),
            _JSON,
        ),
        examples=(
            "skillscale tune --study main --trials 20",
            "skillscale tune --study main --n_params 3e4,1e6",
        ),
    ),
    Entry(
        name="fit",
        help="fit every skill's law and compute optimum, from the runs in the registry or from a table",
        run="skillscale.analysis.fit_laws:fit",
        parameters=(*_READ, *_OF_TABLE, *_HOW, _WORTH, _BOUNDS, _REGISTER, _STORAGE, _JSON),
        names_any_study=True,
        examples=(
            "skillscale fit --study main",
            "skillscale fit --table runs.csv --columns map.yaml --flops 1e21,1e22",
            "skillscale fit --study theirs --law chinchilla --share exponents --register their-law",
        ),
    ),
    Entry(
        name="plan",
        help="for a budget and what skills are worth: N, D and mix, losses, what other sizes cost, what skills trade",
        run="skillscale.commands.plan:plan",
        parameters=(*_READ, *_OF_TABLE, *_PLANNED, *_HOW[:8], _JSON),
        names_any_study=True,
        examples=(
            "skillscale plan --study main --flops 7e12 --worth code=1,prose=1 --figure plan.svg",
            "skillscale plan --table runs.csv --columns map.yaml --gpu_hours 500 --gpu_flops 989e12 --mfu 0.4",
            "skillscale plan --from models:/their-law@champion --flops 1e21,1e22 --json",
        ),
    ),
    Entry(
        name="backtest",
        help="fit the smaller runs, predict the larger ones, and tell error and coverage of each skill",
        run="skillscale.commands.backtest:backtest",
        parameters=(
            *_READ,
            *_OF_TABLE,
            Parameter(
                name="max_flops", group=_QUESTION, read=optional(positive), help="C up to which runs are fitted, FLOP"
            ),
            Parameter(name="max_params", group=_QUESTION, read=optional(positive), help="or N up to which they are"),
            *_HOW[:3],
            _JSON,
        ),
        names_any_study=True,
        examples=(
            "skillscale backtest --study main --max_flops 3e11",
            "skillscale backtest --table runs.csv --columns map.yaml --max_params 6.8e8",
        ),
    ),
    Entry(
        name="simulate",
        help="try designs of experiments on a known world: errors, coverage and cost of what each finds out",
        run="skillscale.commands.simulate:simulate",
        parameters=(
            Parameter(
                name="world",
                group="the world, and who is tried on it",
                default=None,
                help="Python file with losses(n_params, n_tokens, mix, seed), or a family of random truths: chinchilla, farseer, ...",
            ),
            Parameter(
                name="design",
                group="the world, and who is tried on it",
                default="bayes",
                read=several(str),
                help="designs between commas: bayes, grid, sobol, random, ...",
            ),
            Parameter(
                name="budget",
                group="the world, and who is tried on it",
                default="2.55",
                read=positive,
                help="FLOP in all, overheads included; below 1e6: in units of the largest run",
            ),
            Parameter(
                name="seeds",
                group="the world, and who is tried on it",
                default="10",
                read=count,
                help="tries; of a kind, each with another random world",
            ),
            Parameter(name="batch", group=_SPACE, default="4", read=count, help="runs asked for at once"),
            Parameter(name="workers", group=_SPACE, default="1", read=count, help="runs under way at once"),
            Parameter(name="runs", group=_SPACE, read=optional(count), help="most runs in all; empty: no limit"),
            Parameter(
                name="flops_min",
                group=_SPACE,
                default="1e16",
                read=positive,
                help="C of the smallest run allowed, FLOP",
            ),
            Parameter(
                name="flops_max", group=_SPACE, default="1e19", read=positive, help="C of the largest run allowed, FLOP"
            ),
            Parameter(
                name="ratio",
                group=_SPACE,
                default="1,500",
                read=several(positive),
                help="least and largest D / N of a run",
            ),
            Parameter(
                name="overhead", group=_SPACE, default="0.01", read=amount, help="of a run, in units of the largest run"
            ),
            Parameter(
                name="computes",
                group=_QUESTION,
                read=several(positive),
                help="C asked about, FLOP; empty: 10, 100 x flops_max",
            ),
            Parameter(
                name="mixes", group=_SPACE, read=mixes, help="mixes that may be trained on; one: that of every run"
            ),
            Parameter(name="target_mixes", group=_QUESTION, read=mixes, help="mixes asked about; empty: all of them"),
            Parameter(
                name="width",
                group=_QUESTION,
                read=optional(positive),
                help="half width of ln N* that is enough; empty: none is",
            ),
            _JSON,
        ),
        examples=(
            "skillscale simulate --world farseer --design bayes,grid --seeds 5",
            "skillscale simulate --world my_world.py --budget 10 --flops_max 1e20",
        ),
    ),
    Entry(
        name="report",
        help="fit, and write figures, tables and the page",
        run="skillscale.analysis.fit_laws:report",
        parameters=(*_READ, *_OF_TABLE, *_HOW, _BESIDE, _PAGE, _STORAGE, _JSON),
        names_any_study=True,
        examples=(
            "skillscale report --study main",
            "skillscale report --table runs.csv --columns map.yaml --page runs.html",
        ),
    ),
    Entry(
        name="import",
        help="write the runs of others, from a table, W&B, lm-eval results or an MLflow experiment, into a study",
        run="skillscale.commands.import_runs:run_import",
        parameters=(
            Parameter(name="study", default=None, help="name of the study to import into"),
            replace(_COLUMNS, default=None),
            _TABLE,
            Parameter(name="from_tracking", help="MLflow store to read in place of a table; may be the same store"),
            Parameter(name="experiment", help="its experiment, whose finished runs are read"),
            _CONVENTION,
            _TRACKING,
            _JSON,
        ),
        examples=(
            "skillscale import --table runs.csv --columns map.yaml --study theirs",
            "skillscale import --from_tracking http://host:5000 --experiment sweep --columns map.yaml --study theirs",
        ),
    ),
    Entry(
        name="evaluate",
        help="measure checkpoints of Hugging Face, in local folders, on the skills, as runs of a study of their own",
        run="skillscale.commands.evaluate:evaluate",
        parameters=(
            *_under(
                _KEPT,
                Parameter(
                    name="study", default=None, help="name of the study that holds the checkpoints, and nothing else"
                ),
                _DATA,
                _SKILLS,
            ),
            Parameter(
                name="checkpoint",
                group="the checkpoints",
                help="folder with config.json, model.safetensors and tokenizer.json",
            ),
            Parameter(
                name="n_tokens",
                group="the checkpoints",
                read=optional(positive),
                help="D that it was trained on, repetitions counted",
            ),
            Parameter(
                name="mix",
                group="the checkpoints",
                help="that it was trained on: the name of its data, or shares as in code=.5,prose=.5",
            ),
            Parameter(
                name="seed",
                group="the checkpoints",
                default="0",
                read=seed,
                help="of its training: tells runs of one N, D and mix apart",
            ),
            Parameter(
                name="training_run",
                group="the checkpoints",
                help="name that the checkpoints of one training share; empty: its only one",
            ),
            Parameter(
                name="table",
                group="the checkpoints",
                help="or a CSV of many: checkpoint (a folder), n_tokens [, mix, seed, training_run]",
            ),
            Parameter(
                name="context",
                group="how they are read",
                default="1024",
                read=window,
                help="the most tokens read at once, by all of a study",
            ),
            Parameter(
                name="dtype",
                group="how they are read",
                default="float32",
                read=one_of("float32", "bfloat16", "float16", "float64"),
                help="of weights, by all of a study",
            ),
            Parameter(
                name="device",
                group="how they are read",
                default="auto",
                read=one_of("auto", "cpu", "cuda"),
                help="auto: cuda if there is one",
            ),
            Parameter(
                name="batch_tokens",
                group="how they are read",
                read=optional(count),
                help="tokens in a batch; empty: as 2^27 logits allow",
            ),
            Parameter(
                name="first_token",
                group="how they are read",
                help="that stands before every text; empty: bos, or else eos, of the folder",
            ),
            replace(_RETRY, group="the checkpoints", help="measure the checkpoints that failed once more"),
            *_under(_KEPT, _TRACKING, _CACHE),
            _JSON,
        ),
        names_any_study=True,
        examples=(
            "skillscale evaluate --study open --checkpoint pythia-70m --n_tokens 3e11",
            "skillscale evaluate --study open --table checkpoints.csv --dtype bfloat16 --device cuda",
        ),
    ),
    Entry(
        name="export",
        help="write the runs of a study to a CSV or Parquet file, or its laws as JSON or as Python to paste",
        run="skillscale.commands.export:export",
        parameters=(
            *_READ,
            *_OF_TABLE,
            Parameter(
                name="file",
                group=OUTPUT,
                default=None,
                read=page_file,
                help="runs.csv or runs.parquet; law.json or law.py of laws",
            ),
            Parameter(
                name="from",
                group=_FROM,
                help="laws that were fitted: models:/NAME@champion, or a law.json; empty: fit the runs",
            ),
            *_HOW[:8],
            Parameter(name="force", group=OUTPUT, default="false", read=flag, help="write over files that are there"),
            _JSON,
        ),
        names_any_study=True,
        examples=(
            "skillscale export --study theirs --file runs.csv",
            "skillscale export --study theirs --law chinchilla --file law.py",
            "skillscale export --from models:/their-law@champion --file law.json",
        ),
    ),
    Entry(
        name="watch",
        help="how far a study is, live: points, FLOP, expected end, how the widest interval falls, workers",
        run="skillscale.commands.watch:watch",
        parameters=(
            Parameter(name="study", default="main", help="name of a study in the registry"),
            _TRACKING,
            Parameter(name="every", default="5", read=positive, help="seconds between two looks"),
            Parameter(name="once", default="false", read=flag, help="look once, rather than until the study is done"),
            _STORAGE,
            _JSON,
        ),
        examples=(
            "skillscale watch --study main",
            "skillscale watch --study main --once --json",
        ),
    ),
    Entry(
        name="reap",
        help="close the runs whose process is gone",
        run="skillscale.execution.session:reap",
        parameters=(
            Parameter(name="study", help="name of a study in the registry; empty: every study"),
            Parameter(
                name="others_after_s",
                read=optional(positive),
                help="also close runs of other machines claimed so many seconds ago; empty: leave them",
            ),
            _TRACKING,
            _STORAGE,
            _JSON,
        ),
        examples=(
            "skillscale reap",
            "skillscale reap --study main --others_after_s 600",
            "skillscale reap --study main --storage postgresql+psycopg2://me@host/queue",
        ),
    ),
)
