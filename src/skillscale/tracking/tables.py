"""Runs read straight from the tables of MLflow's database, where their schema is one that was tried.

MLflow has no faster way to many runs than its search, which makes mapped objects of every row: some 3 ms a run on any
database. Here the same rows are selected through its table definitions, and end in the same values. Its tables are no
promise to others, so a schema that is not known here is left to the search.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from skillscale.record import TAG

if TYPE_CHECKING:
    from mlflow.entities import Run

KNOWN = ("dc11669786a5",)  # MLflow 3.17; add one when tests/test_tables.py passes on it
_RUNS_PER_PAGE = 500  # each page ends its transaction: a reader of sqlite keeps writers waiting
_LOCK_PATIENCE_S = 60
_ANALYSED_ROWS = 1000  # of each index, which is plenty for its selectivity


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """Which runs of an experiment: of a kind of ours, finished or not, ended from a time (ms) on; by default all.

    ``tags_only``: their params and metrics are not looked at, and may be absent.
    """

    kind: str = ""
    finished: bool | None = None
    ended_from_ms: int = 0
    tags_only: bool = False

    @property
    def filter_string(self) -> str:
        """The same for MLflow's search."""
        parts = [f"tags.`{TAG}kind` = '{self.kind}'"] * bool(self.kind)
        if self.finished is not None:
            parts += [f"attributes.status {'=' if self.finished else '!='} 'FINISHED'"]
        parts += [f"attributes.end_time >= {self.ended_from_ms}"] * bool(self.ended_from_ms)
        return " and ".join(parts)


class Tables:
    """The tables of one database."""

    def __init__(self, uri: str) -> None:
        import sqlalchemy

        # No pool: a store is kept through forks, and is read now and then.
        patience = {"timeout": _LOCK_PATIENCE_S} if uri.startswith("sqlite:") else {}
        self._engine = sqlalchemy.create_engine(uri, poolclass=sqlalchemy.NullPool, connect_args=patience)

    def is_known(self) -> bool:
        """Whether the schema is one that can be read here."""
        return all(revision in KNOWN for (revision,) in self._rows("SELECT version_num FROM alembic_version"))

    def pages(self, experiment_id: str, wanted: Wanted) -> "Iterator[list[Run]]":
        """The runs that are wanted and not deleted, oldest first."""
        rows = self._rows(_statement(experiment_id, wanted))
        for first in range(0, len(rows), _RUNS_PER_PAGE):
            yield self._page(rows[first : first + _RUNS_PER_PAGE], tags_only=wanted.tags_only)

    def analyse(self) -> None:
        """Have sqlite gather the statistics without which it sorts runs by a metric for minutes."""
        with self._engine.begin() as connection:
            connection.exec_driver_sql(f"PRAGMA analysis_limit = {_ANALYSED_ROWS}")
            connection.exec_driver_sql("ANALYZE")

    def _page(self, rows: list[Any], *, tags_only: bool) -> "list[Run]":
        from mlflow.entities import Metric, Param, Run, RunData, RunInfo, RunTag
        from mlflow.store.tracking.dbmodels.models import SqlLatestMetric, SqlParam, SqlTag

        ids = [row.run_uuid for row in rows]
        metrics: dict[str, list[Metric]] = {run_id: [] for run_id in ids}
        params: dict[str, list[Param]] = {run_id: [] for run_id in ids}
        tags: dict[str, list[RunTag]] = {run_id: [] for run_id in ids}
        if not tags_only:
            last = SqlLatestMetric
            columns = (last.value, last.is_nan, last.timestamp, last.step)
            for run_id, key, value, is_nan, at, step in self._of(ids, last, *columns):
                metrics[run_id].append(Metric(key, math.nan if is_nan else value, at, step))
            for run_id, key, value in self._of(ids, SqlParam, SqlParam.value):
                params[run_id].append(Param(key, value))
        for run_id, key, value in self._of(ids, SqlTag, SqlTag.value):
            tags[run_id].append(RunTag(key, value))
        return [
            Run(
                RunInfo(
                    run_id=row.run_uuid, run_name=row.name, experiment_id=str(row.experiment_id), user_id=row.user_id,
                    status=row.status, start_time=row.start_time, end_time=row.end_time,
                    lifecycle_stage=row.lifecycle_stage, artifact_uri=row.artifact_uri,
                ),
                RunData(metrics[row.run_uuid], params[row.run_uuid], tags[row.run_uuid]),
            )
            for row in rows
        ]  # fmt: skip

    def _of(self, ids: list[str], table: Any, *columns: Any) -> list[Any]:
        """Rows of a table that belong to some runs: run, key, columns."""
        from sqlalchemy import select

        return self._rows(select(table.run_uuid, table.key, *columns).where(table.run_uuid.in_(ids)))

    def _rows(self, statement: Any) -> list[Any]:
        from sqlalchemy import text

        with self._engine.connect() as connection:
            return list(connection.execute(text(statement) if isinstance(statement, str) else statement))


def _statement(experiment_id: str, wanted: Wanted) -> Any:
    from mlflow.store.tracking.dbmodels.models import SqlRun, SqlTag
    from sqlalchemy import exists, select

    columns = (SqlRun.run_uuid, SqlRun.name, SqlRun.experiment_id, SqlRun.user_id, SqlRun.status, SqlRun.start_time,
               SqlRun.end_time, SqlRun.lifecycle_stage, SqlRun.artifact_uri)  # fmt: skip
    found: Any = select(*columns).where(SqlRun.experiment_id == int(experiment_id), SqlRun.lifecycle_stage == "active")
    if wanted.kind:
        of_kind = SqlTag.run_uuid == SqlRun.run_uuid, SqlTag.key == f"{TAG}kind", SqlTag.value == wanted.kind
        found = found.where(exists().where(*of_kind))
    if wanted.finished is not None:
        found = found.where(SqlRun.status == "FINISHED" if wanted.finished else SqlRun.status != "FINISHED")
    if wanted.ended_from_ms:
        found = found.where(SqlRun.end_time >= wanted.ended_from_ms)
    return found.order_by(SqlRun.start_time, SqlRun.run_uuid)
