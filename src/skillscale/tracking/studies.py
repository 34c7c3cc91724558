"""The tracking store of studies: it opens and finds them, and annotates the run that ``mlflow run`` made."""

import json
import os
import re
import shlex
import shutil
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from skillscale.config import Config, resolve
from skillscale.errors import InputError, TrackingError, without_password
from skillscale.formatting import did_you_mean
from skillscale.point import check_skill_name, digest
from skillscale.record import TAG, RunState
from skillscale.tracking import pending_results
from skillscale.tracking.connection import resolve_uri, sqlite_path
from skillscale.tracking.imports import IMPORTED, ExternalRun, ImportedStudy, external_run
from skillscale.tracking.metric_files import MetricFiles
from skillscale.tracking.owner import current_owner
from skillscale.tracking.plan_notes import PlanNotes, find_plan, pack, refuse_tag_plan
from skillscale.tracking.queue import Queues
from skillscale.tracking.queue_storage import QueueAddress
from skillscale.tracking.run_writer import AnalysisWriter
from skillscale.tracking.store import RunUpdate, Store, now_ms, run_tags
from skillscale.tracking.study import ClosedRun, Study, close_dead_analyses, missing_study_error
from skillscale.tracking.ui import NOTE, analyses_view, link, runs_path, runs_view

_NAME = re.compile(r"[A-Za-z0-9][\w .+-]{0,99}")
_METRIC_NAME = re.compile(r"[\w.\- :/]+")
_STUDY_SUFFIX = "-study"
TRAINER = "trainer"  # a setting of studies whose runs a user's trainer makes
EVALUATED = "evaluated"  # a setting of studies whose runs are checkpoints that were trained elsewhere
# Without it the UI opens an experiment on its page for language-model apps
_ML_PAGE = {"mlflow.experimentKind": "custom_model_development"}
_SHOWN_DIFFERENCES = 6


class StudyStore:
    """All studies of one tracking store.

    Args:
        store: the tracking store.
        queues: where the points of its studies wait.
    """

    def __init__(self, store: Store, queues: Queues) -> None:
        self._store = store
        self._queues = queues

    @classmethod
    def open(
        cls, uri: str = "", *, cache: Path | None = None, create: bool = True, queue: str = "",
        heartbeat_timeout_s: float | None = None,
    ) -> "StudyStore":  # fmt: skip
        """Connect to a tracking store.

        Args:
            uri: tracking URI; empty: ``MLFLOW_TRACKING_URI``, or ``mlflow.db`` in the working folder.
            cache: folder for results that a store would not take, and for the locks and queues of servers; None:
                ``SKILLSCALE_CACHE``, or ``.cache/skillscale`` in the home.
            create: make a sqlite store where there is none.
            queue: address of the queue that machines share: a journal file or a database; empty: ``SKILLSCALE_QUEUE``,
                or a journal file next to a sqlite store (of a server, in the cache: for one machine).
            heartbeat_timeout_s: age of a heartbeat at which its holder is lost, s; None: the value that a study has.

        Raises:
            InputError: the address can't hold a queue.
            TrackingError: the store is unreachable, not writable, not there, or of another version of MLflow.
        """
        resolved = resolve_uri(uri)
        if not create and resolved.startswith("sqlite:") and not sqlite_path(resolved).is_file():
            raise TrackingError(f"there is no tracking store {sqlite_path(resolved)}. Give the one that holds the runs")
        folder = cache or Path(os.environ.get("SKILLSCALE_CACHE") or Path.home() / ".cache" / "skillscale")
        queues = Queues(
            QueueAddress.default(resolved, folder), QueueAddress.given(queue), heartbeat_timeout_s
        )  # fmt: skip
        return cls(Store.open(resolved, folder), queues)

    @property
    def queue(self) -> str:
        """The address of the queue that the user gave; empty if the queue is the store's default file."""
        return self._queues.address.url if self._queues.address.is_given else ""

    @property
    def uri(self) -> str:
        """The tracking URI, absolute: it holds for a process in another folder."""
        return self._store.uri

    @property
    def ui_command(self) -> str:
        """The command that starts the MLflow UI on this store, or the address of a server, without a password."""
        if self.uri.startswith("http"):
            return self.place
        neighbour = Path(sys.executable).with_name("mlflow")  # the environment need not be active
        program = "mlflow" if shutil.which("mlflow") or not neighbour.exists() else str(neighbour)
        return f"{shlex.quote(program)} ui --backend-store-uri {shlex.quote(self.place)}"

    def study_names(self) -> list[str]:
        """Return the names of the studies in the store."""
        return sorted(name for _, name, _ in self._store.experiments(f"tags.`{TAG}kind` = 'points'"))

    def study(self, name: str) -> Study:
        """Return a study of the store.

        Raises:
            TrackingError: the store has no such study; the message names the studies that it has.
        """
        points, study = self._store.find_experiment(name), self._store.find_experiment(name + _STUDY_SUFFIX)
        plan = find_plan(self._store, study[0]) if study is not None else None
        if points is None or study is None or plan is None:
            raise missing_study_error(name, self.study_names())
        return self._study(name, points[0], study[0], plan.info.run_id)

    def stored_config(self, name: str) -> Config:
        """Return the settings that the plan of a study holds: all that a worker needs.

        Raises:
            TrackingError: there is no such study, or skillscale does not train its runs.
        """
        plan_id = self.study(name).plan_id
        version = self._store.run(plan_id).data.tags.get(f"{TAG}config", "")
        if not version:
            raise TrackingError(
                f"study {name!r} holds no settings: its runs are not trained by skillscale. Give another study"
            )
        return resolve(yaml.safe_load(self._store.read_text(plan_id, f"config-{version}.yaml")))

    def open_study(self, name: str, config: Config, *, keep: bool = True) -> Study:
        """Find a study or begin it. Its budgets, sizes and seeds may grow; what its runs measure may not change.

        Args:
            name: name of the study.
            config: settings of the study.
            keep: write the settings for later workers. A worker does not: some settings hold for its machine.

        Raises:
            InputError: the name can't be used, or the study was begun with other settings or by version 0.1.
            TrackingError: the store failed.
        """
        check_names(name, _metric_names(config))
        with self._queues.lock(f"study {name!r}"):
            study, plan_tags = self._find_or_begin(name, _settings(config))
            if keep:
                self._write_config(study.plan_id, plan_tags.get(f"{TAG}config", ""), config)
        return study

    def open_trainer_study(self, name: str, *, trainer: str, skills: Sequence[str]) -> Study:
        """Find or begin a study whose runs a user's trainer makes.

        Args:
            name: name of the study.
            trainer: ``FILE.py:function``; another function needs another study.
            skills: skills whose losses it returns.

        Raises:
            InputError: the name can't be used, or the study has another trainer or other skills.
            TrackingError: the store failed.
        """
        check_names(name, skills)
        for skill in skills:
            check_skill_name(skill)
        with self._queues.lock(f"study {name!r}"):
            return self._find_or_begin(name, {TRAINER: trainer, "skills": sorted(skills)})[0]

    def trainer_skills(self, study: Study) -> tuple[str, ...] | None:
        """Return the skills of a study whose runs a user's trainer makes; None for other studies."""
        stored = study.notes.settings()
        return tuple(stored["skills"]) if TRAINER in stored else None

    def open_evaluated(self, name: str, measured: Mapping[str, Any], *, metrics: Iterable[str]) -> Study:
        """Find or begin a study whose runs are checkpoints that were trained elsewhere.

        Args:
            name: name of the study.
            measured: plain values that decide what is measured, the same for every run.
            metrics: names of the skills, sets and mixes to be written.

        Raises:
            InputError: a name can't be used, or the study holds other runs or was begun with other settings.
            TrackingError: the store failed.
        """
        check_names(name, metrics)
        settings = dict(_flat("", json.loads(json.dumps(measured))))
        with self._queues.lock(f"study {name!r}"):
            study = self._find_or_begin(name, {EVALUATED: True, **settings})[0]
            if study.notes.get_json(EVALUATED) is None:
                study.notes.put_json(EVALUATED, measured)
        return study

    def evaluated(self, study: Study) -> Mapping[str, Any] | None:
        """Return the ``measured`` values of ``open_evaluated``; None for a study of other runs."""
        measured: Mapping[str, Any] | None = study.notes.get_json(EVALUATED)
        return measured

    def _find_or_begin(self, name: str, settings: Mapping[str, Any]) -> tuple[Study, Mapping[str, str]]:
        """Return a study that was found or begun with these settings, and the tags of its plan."""
        self.flush_pending()
        points = self._experiment(name, "points")
        study = self._experiment(name + _STUDY_SUFFIX, "study")
        plan = find_plan(self._store, study)
        if plan is None:
            return self._study(name, points, study, self._begin(study, points, name, settings)), {}
        refuse_tag_plan(name, plan.data.tags)
        stored = PlanNotes(self._store, plan.info.run_id).settings()
        if IMPORTED in stored:
            raise InputError(
                f"study {name!r} holds imported runs, and training can't add to them. Give another study name with "
                "--study.name NAME"
            )
        if any((kind in stored) != (kind in settings) for kind in (TRAINER, EVALUATED)):
            raise InputError(
                f"the runs of study {name!r} are {_describe_origin(stored)}, and other runs are not comparable. Give "
                "another study name with --study.name NAME"
            )
        _refuse_differences(name, stored, settings)
        return self._study(name, points, study, plan.info.run_id), plan.data.tags

    def open_imports(self, name: str, *, metrics: Iterable[str] = ()) -> ImportedStudy:
        """Find the imported runs of a study, or begin a study for them.

        Args:
            name: name of the study, which holds imported runs alone.
            metrics: names of the skills and categories to be written.

        Raises:
            InputError: a name can't be used, or the study was begun by training.
            TrackingError: the store failed.
        """
        check_names(name, metrics)
        with self._store.locked():
            points = self._experiment(name, "points")
            study = self._experiment(name + _STUDY_SUFFIX, "study")
            plan = find_plan(self._store, study)
            if plan is not None and IMPORTED not in PlanNotes(self._store, plan.info.run_id).settings():
                raise InputError(
                    f"study {name!r} was begun by training, so imported runs differ. Import into another study"
                )
            plan_id = plan.info.run_id if plan is not None else self._begin(study, points, name, {IMPORTED: True})
        return ImportedStudy(self._store, self._study(name, points, study, plan_id))

    def imports(self, study: Study) -> ImportedStudy | None:
        """Return the imported runs of a study; None if it was begun by training."""
        return ImportedStudy(self._store, study) if IMPORTED in study.notes.settings() else None

    def experiment_runs(self, name: str) -> list[ExternalRun]:
        """Return the runs of any experiment, oldest first.

        Raises:
            InputError: the store has no such experiment; the message names those that it has.
        """
        experiment = self._store.find_experiment(name)
        if experiment is None:
            present = sorted(other for _, other, _ in self._store.experiments(""))
            near = did_you_mean(name, present)
            raise InputError(f"{self.place} has no experiment {name!r}{near}. It has {', '.join(present)}")
        return [external_run(*item) for item in MetricFiles(self._store).read(self._store.read(experiment[0]))]

    def law_text(self, address: str) -> str:
        """Return the document of a registered law as JSON text, by ``models:/NAME@ALIAS`` or ``models:/NAME/VERSION``.

        Raises:
            InputError: the address can't be read.
            TrackingError: the store has no such model, or it is no law of skillscale.
        """
        from skillscale.tracking.model_registry import registered_law

        return registered_law(self._store, address)

    def open_law_run(self, name: str, kind: str = "fit") -> AnalysisWriter:
        """Open a run for laws of no study of this store, or for a plan by them, in the experiment ``NAME-laws``.

        Raises:
            InputError: the name can't be used.
            TrackingError: the store failed.
        """
        check_names(name, ())
        experiment = self._experiment(f"{name}-laws", "laws")
        close_dead_analyses(self._store, experiment)
        tags = {"kind": kind, "state": str(RunState.RUNNING), "owner": current_owner()}
        run_id = self._store.create_run(experiment, kind, run_tags(tags))
        return AnalysisWriter(self._store, run_id, experiment)

    def close_stale_laws(self) -> list[tuple[str, ClosedRun]]:
        """Close the runs of laws of no study whose process on this machine is gone; return them with their name."""
        experiments = self._store.experiments(f"tags.`{TAG}kind` = 'laws'")
        return [(name, run) for number, name, _ in experiments for run in close_dead_analyses(self._store, number)]

    @property
    def place(self) -> str:
        """The tracking URI as it may be shown."""
        return without_password(self.uri)

    def gather_statistics(self) -> None:
        """Keep the sorting of the MLflow UI quick on sqlite after many runs, if the database can be written."""
        self._store.gather_statistics()

    def flush_pending(self) -> list[str]:
        """Write the results that the store did not take earlier; return the ids of the runs that were closed."""
        if not pending_results.has_pending(self._store):
            return []
        with self._store.locked():
            return pending_results.flush_pending(self._store)

    def annotate_mlflow_project_run(
        self, study: Study | None, *, note: str, tags: Mapping[str, str] | None = None, result: object = None,
        metrics: Mapping[str, float] | None = None,
    ) -> bool:  # fmt: skip
        """Write the outcome to the run that ``mlflow run`` made for this process; return False if there is none.

        Its params are those of the entry point, so skillscale adds metrics, tags, a note and a file alone.
        """
        run_id = os.environ.get("MLFLOW_RUN_ID", "")
        if not run_id or self._store.find_run(run_id) is None:
            return False
        full_tags = {f"{TAG}{key}": value for key, value in (tags or {}).items()}
        if study is not None:
            full_tags[f"{TAG}study"] = study.name
            note = f"{note}\n\n{link(f'Runs of study {study.name}', study.runs_path)}"
        at, full_tags = now_ms(), full_tags | {f"{TAG}kind": "launcher", NOTE: note}
        numbers = tuple((key, float(value), at, 0) for key, value in (metrics or {}).items())
        self._store.write(run_id, RunUpdate(metrics=numbers, tags=full_tags))
        if result is not None:
            self._store.write_text(run_id, json.dumps(result, indent=2), "skillscale/result.json")
        return True

    def _study(self, name: str, points: str, study: str, plan_id: str) -> Study:
        return Study(
            self._store, name=name, experiment_id=points, study_experiment_id=study, plan_id=plan_id,
            queues=self._queues,
        )  # fmt: skip

    def _experiment(self, name: str, kind: str) -> str:
        experiment = self._store.find_experiment(name)
        stored = experiment[1].get(f"{TAG}kind") if experiment is not None else None
        if stored not in (None, kind):
            raise InputError(f"experiment {name!r} holds the {stored} of another study. Give another study name")
        if experiment is not None and stored == kind:
            return experiment[0]
        experiment_id = experiment[0] if experiment is not None else self._store.create_experiment(name)
        self._store.tag_experiment(experiment_id, {f"{TAG}kind": kind, **_ML_PAGE})
        return experiment_id

    def _begin(self, study: str, points: str, name: str, settings: Mapping[str, Any]) -> str:
        runs = link(name, runs_path(points))
        analyses = link(f"{name}{_STUDY_SUFFIX}", runs_path(study, charts=False))
        note = f"Study {name}: one run for each point in {runs}; its plan, fits and reports in {analyses}."
        for experiment_id, view in ((points, runs_view(())), (study, analyses_view(()))):
            self._store.tag_experiment(experiment_id, {NOTE: note, f"{TAG}study": name, **view})
        tags = run_tags({"study": name, "kind": "plan", "state": "finished"}) | {NOTE: note}
        packed = pack("settings", json.dumps(settings, sort_keys=True))
        # In the call that makes the run, so that no process sees a plan without its settings
        plan_id = self._store.create_run(study, "plan", tags | packed)
        self._store.set_status(plan_id, "FINISHED")
        return plan_id

    def _write_config(self, plan_id: str, last: str, config: Config) -> None:
        """Write the resolved settings as a new version, if budgets or seeds have grown."""
        name = digest(config.as_dict())
        if name == last:
            return
        self._store.write_text(plan_id, yaml.safe_dump(config.as_dict(), sort_keys=False), f"config-{name}.yaml")
        self._store.write(plan_id, RunUpdate(tags={f"{TAG}config": name}))


def _describe_origin(settings: Mapping[str, Any]) -> str:
    """Return who made the runs of a study, by its settings."""
    if EVALUATED in settings:
        return "checkpoints of models that were trained elsewhere"
    return f"made by the trainer {settings[TRAINER]}" if TRAINER in settings else "made by skillscale itself"


def _settings(config: Config) -> dict[str, Any]:
    """Return what all runs of a study must share, as flat keys; the first mix is the study's base."""
    measured = dict(_flat("", json.loads(json.dumps(config.measured_dict))))
    return measured | {"study.mixes.0": str(config.study.mix_values[0])}


def _flat(place: str, value: Any) -> list[tuple[str, Any]]:
    """Return the leaves of nested dicts and lists by dotted key; a dict in a list has its ``name`` or place as key."""
    if isinstance(value, dict) and value:
        return [leaf for key, item in value.items() for leaf in _flat(f"{place}.{key}".lstrip("."), item)]
    if isinstance(value, list) and any(isinstance(item, dict) for item in value):
        named = [(item.get("name") or str(at), item) for at, item in enumerate(value)]
        return [leaf for key, item in named for leaf in _flat(f"{place}.{key}", item)]
    return [(place, value)]


def _refuse_differences(name: str, stored: Mapping[str, Any], given: Mapping[str, Any]) -> None:
    absent = object()
    keys = [key for key in sorted({*stored, *given}) if stored.get(key, absent) != given.get(key, absent)]
    if not keys:
        return
    shown = [f"{key} was {stored.get(key, 'absent')!r}, now {given.get(key, 'absent')!r}" for key in keys]
    listed = "; ".join(shown[:_SHOWN_DIFFERENCES])
    more = f"; and {len(keys) - _SHOWN_DIFFERENCES} more" if len(keys) > _SHOWN_DIFFERENCES else ""
    raise InputError(
        f"study {name!r} was begun with other settings: {listed}{more}. Its runs would "
        "not be comparable. Give the stored values, or another study name with --study.name NAME"
    )


def check_names(name: str, metrics: Iterable[str]) -> None:
    """Refuse names that MLflow refuses.

    Raises:
        InputError: a name can't be used.
    """
    if not _NAME.fullmatch(name):
        raise InputError(
            f"study name {name!r} can't be used. Use letters, digits, space and . _ + -, and begin with a letter"
        )
    for metric in metrics:
        if not _METRIC_NAME.fullmatch(metric):
            raise InputError(f"{metric!r} can't name a metric of MLflow. Use letters, digits, space and . _ - : /")


def _metric_names(config: Config) -> list[str]:
    names = [*config.data.category_names, *(item_set.name for item_set in config.skills.sets)]
    return names + [skill.name for skill in config.skills.skills]
