"""The manifest of an indexed Kubernetes Job whose pods are workers. A user with the rights applies it."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from skillscale.errors import InputError
from skillscale.formatting import did_you_mean

_OPTIONS: Mapping[str, Any] = {
    "image": "skillscale:cpu",
    "cpu": 1,
    "memory": "4Gi",
    "gpu": 0,
    "disk": "20Gi",
    "secret": "skillscale",
    "namespace": "",
}
_RETRIES = 6  # of a pod that fails by itself; a pod that is lost with its node does not count
_GRACE_S = 60  # a worker that is stopped marks its run and writes a checkpoint
_USER = 1000  # as in docker/Dockerfile


def job_manifest(study: str, argv: Sequence[str], workers: int, options: Mapping[str, Any]) -> dict[str, Any]:
    """Return a Job of the API ``batch/v1``: each index is a worker until the points of the study are done.

    Addresses and passwords come from a Secret, whose keys are the names of the variables. A pod whose node is lost is
    replaced. The new pod takes over the lost points, as does every other worker that finds no other point.

    Args:
        study: Name of the study.
        argv: Arguments of a worker, after ``skillscale``.
        workers: Number of workers.
        options: Values for image, cpu, memory, gpu, disk, secret and namespace.

    Raises:
        InputError: There is no such option.
    """
    values = check_job_options(options)
    labels = {"app.kubernetes.io/name": "skillscale", "app.kubernetes.io/component": "worker"}
    namespace = {"namespace": str(values["namespace"])} if values["namespace"] else {}
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": job_name(study), **namespace, "labels": labels},
        "spec": {
            "completionMode": "Indexed",
            "completions": workers,
            "parallelism": workers,
            "backoffLimitPerIndex": _RETRIES,
            "podFailurePolicy": {
                "rules": [{"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]}]
            },
            "template": {"metadata": {"labels": labels}, "spec": _pod(argv, values)},
        },
    }


def check_job_options(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return all options; those that are not given have their default.

    Raises:
        InputError: There is no such option.
    """
    if unknown := sorted(set(options) - set(_OPTIONS)):
        names = ", ".join(f"{name}{did_you_mean(name, _OPTIONS)}" for name in unknown)
        raise InputError(f"--launcher kubernetes has no option {names}. Its options are {', '.join(_OPTIONS)}.")
    return {**_OPTIONS, **options}


def job_name(study: str) -> str:
    """Return a name for the Job of a study, in the letters that Kubernetes allows."""
    plain = re.sub(r"[^a-z0-9]+", "-", study.lower()).strip("-")
    return f"skillscale-{plain}"[:52].rstrip("-")  # the suffix of a pod has room within 63


def _pod(argv: Sequence[str], values: Mapping[str, Any]) -> dict[str, Any]:
    gpus = {"nvidia.com/gpu": str(values["gpu"])} if values["gpu"] else {}
    resources = {"cpu": str(values["cpu"]), "memory": str(values["memory"]), **gpus}
    return {
        "restartPolicy": "Never",
        "terminationGracePeriodSeconds": _GRACE_S,
        "automountServiceAccountToken": False,
        "securityContext": {
            "runAsNonRoot": True,
            "runAsUser": _USER,
            "fsGroup": _USER,
            "seccompProfile": {"type": "RuntimeDefault"},
        },
        "containers": [
            {
                "name": "worker",
                "image": str(values["image"]),
                "args": list(argv),
                "envFrom": [{"secretRef": {"name": str(values["secret"])}}],
                "resources": {"requests": resources, "limits": resources},
                "securityContext": {
                    "allowPrivilegeEscalation": False,
                    "readOnlyRootFilesystem": True,
                    "capabilities": {"drop": ["ALL"]},
                },
                "volumeMounts": [{"name": name, "mountPath": f"/{name}"} for name in ("cache", "tmp", "study")],
                "env": [{"name": "HOME", "value": "/tmp"}],  # noqa: S108
            }
        ],
        "volumes": [
            {"name": "cache", "emptyDir": {"sizeLimit": str(values["disk"])}},
            {"name": "tmp", "emptyDir": {}},
            {"name": "study", "emptyDir": {}},
        ],
    }
