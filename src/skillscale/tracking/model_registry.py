"""The law in the model registry: a pyfunc made from code, with its document as the one artifact."""

import json
import math
import re
import tempfile
import warnings
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import skillscale
from skillscale.errors import FitError, InputError, TrackingError
from skillscale.tracking.connection import reaching
from skillscale.tracking.store import Store

_NEEDS = ("numpy", "scipy", "pandas")
_FOLDER = "law"
_ASKED = ("n_params", "n_tokens")
_TOLD = (*_ASKED, "loss", "lo", "hi", "new_lo", "new_hi")
_ADDRESS = re.compile(r"models:/([^/@]+)(?:@([^/@]+)|/(\d+))")
CHAMPION = "champion"  # the alias of the newest version


def register_law(
    store: Store, run_id: str, name: str, document: str, *, note: str, tags: Mapping[str, str] | None = None
) -> str:
    """Save the law with a run and register it as the champion; returns its address, ``models:/NAME/VERSION``.

    Args:
        store: of the run.
        run_id: the run that fitted it.
        name: of the registered model; every call makes a new version.
        document: the fitted laws as JSON text.
        note: markdown for the UI.
        tags: of the version.

    Raises:
        TrackingError: the store failed, or takes no models.
        FitError: there is no law in the document.
    """
    if not json.loads(document)["skills"]:
        raise FitError(f"no law could be fitted, so that there is none to register as {name}; mend what was refused")
    from mlflow.exceptions import MlflowException
    from mlflow.tracking import MlflowClient

    client = MlflowClient(store.uri)
    with tempfile.TemporaryDirectory() as folder:
        saved = Path(folder) / _FOLDER
        _save(Path(folder), saved, document)
        with reaching(store.uri):
            client.log_artifacts(run_id, str(saved), _FOLDER)
            source = f"{client.get_run(run_id).info.artifact_uri}/{_FOLDER}"
            try:
                client.create_registered_model(name, description=note)
            except MlflowException as error:
                if error.error_code != "RESOURCE_ALREADY_EXISTS":
                    raise TrackingError(f"the law can't be registered as {name!r}: {error.message}") from error
            version = client.create_model_version(
                name, source=source, run_id=run_id, description=note, tags=dict(tags or {})
            )
            client.set_registered_model_alias(name, CHAMPION, version.version)
    return f"models:/{name}/{version.version}"


def registered_law(store: Store, address: str) -> str:
    """The document of a registered law as JSON text, by ``models:/NAME@ALIAS`` or ``models:/NAME/VERSION``.

    Raises:
        InputError: the address can't be read.
        TrackingError: the store has no such model, or it is no law of ours.
    """
    found = _ADDRESS.fullmatch(address)
    if not found:
        raise InputError(f"{address!r} names no registered law; write models:/NAME@champion, or models:/NAME/VERSION")
    from mlflow.exceptions import MlflowException
    from mlflow.tracking import MlflowClient

    client, (name, alias, version) = MlflowClient(store.uri), found.groups()
    with tempfile.TemporaryDirectory() as folder, reaching(store.uri):
        try:
            one = client.get_model_version_by_alias(name, alias) if alias else client.get_model_version(name, version)
            file = client.download_artifacts(one.run_id or "", f"{_FOLDER}/artifacts/law.json", folder)
        except (MlflowException, OSError) as error:
            why = getattr(error, "message", str(error))
            raise TrackingError(f"there is no law {address} to read: {why}; `fit --register NAME` makes one") from error
        return Path(file).read_text(encoding="utf-8")


def _save(folder: Path, saved: Path, document: str) -> None:
    """Write the model with a copy of the package, so that it loads where we are not installed.

    The whole of it: whoever loads the model finds the copy before a package that is installed.
    """
    package, text = Path(skillscale.__file__).parent, folder / "law.json"
    text.write_text(document, encoding="utf-8")
    needs = [f"{one}=={metadata.version(one)}" for one in _NEEDS]
    with warnings.catch_warnings():
        # About type hints of MLflow's own, and what its check of the example does with pandas 3
        warnings.simplefilter("ignore", UserWarning)
        warnings.simplefilter("ignore", DeprecationWarning)
        import mlflow.pyfunc

        mlflow.pyfunc.save_model(
            path=str(saved), python_model=str(package / "tracking" / "law_pyfunc.py"), artifacts={"law": str(text)},
            code_paths=[str(package)], signature=_signature(document), pip_requirements=needs,
            input_example=_example(document),
        )  # fmt: skip


def _example(document: str) -> Any:
    """A frame with one question: the centre of the runs, at their mean mix."""
    import pandas as pd

    laws = list(json.loads(document)["skills"].values())
    shares = {f"mix/{name}": share for law in laws for name, share in law["mix"].items()}
    sizes = (float(f"{math.exp(laws[0][centre]):.3g}") for centre in ("x0", "y0"))
    return pd.DataFrame([dict(zip(_ASKED, sizes, strict=True)) | shares])


def _categories(law: dict[str, Any]) -> tuple[str, ...]:
    """Of the mix that a skill's predictions depend on: the law's own, or those of its mix effects or rivals."""
    parts = (law, law.get("effects") or {}, *(law.get("rivals") or ()))
    return tuple(category for part in parts for category in part.get("categories") or ())


def _signature(document: str) -> Any:
    """N and D are needed; the skill and the shares of the mix may be left out."""
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, Schema

    laws = json.loads(document)["skills"].values()
    shares = sorted({f"mix/{category}" for law in laws for category in _categories(law)})
    inputs: list[Any] = [ColSpec("double", one) for one in _ASKED]
    inputs += [ColSpec("string", "skill", required=False)]
    inputs += [ColSpec("double", share, required=False) for share in shares]
    told: list[Any] = [ColSpec("string", "skill"), *(ColSpec("double", one) for one in _TOLD)]
    return ModelSignature(inputs=Schema(inputs), outputs=Schema(told))
