"""The only home of MLflow: open a study, share out its points, log a run, read the records back.

In order: ``StudyStore.open``, ``open_study``, ``add_points``. Each worker then loops over ``claim`` until it returns
None, and writes to the ``RunWriter`` that it returns. ``study.runs`` reads the runs as records, and ``study.notes``
holds what commands keep with a study. Runs that were made elsewhere go into another study by ``open_imports``.
"""

from skillscale.tracking.imports import IMPORTED, ExternalRun, ImportCount, ImportedRun, ImportedStudy, ImportSource
from skillscale.tracking.owner import current_owner, is_alive
from skillscale.tracking.run_writer import AnalysisWriter, Claim, RunWriter
from skillscale.tracking.studies import EVALUATED, TRAINER, StudyStore
from skillscale.tracking.study import ClosedRun, Study, StudyProgress
from skillscale.tracking.study_queue import PlannedPoint
from skillscale.tracking.ui import image, link, point_note, run_path

__all__ = [
    "EVALUATED",
    "IMPORTED",
    "TRAINER",
    "AnalysisWriter",
    "Claim",
    "ClosedRun",
    "ExternalRun",
    "ImportCount",
    "ImportSource",
    "ImportedRun",
    "ImportedStudy",
    "PlannedPoint",
    "RunWriter",
    "Study",
    "StudyProgress",
    "StudyStore",
    "current_owner",
    "image",
    "is_alive",
    "link",
    "point_note",
    "run_path",
]  # fmt: skip
