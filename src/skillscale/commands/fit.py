"""``fit``: fit every skill of a study or a table, record the fit, print laws and optima."""

import json

from skillscale.analysis.answer import answers_by_mix
from skillscale.analysis.fit_laws import base_mix, fit_runs
from skillscale.analysis.record import log_results, open_record, publish_results, register_laws
from skillscale.analysis.text import verdict_lines
from skillscale.cli.output import Output
from skillscale.config import Config
from skillscale.config.options import FitOptions
from skillscale.formatting import JsonObject, to_json
from skillscale.tables.read import exclusion_lines, read_runs


def fit(options: FitOptions, config: Config, out: Output) -> JsonObject:
    """Fit every skill: its law, its compute optima, its isoFLOP curves.

    Raises:
        FitError: No skill has a law or an isoFLOP optimum.
    """
    from skillscale.report.answer import answer_as_dict, answer_lines
    from skillscale.report.doubts import MAX_LINES, doubt_lines
    from skillscale.report.laws import law_text

    runs = read_runs(options.source, config, out.progress)
    for line in exclusion_lines(runs):  # before the fit, which takes a while and may refuse the runs
        out.progress(line)
    results = fit_runs(runs, config.laws, config.study, options.flops)
    for note in results.all_notes:
        out.progress(note)
    results.require_a_fit()
    best = answers_by_mix(results, runs)
    answer = {"answers": [answer_as_dict(item) for item in best.values()], **results.as_dict()}
    record = open_record(runs, options.register, options.source.tracking)
    if record is not None:
        with record as run:
            described = log_results(run, results, runs, config.study, best)
            if options.register:
                answer["registered"] = register_laws(run, results, runs, options.register)
        files = ["law.json", *filter(None, [described.figure])]
        publish_results("fit", run, results, runs, described=described, files=files, progress=out.progress)
        if runs.store is not None:
            runs.store.annotate_mlflow_project_run(
                runs.study, note=described.note, metrics=described.metrics, result=json.loads(to_json(answer))
            )
    for table in verdict_lines(results.curves, base_mix(results.curves, config.study)):
        out.text(table)
    out.text(law_text(results.laws, results.flops))
    for line in doubt_lines(results.doubts(), results.source, limit=MAX_LINES):
        out.text(line)
    for item in best.values():
        out.text("\n" + "\n".join(answer_lines(item)))
    if "registered" in answer:
        out.text(f"registered as {answer['registered']}")
    return answer
