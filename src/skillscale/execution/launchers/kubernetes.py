"""The manifest of an indexed Kubernetes Job whose pods are workers; whoever may apply it does so."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from skillscale.errors import InputError

_OPTIONS: Mapping[str, Any] = {
    "image": "skillscale:cpu",
    "cpu": 1,
    "memory": "4Gi",
    "gpu": 0,
    "disk": "20Gi",
    "secret": "skillscale",
    "namespace": "",
}
_RETRIES = 6  # of a pod that fails by itself; those that a node takes with it don't count
_GRACE_S = 60  # a worker that is asked to end marks its run and writes a checkpoint
_USER = 1000  # that of docker/Dockerfile


def job_manifest(study: str, words: Sequence[str], workers: int, options: Mapping[str, Any]) -> dict[str, Any]:
    """A Job of the API ``batch/v1``: each index is a worker until the study's points are done.

    Addresses and passwords come from a Secret, whose keys are the variables' names. A pod whose node is lost is made
    again, and takes over what was given up; so does every other worker that has nothing left.

    Args:
        study: whose points are trained.
        words: of a worker, after ``skillscale``.
        workers: how many at once.
        options: image, cpu, memory, gpu, disk, secret, namespace.

    Raises:
        InputError: an option that there is not.
    """
    told = check_job_options(options)
    name = job_name(study)
    labels = {"app.kubernetes.io/name": "skillscale", "app.kubernetes.io/component": "worker"}
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {
            "name": name,
            **({"namespace": str(told["namespace"])} if told["namespace"] else {}),
            "labels": labels,
        },
        "spec": {
            "completionMode": "Indexed",
            "completions": workers,
            "parallelism": workers,
            "backoffLimitPerIndex": _RETRIES,
            "podFailurePolicy": {
                "rules": [{"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]}]
            },
            "template": {"metadata": {"labels": labels}, "spec": _pod(words, told)},
        },
    }


def check_job_options(options: Mapping[str, Any]) -> dict[str, Any]:
    """All options, by default where they are not given.

    Raises:
        InputError: an option that there is not.
    """
    if unknown := sorted(set(options) - set(_OPTIONS)):
        raise InputError(f"--launcher kubernetes has no option {', '.join(unknown)}; it has {', '.join(_OPTIONS)}")
    return {**_OPTIONS, **options}


def job_name(study: str) -> str:
    """A name that Kubernetes takes."""
    plain = re.sub(r"[^a-z0-9]+", "-", study.lower()).strip("-")
    return f"skillscale-{plain}"[:52].rstrip("-")  # the pod's own suffix has room within 63


def _pod(words: Sequence[str], told: Mapping[str, Any]) -> dict[str, Any]:
    gpus = {"nvidia.com/gpu": str(told["gpu"])} if told["gpu"] else {}
    resources = {"cpu": str(told["cpu"]), "memory": str(told["memory"]), **gpus}
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
                "image": str(told["image"]),
                "args": list(words),
                "envFrom": [{"secretRef": {"name": str(told["secret"])}}],
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
            {"name": "cache", "emptyDir": {"sizeLimit": str(told["disk"])}},
            {"name": "tmp", "emptyDir": {}},
            {"name": "study", "emptyDir": {}},
        ],
    }
