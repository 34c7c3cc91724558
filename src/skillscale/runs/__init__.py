"""Tables of runs that others made: files and a mapping of its columns in, runs as the laws want them out.

In order: ``read_columns`` (a small YAML: which column is N, D, FLOP, share, loss), then ``read_table``. What can't be
used is named, and never dropped in silence: a row without N, D or mix costs the row, a loss that is no positive number
costs that skill of that row alone. What would make every number wrong (a column that is not there, units mixed up,
shares in percent) is an ``InputError`` with its cure; what may be meant is a note.
"""

from skillscale.runs.column_map import ColumnMap, LossColumns, parse_columns, read_columns
from skillscale.runs.files import files_of
from skillscale.runs.run_table import RunTable, add_aggregates, make_run_table, read_table, run_columns

__all__ = [
    "ColumnMap",
    "LossColumns",
    "RunTable",
    "add_aggregates",
    "files_of",
    "make_run_table",
    "parse_columns",
    "read_columns",
    "read_table",
    "run_columns",
]  # fmt: skip
