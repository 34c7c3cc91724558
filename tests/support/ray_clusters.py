"""A Ray cluster of several nodes on one machine."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

QUIET = pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::DeprecationWarning", "ignore::FutureWarning")


@contextmanager
def three_nodes() -> Iterator[tuple[Any, list[Any]]]:
    """Start a cluster: a head without CPUs, and three nodes of one CPU each."""
    ray = pytest.importorskip("ray", reason="pip install -c constraints.txt -e '.[ray]'")
    from ray.cluster_utils import Cluster

    # No usage report; and a busy machine starts the agents slowly
    os.environ.update(RAY_USAGE_STATS_ENABLED="0", RAY_agent_register_timeout_ms="300000")
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    try:
        yield cluster, [cluster.add_node(num_cpus=1) for _ in range(3)]
    finally:
        ray.shutdown()
        cluster.shutdown()


def node_of(nodes: list[Any], pid: int) -> Any:
    """Return the node that a process was started on, by its ancestors."""
    node_by_pid = {
        process.process.pid: node for node in nodes for group in node.all_processes.values() for process in group
    }
    while pid not in node_by_pid:
        pid = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
        assert pid > 1, "the process is on no node"
    return node_by_pid[pid]
