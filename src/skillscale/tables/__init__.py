"""Tables of runs from anywhere: files and a column map in, runs in the form that the laws need out.

First ``read_columns`` (a small YAML file: which column is N, D, FLOP, share, loss), then ``read_table``. Everything
that is excluded is named with its reason. A row without N, D or mix is excluded. A loss that is not a positive number
is excluded alone. Faults that make every number wrong (a missing column, mixed-up units, shares in per cent) are an
``InputError`` with the cure. Oddities are notes.
"""

from skillscale.tables.column_map import ColumnMap, LossColumns, parse_columns, read_columns
from skillscale.tables.files import files_of
from skillscale.tables.run_table import RunTable, add_aggregates, make_run_table, read_table, run_columns

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
