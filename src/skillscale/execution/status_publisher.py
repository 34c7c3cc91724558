"""Keep the description of a study in the MLflow UI current."""

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from skillscale.errors import SkillscaleError
from skillscale.execution.status import study_status
from skillscale.execution.status_text import status_markdown
from skillscale.formatting import JsonObject, format_count, format_flops, format_interval
from skillscale.tracking import Study

_SUMMARIES = "found"  # key of the last fit and report among the study's notes; stores of version 0.1 hold it
_EVERY_S = 30.0
_AFTER_FAILURE_S = 300.0
_SKILLS_KEPT = 13


class StatusPublisher:
    """The description of a study in the MLflow UI. A failure to write it is reported once, and stops nothing.

    Args:
        study: Study to describe.
        progress: Receiver of a line for a person.
    """

    def __init__(self, study: Study, progress: Callable[[str], None]) -> None:
        self._study = study
        self._progress = progress
        self._next_s = time.monotonic() + _EVERY_S
        self._has_failed = False

    def refresh(self, *, now: bool = False) -> bool:
        """Describe the study if its description is half a minute old, or ``now``; return whether it was written."""
        if not now and time.monotonic() < self._next_s:
            return False
        self._next_s = time.monotonic() + _EVERY_S
        try:
            if not now and time.time() - self._study.notes.described_ms() / 1000 < _EVERY_S:
                return False
            publish_status(self._study)
        except (SkillscaleError, OSError) as error:
            self._next_s += _AFTER_FAILURE_S
            if not self._has_failed:
                self._progress(f"note: the study's description in the MLflow UI is not current: {error}")
            self._has_failed = True
            return False
        return True


def publish_status(study: Study) -> None:
    """Describe a study in the MLflow UI as it is now.

    Raises:
        TrackingError: The store failed.
    """
    status = study_status(study)
    records = status.finished
    skills = list(dict.fromkeys(name for record in records for name in record.skills))
    shares: dict[str, set[float]] = {}
    for record in records:
        for category, share in record.point.mix.shares.items():
            shares.setdefault(category, set()).add(share)
    is_mixed = len({record.point.mix for record in records}) > 1
    varied = [name for name, values in shares.items() if is_mixed and (len(values) > 1 or 0 not in values)]
    note = status_markdown(status, study, study.notes.get_json(_SUMMARIES) or {})
    study.describe(note, skills=skills, mixes=varied, per_byte=status.is_evaluated)


def store_fit_summary(
    study: Study, kind: str, *, run_id: str, files: Sequence[str], optima: Sequence[Mapping[Any, Any]], runs: int,
    level: float, answer: str = "", losses: str = "", preview: str = "",
) -> None:  # fmt: skip
    """Keep the results of a fit or a report for the description of its study.

    Args:
        study: Study of the runs.
        kind: ``fit`` or ``report``.
        run_id: Id of the analysis.
        files: Artifacts to link to.
        optima: Rows of ``law_optima.csv``.
        runs: Number of fitted runs.
        level: Level of the intervals.
        answer: What to train, in one line.
        losses: Expected losses of the skills there.
        preview: Artifact with a figure for the description; empty: none.
    """
    summaries = study.notes.get_json(_SUMMARIES) or {}
    summary = {
        "run_id": run_id, "at_s": time.time(), "files": list(files), "runs": runs, "level": level,
        "optima": optima_rows(optima)[:_SKILLS_KEPT], "answer": answer, "losses": losses, "preview": preview,
    }  # fmt: skip
    others = {name: value for name, value in summaries.items() if name != kind}
    study.notes.put_json(_SUMMARIES, others | {kind: summary})


def optima_rows(optima: Sequence[Mapping[Any, Any]]) -> list[JsonObject]:
    """Return rows of ``law_optima.csv`` as texts, a row for each skill: N* with its interval at each C."""
    rows: dict[str, dict[str, str]] = {}
    for row in optima:
        text = format_interval(row["N"], row["N_lo"], row["N_hi"], lambda N: format_count(N, 2))
        rows.setdefault(str(row["skill"]), {})[format_flops(row["C"])] = text
    return [{"skill": skill, "at": at} for skill, at in rows.items()]
