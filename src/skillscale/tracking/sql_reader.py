"""A reader of runs from the tables of MLflow's database, for schemas that were tested.

MLflow's only way to many runs is its search, which makes mapped objects of every row: some 3 ms a run on any database.
This reader selects the same rows through MLflow's table definitions, and returns the same values. MLflow may change its
tables at any time, so other schemas are left to the search. docs has the measurement.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from skillscale.record import TAG

if TYPE_CHECKING:
    from mlflow.entities import RunInfo

SUPPORTED = ("dc11669786a5",)  # MLflow 3.17; add one when tests/tracking/test_sql_reader.py passes on it
_RUNS_PER_PAGE = 500  # each page ends its transaction: a reader of sqlite keeps writers waiting
_LOCK_PATIENCE_S = 60
_ANALYSED_ROWS = 1000  # of each index, enough to estimate its selectivity


@dataclass(frozen=True, kw_only=True)
class RunFilter:
    """A filter of an experiment's runs; by default all pass.

    ``kind``: kind of run, as skillscale tags it. ``finished``: finished runs or the others. ``ended_from_ms``: earliest
    end, ms since the epoch. ``tags_only``: params and metrics are not needed, and may be absent.
    """

    kind: str = ""
    finished: bool | None = None
    ended_from_ms: int = 0
    tags_only: bool = False

    @property
    def filter_string(self) -> str:
        """The filter in the syntax of MLflow's search."""
        parts = [f"tags.`{TAG}kind` = '{self.kind}'"] * bool(self.kind)
        if self.finished is not None:
            parts += [f"attributes.status {'=' if self.finished else '!='} 'FINISHED'"]
        parts += [f"attributes.end_time >= {self.ended_from_ms}"] * bool(self.ended_from_ms)
        return " and ".join(parts)


@dataclass(frozen=True, slots=True)
class Data:
    """The last value of each metric, the params and the tags of a run, by name."""

    metrics: dict[str, float]
    params: dict[str, str]
    tags: dict[str, str]


@dataclass(frozen=True, slots=True)
class Row:
    """A run with the attributes of MLflow's class, without an object for each of its values."""

    info: "RunInfo"
    data: Data


class Tables:
    """The tables of one database."""

    def __init__(self, uri: str) -> None:
        import sqlalchemy

        # No pool: a store lives through forks, and is read now and then
        patience = {"timeout": _LOCK_PATIENCE_S} if uri.startswith("sqlite:") else {}
        self._engine = sqlalchemy.create_engine(uri, poolclass=sqlalchemy.NullPool, connect_args=patience)

    def is_supported(self) -> bool:
        """Return whether this reader was tested on the schema."""
        return all(revision in SUPPORTED for (revision,) in self._rows("SELECT version_num FROM alembic_version"))

    def pages(self, experiment_id: str, run_filter: RunFilter) -> Iterator[list[Row]]:
        """Return the runs that pass a filter and are not deleted, oldest first."""
        rows = self._rows(_statement(experiment_id, run_filter))
        for first in range(0, len(rows), _RUNS_PER_PAGE):
            yield self._page(rows[first : first + _RUNS_PER_PAGE], tags_only=run_filter.tags_only)

    def analyse(self) -> None:
        """Let sqlite gather statistics. Without them it sorts runs by a metric for minutes."""
        with self._engine.begin() as connection:
            connection.exec_driver_sql(f"PRAGMA analysis_limit = {_ANALYSED_ROWS}")
            connection.exec_driver_sql("ANALYZE")

    def _page(self, rows: list[Any], *, tags_only: bool) -> list[Row]:
        from mlflow.entities import RunInfo
        from mlflow.store.tracking.dbmodels.models import SqlLatestMetric, SqlParam, SqlTag

        ids = [row.run_uuid for row in rows]
        read = {run_id: Data(metrics={}, params={}, tags={}) for run_id in ids}
        if not tags_only:
            for run_id, key, value, is_nan in self._of(ids, SqlLatestMetric, SqlLatestMetric.is_nan):
                read[run_id].metrics[key] = math.nan if is_nan else value
            for run_id, key, value in self._of(ids, SqlParam):
                read[run_id].params[key] = value
        for run_id, key, value in self._of(ids, SqlTag):
            read[run_id].tags[key] = value
        infos = (
            RunInfo(
                run_id=row.run_uuid, run_name=row.name, experiment_id=str(row.experiment_id), user_id=row.user_id or "",
                status=row.status or "KILLED", start_time=row.start_time or 0, end_time=row.end_time,
                lifecycle_stage=row.lifecycle_stage, artifact_uri=row.artifact_uri,
            )
            for row in rows
        )  # fmt: skip
        return [Row(info=info, data=read[info.run_id]) for info in infos]

    def _of(self, ids: list[str], table: Any, *columns: Any) -> list[Any]:
        """Return the rows of a table that belong to some runs: run, key, value, columns."""
        from sqlalchemy import select

        return self._rows(select(table.run_uuid, table.key, table.value, *columns).where(table.run_uuid.in_(ids)))

    def _rows(self, statement: Any) -> list[Any]:
        from sqlalchemy import text

        with self._engine.connect() as connection:
            return list(connection.execute(text(statement) if isinstance(statement, str) else statement).all())


def _statement(experiment_id: str, run_filter: RunFilter) -> Any:
    from mlflow.store.tracking.dbmodels.models import SqlRun, SqlTag
    from sqlalchemy import exists, select

    columns = (SqlRun.run_uuid, SqlRun.name, SqlRun.experiment_id, SqlRun.user_id, SqlRun.status, SqlRun.start_time,
               SqlRun.end_time, SqlRun.lifecycle_stage, SqlRun.artifact_uri)  # fmt: skip
    statement: Any = select(*columns).where(
        SqlRun.experiment_id == int(experiment_id), SqlRun.lifecycle_stage == "active"
    )
    if run_filter.kind:
        of_kind = SqlTag.run_uuid == SqlRun.run_uuid, SqlTag.key == f"{TAG}kind", SqlTag.value == run_filter.kind
        statement = statement.where(exists().where(*of_kind))
    if run_filter.finished is not None:
        statement = statement.where(SqlRun.status == "FINISHED" if run_filter.finished else SqlRun.status != "FINISHED")
    if run_filter.ended_from_ms:
        statement = statement.where(SqlRun.end_time >= run_filter.ended_from_ms)
    return statement.order_by(SqlRun.start_time, SqlRun.run_uuid)
