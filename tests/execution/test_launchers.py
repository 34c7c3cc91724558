"""Launchers start what they are told with its environment, end it when asked, and write no address down."""

import json
import os
import re
import shlex
import signal
import stat
import sys
import time
from pathlib import Path

import pytest
import ray_clusters
import yaml
from storages import PASSWORD

from skillscale import cli
from skillscale.config import readers
from skillscale.config.options import UserTrainerOptions, WorkerPoolOptions
from skillscale.errors import InputError
from skillscale.execution import launchers
from skillscale.execution.launchers import launcher
from skillscale.execution.launchers.kubernetes import job_manifest, job_name
from skillscale.execution.launchers.local import PARENT, Local, visible_gpus
from skillscale.execution.worker_pool import WorkerPool

ADDRESS = f"postgresql+psycopg2://me:{PASSWORD}@host/x"
ENVIRONMENT = {"SKILLSCALE_QUEUE": ADDRESS, "MLFLOW_TRACKING_URI": "http://host:5000"}
WORDS = ["worker", "--study", "main", "--retry_failed", "false", "--sampled_only", "false", "--wait_for_others", "true"]


def worker_script(folder: Path, then: str = "") -> list[str]:
    """Words of a worker that writes down what it was given, and goes on with ``then``."""
    names = ("SKILLSCALE_QUEUE", "MLFLOW_TRACKING_URI", PARENT)
    script = folder / "worker.py"
    script.write_text(
        "import json, os, pathlib, signal, sys, time\n"
        f"path = pathlib.Path({str(folder)!r}) / f'told-{{os.getpid()}}.part'\n"
        f"path.write_text(json.dumps([[os.environ.get(name) for name in {names!r}], os.getppid(), sys.argv[1:]]))\n"
        "path.rename(path.with_suffix('.json'))\n" + then
    )
    return [str(script), "one", "two"]


def wait_for(condition, seconds=120.0):
    until = time.monotonic() + seconds
    while not (outcome := condition()):
        assert time.monotonic() < until, "waited in vain"
        time.sleep(0.1)
    return outcome


def check_told(folder):
    (path,) = wait_for(lambda: list(folder.glob("told-*.json")))
    (queue, tracking, parent), starter, words = json.loads(path.read_text())
    assert (queue, tracking) == (ADDRESS, "http://host:5000")
    assert parent == str(starter), "it would end with who started it"
    assert words == ["one", "two"]
    return int(path.stem.removeprefix("told-"))


def is_gone(pid):
    try:
        os.kill(pid, 0)
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):  # it ends between the two looks
        return True


def written_secrets(folder):
    """Files, but for what the worker itself wrote down, and what submitit is about to rename."""
    files = [path for path in folder.rglob("*") if path.is_file() and path.suffix != ".save_tmp"]
    paths = [path for path in files if not path.name.startswith("told-")]
    assert paths
    return [path.name for path in paths if PASSWORD.encode() in path.read_bytes()]


def test_a_local_worker_has_the_addresses_and_ends_when_asked(tmp_path):
    worker = launcher("local", {}, tmp_path).start(worker_script(tmp_path, "time.sleep(60)\n"), ENVIRONMENT)
    check_told(tmp_path)
    assert worker.poll() is None
    worker.send_signal(signal.SIGTERM)
    assert worker.wait() == -signal.SIGTERM
    assert "SKILLSCALE_QUEUE" not in os.environ


def gpus_of_workers(folder, count, **told_to):
    """What CUDA_VISIBLE_DEVICES is in workers that a launcher of this process starts."""
    launchers._launcher.cache_clear()
    requested = launcher("local", {}, folder, **told_to)
    code = "import os, pathlib, sys; pathlib.Path(sys.argv[1]).write_text(os.environ.get('CUDA_VISIBLE_DEVICES', '-'))"
    workers = [requested.start(["-c", code, str(folder / f"gpu-{number}")], {}) for number in range(count)]
    assert [worker.wait() for worker in workers] == [0] * count
    return [(folder / f"gpu-{number}").read_text() for number in range(count)]


def test_local_workers_share_out_the_gpus_of_the_machine(tmp_path, monkeypatch):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr("skillscale.execution.launchers.local.visible_gpus", lambda: ["GPU-a", "GPU-b", "GPU-c"])
    assert gpus_of_workers(tmp_path, 4) == ["GPU-a", "GPU-b", "GPU-c", "GPU-a"]
    assert gpus_of_workers(tmp_path, 2, devices=2) == ["GPU-a,GPU-b", "GPU-c,GPU-a"]
    monkeypatch.setattr("skillscale.execution.launchers.local.visible_gpus", list)
    assert gpus_of_workers(tmp_path, 2) == ["-", "-"]


def test_the_gpus_are_those_that_are_left_to_us(tmp_path, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2, 3")
    assert gpus_of_workers(tmp_path, 3) == ["2", "3", "2"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert gpus_of_workers(tmp_path, 1) == [""]
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert visible_gpus() == []
    smi = tmp_path / "nvidia-smi"
    smi.write_text("#!/bin/sh\necho GPU-one\necho GPU-two\n")
    smi.chmod(0o755)
    assert visible_gpus() == ["GPU-one", "GPU-two"]
    smi.write_text("#!/bin/sh\necho 'NVIDIA-SMI has failed'; exit 9\n")
    assert visible_gpus() == []


def test_a_worker_within_a_job_keeps_the_gpus_of_the_job(tmp_path, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,5")
    code = "import os, sys; sys.exit(os.environ['CUDA_VISIBLE_DEVICES'] != '4,5')"
    assert Local().start(["-c", code], {}).wait() == 0


def test_a_local_launcher_has_no_options(tmp_path):
    with pytest.raises(InputError, match="num_gpus"):
        launcher("local", {"num_gpus": 1}, tmp_path)


def test_slurm_jobs_of_this_machine_are_started_and_cancelled(tmp_path):
    pytest.importorskip("submitit")
    slurm = launcher("slurm", {"cluster": "local", "timeout_min": 5}, tmp_path / "jobs")
    ended = slurm.start(worker_script(tmp_path), ENVIRONMENT)
    check_told(tmp_path)
    assert ended.wait() == 0
    (tmp_path / "long").mkdir()
    endless = slurm.start(worker_script(tmp_path / "long", "time.sleep(60)\n"), ENVIRONMENT)
    pid = check_told(tmp_path / "long")
    endless.send_signal(signal.SIGTERM)
    wait_for(lambda: endless.poll() is not None and is_gone(pid))
    assert written_secrets(tmp_path) == []
    assert "SKILLSCALE_QUEUE" not in os.environ


STAND_INS = {
    # A job is a process group; the script goes on in it with the variables that SLURM sets
    "sbatch": """
        cp "$1" "$STAND_IN/script.$$"
        export SLURM_JOB_ID=$$ SLURM_NTASKS=1 SLURM_JOB_NUM_NODES=1 SLURM_NODEID=0 SLURM_JOB_NODELIST=here
        export SLURM_PROCID=0 SLURM_LOCALID=0
        setsid bash "$1" >"$STAND_IN/log.$$" 2>&1 </dev/null &
        echo $! >"$STAND_IN/group.$$"
        echo "Submitted batch job $$"
    """,
    "srun": """
        while [[ "$1" == --* ]]; do case "$1" in --output|--error) shift 2;; *) shift;; esac; done
        exec "$@"
    """,
    "scancel": """
        kill -TERM -- "-$(cat "$STAND_IN/group.${@: -1}")"
    """,
    "sacct": """
        echo "JobID|State|NodeList"
        while (($#)); do if [[ "$1" == -j ]]; then
            state=RUNNING; kill -0 -- "-$(cat "$STAND_IN/group.$2")" 2>/dev/null || state=CANCELLED
            echo "$2|$state|here"; shift; fi; shift; done
    """,
}


@pytest.fixture
def slurm_on_path(tmp_path, monkeypatch):
    """A stand-in for the commands of SLURM."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name, body in STAND_INS.items():
        path = folder / name
        path.write_text(f"#!/bin/bash\n{body}")
        path.chmod(path.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("STAND_IN", str(folder))
    return folder


def test_slurm_gets_jobs_by_sbatch_with_the_resources_asked_for(tmp_path, slurm_on_path):
    pytest.importorskip("submitit")
    requested = {"timeout_min": 90, "cpus_per_task": 2, "gpus_per_node": 1, "slurm_partition": "short"}
    slurm = launcher("slurm", requested, tmp_path / "jobs")
    job_ = slurm.start(worker_script(tmp_path, "time.sleep(60)\n"), ENVIRONMENT)
    pid = check_told(tmp_path)
    (script,) = slurm_on_path.glob("script.*")
    lines = script.read_text().splitlines()
    for line in ("--time=90", "--cpus-per-task=2", "--gpus-per-node=1", "--partition=short", "--job-name=skillscale"):
        assert f"#SBATCH {line}" in lines
    assert job_.poll() is None
    job_.send_signal(signal.SIGTERM)
    wait_for(lambda: is_gone(pid))
    assert written_secrets(tmp_path) == []


def test_slurm_takes_the_options_that_are_shown(tmp_path, slurm_on_path):
    """As an example in the help and on the page, without a warning."""
    pytest.importorskip("submitit")
    (shown,) = [
        parameter.help
        for entry in cli.COMMANDS
        if entry.name == "grid"
        for parameter in entry.parameters
        if parameter.name == "launcher_options"
    ]
    page = (Path(__file__).parents[2] / "docs" / "guide" / "howto" / "cluster.md").read_text()
    examples = [
        shown.rpartition("as in ")[2],
        *re.findall(r"--launch(?:er_options)? ([^`\s]*gpus_per_node[^`\s]*)", page),
    ]
    assert len(examples) >= 3
    for example in examples:
        launcher("slurm", readers.launcher_options(example), tmp_path)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"cluster": "local", "slurm_colour": "red"}, "refuses .*slurm_colour"),
        ({"timeout_min": 5}, r"no SLURM here \(srun is not found\)\. --launcher_options cluster=local"),
    ],
)
def test_slurm_refuses_what_it_has_not(tmp_path, options, says):
    pytest.importorskip("submitit")
    with pytest.raises(InputError, match=says):
        launcher("slurm", options, tmp_path)


def test_the_manifest_of_a_job_is_one_that_kubernetes_takes():
    manifest = yaml.safe_load(yaml.safe_dump(job_manifest("main", WORDS, 16, {"gpu": 1, "image": "skillscale:cuda"})))
    models = pytest.importorskip("kubernetes.client", reason="pip install kubernetes")
    read = models.V1Job.model_validate(manifest)
    # What the schema does not know is left out in reading
    assert models.ApiClient().sanitize_for_serialization(read) == manifest


def test_the_manifest_says_what_kubernetes_demands_of_an_indexed_job():
    manifest = job_manifest("main", WORDS, 16, {"gpu": 2, "cpu": 8, "memory": "32Gi", "namespace": "research"})
    spec = manifest["spec"]
    assert (manifest["apiVersion"], manifest["kind"]) == ("batch/v1", "Job")
    assert (spec["completionMode"], spec["completions"], spec["parallelism"]) == ("Indexed", 16, 16)
    pod = spec["template"]["spec"]
    assert pod["restartPolicy"] == "Never", "which backoffLimitPerIndex and podFailurePolicy demand"
    (container,) = pod["containers"]
    assert container["args"] == WORDS
    assert container["resources"]["limits"] == {"cpu": "8", "memory": "32Gi", "nvidia.com/gpu": "2"}
    assert {volume["name"] for volume in container["volumeMounts"]} == {volume["name"] for volume in pod["volumes"]}
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert container["envFrom"] == [{"secretRef": {"name": "skillscale"}}]
    assert [variable["name"] for variable in container["env"]] == ["HOME"], "addresses come from the secret alone"


def pool(study="main", launcher="kubernetes", **options):
    return WorkerPool(
        study=study, tracking="", queue="queue.journal", cache=Path("x"), options=WorkerPoolOptions(launcher=launcher),
        **options,
    )  # fmt: skip


def test_the_manifest_starts_the_worker_as_the_command_line_has_it():
    words = pool().argv(retry_failed=False, wait_for_others=True, local=False)
    assert words == WORDS
    assert cli.parse(words[1:], cli.find_command("worker", cli.COMMANDS)).options.study.study == "main"


@pytest.mark.parametrize(
    ("study", "name"),
    [("main", "skillscale-main"), ("Mix 2.0_b", "skillscale-mix-2-0-b"), ("x" * 90, "skillscale-" + "x" * 41)],
)
def test_names_of_jobs_are_names_of_hosts(study, name):
    assert job_name(study) == name


def test_kubernetes_has_no_other_options():
    with pytest.raises(InputError, match="colour"):
        job_manifest("main", WORDS, 1, {"colour": "red"})


@pytest.mark.parametrize("words", [["grid", "--study", "smoke"], ["sample", "--study", "smoke"]])
@pytest.mark.parametrize(
    ("name", "launch_", "says"),
    [
        ("slurm", "timeout_min=5", "no SLURM here"),
        ("kubernetes", "colour=red", "has no option colour"),
        ("local", "num_gpus=1", "has no options"),
    ],
)
def test_a_launcher_that_can_start_nothing_is_refused_before_anything_is_made(
    words, name, launch_, says, tmp_path, capsys
):
    pytest.importorskip("submitit")
    where = ["--tracking", f"sqlite:///{tmp_path}/a.db", "--cache", str(tmp_path / "cache")]
    where += ["--queue", f"sqlite:///{tmp_path}/q.db"]
    assert cli.main([*words, *where, "--launcher", name, "--launcher_options", launch_]) == 2
    assert says in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_the_words_to_type_are_those_that_are_no_defaults():
    worker = cli.find_command("worker", cli.COMMANDS)
    command = pool(study="my study", launcher="none").external_command()
    assert command.text.endswith(": skillscale worker --study 'my study'")
    typed = shlex.split(command.text.partition(": skillscale ")[2])
    assert cli.parse(typed[1:], worker) == cli.parse(command.argv[1:], worker)
    trainer = UserTrainerOptions(trainer="a.py:train", timeout_s=60.0)
    command = pool(launcher="none", user_trainer=trainer, sampled_only=True).external_command()
    assert command.text.endswith(" --sampled_only true --trainer a.py:train --timeout_s 60.0")


@pytest.mark.parametrize("name", ["none", "slurm", "ray", "kubernetes"])
def test_launchers_for_other_machines_want_a_storage(name, tmp_path, capsys):
    words = ["grid", "--launcher", name, "--tracking", f"sqlite:///{tmp_path}/a.db", "--cache", str(tmp_path)]
    assert cli.main(words) == 2
    assert "--queue" in capsys.readouterr().err
    assert not (tmp_path / "a.db").exists()


@pytest.fixture
def ray_nodes():
    with ray_clusters.three_nodes() as outcome:
        yield outcome


@pytest.mark.slow
@ray_clusters.QUIET
def test_ray_moves_a_worker_whose_node_is_lost(ray_nodes, tmp_path):
    cluster, nodes = ray_nodes
    ray_launcher = launcher("ray", {"address": cluster.address, "num_cpus": 1}, tmp_path)
    words = worker_script(tmp_path, f"while not os.path.exists({str(tmp_path / 'done')!r}): time.sleep(0.2)\n")
    workers = [ray_launcher.start(words, {**ENVIRONMENT, "PYTHONPATH": os.pathsep.join(sys.path)}) for _ in range(2)]
    before = wait_for(lambda: len(outcome := set(tmp_path.glob("told-*.json"))) == 2 and outcome)
    busy = _busy_nodes(nodes)
    assert len(busy) == 2, "one worker a node"
    cluster.remove_node(busy[0], allow_graceful=False)
    wait_for(lambda: len(set(tmp_path.glob("told-*.json")) - before) == 1)
    assert [worker.poll() for worker in workers] == [None, None]
    (tmp_path / "done").touch()
    assert [worker.wait() for worker in workers] == [0, 0]


def _busy_nodes(nodes):
    """Nodes that run a worker: those whose CPU is taken."""
    import ray

    taken = {
        node_id for node_id, free in ray._private.state.available_resources_per_node().items() if free.get("CPU", 0) < 1
    }
    return [node for node in nodes if node.node_id in taken]
