"""Bombs and giants among tables end in one line, before they fill the memory; other large tables are read in parts."""

import bz2
import gzip
import io
import lzma
import zipfile

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from skillscale.errors import InputError
from skillscale.tables import bounded_files, parse_columns, read_table

COLUMNS = parse_columns({"n_params": "n", "n_tokens": "d", "skills": {"prose": "loss"}})
HEADER = b"n,d,loss\n"
ROW = b"20000000,60000000,5.74\n"


def table(count=24):
    n, d = np.repeat([2e7, 1e8, 5e8], 8)[:count], np.tile(np.geomspace(1e8, 1e10, 8), 3)[:count]
    return pd.DataFrame({"n": n, "d": d, "loss": 1.7 + 400 / n**0.34 + 410 / d**0.28})


@pytest.fixture
def small_limits(monkeypatch):
    """Limits that a test reaches in a moment."""
    monkeypatch.setattr(bounded_files, "_FREE_BYTES", 2**16)
    monkeypatch.setattr(bounded_files, "_PART_BYTES", 2**14)
    monkeypatch.setattr(bounded_files, "LONGEST_LINE", 2**18)


PACK = {".gz": gzip.compress, ".bz2": bz2.compress, ".xz": lzma.compress}


@pytest.mark.parametrize("suffix", [".csv.gz", ".csv.bz2", ".csv.xz", ".tsv.gz", ".jsonl.gz"])
def test_a_bomb_of_rows_is_refused(tmp_path, small_limits, suffix):
    path = tmp_path / f"bomb{suffix}"
    content = b'{"n": 1, "d": 2, "loss": 3}\n' * 400_000 if "json" in suffix else HEADER + ROW * 400_000
    path.write_bytes(PACK[path.suffix](content))
    with pytest.raises(InputError, match="once it is decompressed"):
        read_table(path, COLUMNS)


def test_a_zip_bomb_is_refused(tmp_path, small_limits):
    with zipfile.ZipFile(tmp_path / "bomb.csv.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("bomb.csv", HEADER + ROW * 400_000)
    with pytest.raises(InputError, match="once it is decompressed"):
        read_table(tmp_path / "bomb.csv.zip", COLUMNS)


@pytest.mark.parametrize("content", [b"x" * 2**20, HEADER + b"1" * 2**20, HEADER + b'"' + b"a" * 2**20])
def test_a_line_without_end_is_refused(tmp_path, small_limits, content):
    for path, data in ((tmp_path / "line.csv", content), (tmp_path / "line.csv.gz", gzip.compress(content))):
        path.write_bytes(data)
        with pytest.raises(InputError, match=r"too long for a row|once it is decompressed"):
            read_table(path, COLUMNS)


def test_a_table_of_too_many_rows_is_refused(tmp_path, small_limits, monkeypatch):
    monkeypatch.setattr(bounded_files, "MAX_ROWS", 10_000)
    (tmp_path / "long.csv").write_bytes(HEADER + ROW * 12_000)
    with pytest.raises(InputError, match=r"more than 10,000 rows of 3 columns"):
        read_table(tmp_path / "long.csv", COLUMNS)


@pytest.mark.parametrize("limit", ["MAX_ROWS", "MAX_CELLS", "MAX_BYTES"])
def test_a_parquet_file_is_refused_by_its_metadata(tmp_path, monkeypatch, limit):
    """A run of one value takes some bytes, whatever its length."""
    path = tmp_path / "bomb.parquet"
    pq.write_table(pa.table({name: pa.array([1.5] * 200_000) for name in ("n", "d", "loss")}), path)
    assert path.stat().st_size < 10_000
    monkeypatch.setattr(bounded_files, limit, 1_000)
    monkeypatch.setattr(pq.ParquetFile, "read", lambda *_, **__: pytest.fail("it was read"))
    with pytest.raises(InputError, match=r"too much for a table of runs"):
        read_table(path, COLUMNS)


def test_only_the_named_columns_of_a_parquet_file_are_read(tmp_path, monkeypatch):
    path = tmp_path / "runs.parquet"
    wide = table().assign(**{f"metric_{at}": 1.0 for at in range(50)})
    wide.to_parquet(path)
    read = []
    whole = pq.ParquetFile.read
    monkeypatch.setattr(
        pq.ParquetFile, "read", lambda file, columns: read.extend(columns) or whole(file, columns=columns)
    )
    runs = read_table(path, COLUMNS).runs
    assert sorted(read) == ["d", "loss", "n"]
    pd.testing.assert_series_equal(runs["N"], table()["n"], check_names=False)


def test_an_index_of_a_parquet_file_is_a_column(tmp_path):
    table().set_index("n").to_parquet(tmp_path / "runs.parquet")
    assert len(read_table(tmp_path / "runs.parquet", COLUMNS).runs) == 24


@pytest.mark.parametrize("suffix", [".csv", ".csv.gz", ".csv.bz2", ".csv.xz", ".csv.zip", ".csv.zst"])
def test_every_compression_is_read_alike(tmp_path, suffix):
    path = tmp_path / f"runs{suffix}"
    if suffix == ".csv.zst":
        path.write_bytes(pa.compress(table().to_csv(index=False).encode(), codec="zstd", asbytes=True))
    else:
        table().to_csv(path, index=False)
    np.testing.assert_array_equal(read_table(path, COLUMNS).runs[["N", "D", "prose"]], table())


@pytest.mark.parametrize("suffix", [".csv.gz", ".csv.bz2", ".csv.xz", ".csv.zip", ".csv.zst"])
@pytest.mark.parametrize("content", [b"", b"n,d,loss\n1,2,3\n", b"\x1f\x8b\x08\x00 broken", b"PK\x03\x04 broken"])
def test_what_is_not_compressed_says_so(tmp_path, suffix, content):
    path = tmp_path / f"runs{suffix}"
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"can't be (decompressed|read as a table)|no rows|no column"):
        read_table(path, COLUMNS)


def test_a_truncated_file_says_so(tmp_path):
    content = gzip.compress(table().to_csv(index=False).encode())
    (tmp_path / "runs.csv.gz").write_bytes(content[: len(content) // 2])
    with pytest.raises(InputError, match=r"can't be decompressed.*complete"):
        read_table(tmp_path / "runs.csv.gz", COLUMNS)


def test_an_archive_of_two_tables_says_so(tmp_path):
    with zipfile.ZipFile(tmp_path / "runs.csv.zip", "w") as archive:
        archive.writestr("a.csv", "n,d,loss\n")
        archive.writestr("b.csv", "n,d,loss\n")
    with pytest.raises(InputError, match="holds 2 files"):
        read_table(tmp_path / "runs.csv.zip", COLUMNS)


def test_a_large_table_is_read_in_parts_alike_and_says_how_far(tmp_path, monkeypatch):
    monkeypatch.setattr(bounded_files, "_FREE_BYTES", 2**12)
    monkeypatch.setattr(bounded_files, "_PART_BYTES", 2**13)
    rng = np.random.default_rng(0)
    wide = pd.DataFrame({"n": 10 ** rng.uniform(7, 9, 2_000), "d": 10 ** rng.uniform(9, 11, 2_000), "text": "x" * 30})
    wide["loss"] = 1.7 + 400 / wide["n"] ** 0.34 + 410 / wide["d"] ** 0.28
    wide.to_csv(tmp_path / "runs.csv", index=False)
    said = []
    runs = read_table(tmp_path / "runs.csv", COLUMNS, progress=said.append).runs
    np.testing.assert_array_equal(runs[["N", "D", "prose"]], wide[["n", "d", "loss"]])
    assert said[0].startswith("reading runs.csv")
    assert any("% of runs.csv is read" in line for line in said)


def test_twenty_thousand_columns_are_read(tmp_path):
    rng = np.random.default_rng(0)
    names = ["n", "d", "loss", *(f"metric_{at}" for at in range(20_000))]
    buffer = io.StringIO()
    buffer.write(",".join(names) + "\n")
    for row in table(8).to_numpy():
        buffer.write(",".join(map(repr, [*row.tolist(), *rng.normal(size=20_000).round(2).tolist()])) + "\n")
    (tmp_path / "wide.csv").write_text(buffer.getvalue())
    assert len(read_table(tmp_path / "wide.csv", COLUMNS).runs) == 8
