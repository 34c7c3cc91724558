"""The only home of mlflow: open a study, share out its points, log a run, read the records back typed.

In order: ``Registry.open``, ``open_study``, ``add_points``; each worker then loops over ``claim``, and writes to the
``RunWriter`` it gets until there is none; ``records`` reads all of it back. Runs that were made elsewhere go into a
study of their own by ``open_imports``.
"""

from skillscale.tracking.imports import Added, ForeignRun, ImportedRun, Imports, Source
from skillscale.tracking.owner import current_owner, is_alive
from skillscale.tracking.run_writer import AnalysisWriter, Claim, RunWriter
from skillscale.tracking.studies import EVALUATED, TRAINER, Registry
from skillscale.tracking.study import Planned, Progress, Reaped, Study
from skillscale.tracking.ui import link, run_path

__all__ = [
    "EVALUATED", "TRAINER", "Added", "AnalysisWriter", "Claim", "ForeignRun", "ImportedRun", "Imports", "Planned",
    "Progress", "Reaped", "Registry", "RunWriter", "Source", "Study", "current_owner", "is_alive", "link", "run_path",
]  # fmt: skip
