"""What every test starts from: no telemetry, no network hubs, one thread, and the tables of published runs."""

import gc
import os
import shutil
import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path

# Before any test imports the libraries that read them
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")
# A store or a run named outside would receive what the tests log, and settings from outside would change what they run
for name in (
    "MLFLOW_TRACKING_URI", "MLFLOW_RUN_ID", "MLFLOW_EXPERIMENT_ID", "MLFLOW_EXPERIMENT_NAME", "SKILLSCALE_CONF",
    "SKILLSCALE_QUEUE",
):  # fmt: skip
    os.environ.pop(name, None)

# Fits that tests keep are not the user's, and no earlier run of the tests has any. Child processes share the folder
_CACHE = tempfile.TemporaryDirectory(prefix="skillscale-cache-", ignore_cleanup_errors=True)
os.environ["SKILLSCALE_CACHE"] = _CACHE.name

# Imports make millions of objects that stay. Python would search all of them for garbage again and again
gc.set_threshold(100_000)

# Tests in the background of a shell ignore Ctrl-C. The processes that they start and interrupt would ignore it too
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

import pytest

pytest.register_assert_rewrite("optuna.testing.pytest_samplers")

ROOT = Path(__file__).parents[1]


@pytest.fixture
def root() -> Path:
    """The checkout."""
    return ROOT


@pytest.fixture(scope="session")
def tables() -> Path:
    """Tables of real runs by others, which carry no licence and so are not in this repository."""
    folder = Path(os.environ.get("SKILLSCALE_TABLES") or ROOT.parent / "shared" / "data")
    if not (folder / "chinchilla_epoch.csv").is_file():
        pytest.skip(f"no tables of published runs in {folder}; set SKILLSCALE_TABLES to their folder")
    return folder


@pytest.fixture(scope="session")
def empty_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with its schema: making one takes seconds, copying it nothing."""
    from skillscale.tracking import StudyStore

    path = tmp_path_factory.mktemp("store") / "mlflow.db"
    StudyStore.open(f"sqlite:///{path}")
    return path


@pytest.fixture(scope="session", autouse=True)
def copied_schemas(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Make the tables of a new store once in a process of tests, and copy them for each later store."""
    from skillscale.tracking import new_store

    make = new_store._make_tables
    first = tmp_path_factory.mktemp("schema") / "mlflow.db"

    def copy_tables(path: Path) -> None:
        if not first.exists():
            make(first)
        shutil.copyfile(first, path)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(new_store, "_make_tables", copy_tables)
        yield
