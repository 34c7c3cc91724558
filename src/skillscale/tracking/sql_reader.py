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
    from mlflow.entities import RunInfo

KNOWN = ("dc11669786a5",)  # MLflow 3.17; add one when tests/tracking/test_sql_reader.py passes on it
_RUNS_PER_PAGE = 500  # each page ends its transaction: a reader of sqlite keeps writers waiting
_LOCK_PATIENCE_S = 60
_ANALYSED_ROWS = 1000  # of each index, which is plenty for its selectivity


@dataclass(frozen=True, kw_only=True)
class RunFilter:
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


@dataclass(frozen=True, slots=True)
class Data:
    """The last value of each metric, the params and the tags of a run, by name."""

    metrics: dict[str, float]
    params: dict[str, str]
    tags: dict[str, str]


@dataclass(frozen=True, slots=True)
class Row:
    """A run under the names that MLflow's own has, without an object for each of its values."""

    info: "RunInfo"
    data: Data


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

    def pages(self, experiment_id: str, wanted: RunFilter) -> Iterator[list[Row]]:
        """The runs that are wanted and not deleted, oldest first."""
        rows = self._rows(_statement(experiment_id, wanted))
        for first in range(0, len(rows), _RUNS_PER_PAGE):
            yield self._page(rows[first : first + _RUNS_PER_PAGE], tags_only=wanted.tags_only)

    def analyse(self) -> None:
        """Have sqlite gather the statistics without which it sorts runs by a metric for minutes."""
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
                run_id=row.run_uuid, run_name=row.name, experiment_id=str(row.experiment_id), user_id=row.user_id,
                status=row.status, start_time=row.start_time, end_time=row.end_time,
                lifecycle_stage=row.lifecycle_stage, artifact_uri=row.artifact_uri,
            )
            for row in rows
        )  # fmt: skip
        return [Row(info=info, data=read[info.run_id]) for info in infos]

    def _of(self, ids: list[str], table: Any, *columns: Any) -> list[Any]:
        """Rows of a table that belong to some runs: run, key, value, columns."""
        from sqlalchemy import select

        return self._rows(select(table.run_uuid, table.key, table.value, *columns).where(table.run_uuid.in_(ids)))

    def _rows(self, statement: Any) -> list[Any]:
        from sqlalchemy import text

        with self._engine.connect() as connection:
            return list(connection.execute(text(statement) if isinstance(statement, str) else statement).all())


def _statement(experiment_id: str, wanted: RunFilter) -> Any:
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
