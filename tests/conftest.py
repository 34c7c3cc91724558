"""Set before any library reads them: tests send nothing anywhere and use two threads at most."""

import os

os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
os.environ.setdefault("OMP_NUM_THREADS", "1")
