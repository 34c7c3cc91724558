"""The law in the model registry: a pyfunc from code, whose only artifact is the document of the law."""

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

_NEEDS = ("numpy", "scipy", "pandas", "pydantic")
_FOLDER = "law"
_INPUTS = ("n_params", "n_tokens")
_OUTPUTS = (*_INPUTS, "loss", "lo", "hi", "new_lo", "new_hi")
_ADDRESS = re.compile(r"models:/([^/@]+)(?:@([^/@]+)|/(\d+))")
CHAMPION = "champion"  # the alias of the newest version


def register_law(
    store: Store, run_id: str, name: str, document: str, *, note: str, tags: Mapping[str, str] | None = None
) -> str:
    """Save the law with a run, register it as the champion, and return its address, ``models:/NAME/VERSION``.

    Args:
        store: store of the run.
        run_id: id of the run that fitted the law.
        name: name of the registered model; every call makes a new version.
        document: the fitted laws as JSON text.
        note: markdown for the UI.
        tags: tags of the version.

    Raises:
        TrackingError: the store failed, or takes no models.
        FitError: there is no law in the document.
    """
    if not json.loads(document)["skills"]:
        raise FitError(
            f"no law could be fitted, so there is none to register as {name}. The lines above say what the fits refused"
        )
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
    """Return the document of a registered law as JSON text, by ``models:/NAME@ALIAS`` or ``models:/NAME/VERSION``.

    Raises:
        InputError: the address can't be read.
        TrackingError: the store has no such model, or it is no law of skillscale.
    """
    match = _ADDRESS.fullmatch(address)
    if not match:
        raise InputError(f"{address!r} names no registered law. Write models:/NAME@champion, or models:/NAME/VERSION")
    from mlflow.exceptions import MlflowException
    from mlflow.tracking import MlflowClient

    client, (name, alias, version) = MlflowClient(store.uri), match.groups()
    with tempfile.TemporaryDirectory() as folder, reaching(store.uri):
        try:
            model = client.get_model_version_by_alias(name, alias) if alias else client.get_model_version(name, version)
            file = client.download_artifacts(model.run_id or "", f"{_FOLDER}/artifacts/law.json", folder)
        except (MlflowException, OSError) as error:
            why = getattr(error, "message", str(error))
            raise TrackingError(
                f"there is no law {address} to read: {why}. `skillscale fit --register NAME` makes one"
            ) from error
        return Path(file).read_text(encoding="utf-8")


def _save(folder: Path, saved: Path, document: str) -> None:
    """Write the model with a copy of the package, so that it loads without an installation of skillscale.

    The copy is complete, because Python finds it before an installed package.
    """
    package, text = Path(skillscale.__file__).parent, folder / "law.json"
    text.write_text(document, encoding="utf-8")
    needs = [f"{name}=={metadata.version(name)}" for name in _NEEDS]
    with warnings.catch_warnings():
        # About MLflow's own type hints, and about what its check of the example does with pandas 3
        warnings.simplefilter("ignore", UserWarning)
        warnings.simplefilter("ignore", DeprecationWarning)
        import mlflow.pyfunc

        mlflow.pyfunc.save_model(
            path=str(saved), python_model=str(package / "tracking" / "law_pyfunc.py"), artifacts={"law": str(text)},
            code_paths=[str(package)], signature=_signature(document), pip_requirements=needs,
            input_example=_example(document),
        )  # fmt: skip


def _example(document: str) -> Any:
    """Return a frame with one row: the centre of the runs, at their mean mix."""
    import pandas as pd

    laws = list(json.loads(document)["skills"].values())
    shares = {f"mix/{name}": share for law in laws for name, share in law["mix"].items()}
    sizes = (float(f"{math.exp(laws[0][centre]):.3g}") for centre in ("x0", "y0"))
    return pd.DataFrame([dict(zip(_INPUTS, sizes, strict=True)) | shares])


def _categories(law: dict[str, Any]) -> tuple[str, ...]:
    """Return the categories of the mix on which a skill's predictions depend, by its law, mix effects or rival laws."""
    parts = (law, law.get("effects") or {}, *(law.get("rivals") or ()))
    return tuple(category for part in parts for category in part.get("categories") or ())


def _signature(document: str) -> Any:
    """Return the signature: N and D are required, the skill and the shares of the mix are optional."""
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, Schema

    laws = json.loads(document)["skills"].values()
    shares = sorted({f"mix/{category}" for law in laws for category in _categories(law)})
    inputs: list[Any] = [ColSpec("double", name) for name in _INPUTS]
    inputs += [ColSpec("string", "skill", required=False)]
    inputs += [ColSpec("double", share, required=False) for share in shares]
    outputs: list[Any] = [ColSpec("string", "skill"), *(ColSpec("double", name) for name in _OUTPUTS)]
    return ModelSignature(inputs=Schema(inputs), outputs=Schema(outputs))
