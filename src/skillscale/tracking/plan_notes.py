"""The plan run of a study: its settings, its data, and plain values that commands keep with it, as tags."""

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from skillscale.errors import InputError, TrackingError, show
from skillscale.formatting import shorten
from skillscale.record import TAG
from skillscale.tracking.store import RunUpdate, Store, now_ms, tag
from skillscale.tracking.ui import NOTE

if TYPE_CHECKING:
    from mlflow.entities import Run

_CHUNK = 4000  # MLflow takes tags of 5000 characters on old servers, 8000 on new ones
_DATA_FILE = "data.json"
_DESCRIBED = f"{TAG}described"  # time of the last description, ms
_QUEUE = f"{TAG}queue"


class PlanNotes:
    """The tags and files of a study's plan run."""

    def __init__(self, store: Store, plan_id: str) -> None:
        self.plan_id = plan_id
        self._store = store

    def settings(self) -> dict[str, Any]:
        """Return what all runs of the study share, as flat keys."""
        settings: dict[str, Any] = self._read_json("settings", "".join(unpack(self._tags(), "settings")))
        return settings

    def began_ms(self) -> int:
        """Return when the study was begun, ms since the epoch."""
        return int(self._store.run(self.plan_id).info.start_time or 0)

    def described_ms(self) -> int:
        """Return when the study was last described, ms since the epoch; 0 for never."""
        text = self._tags().get(_DESCRIBED, "")
        return int(text) if text.isdecimal() else 0

    def set_description(self, markdown: str) -> None:
        """Show markdown on the plan run, and keep the time."""
        self._store.write(self.plan_id, RunUpdate(tags={NOTE: markdown, _DESCRIBED: str(now_ms())}))

    def get_json(self, name: str) -> Any:
        """Return the values that ``put_json`` wrote under a name; None if there are none."""
        text = "".join(unpack(self._tags(), name))
        return self._read_json(name, text) if text else None

    def _read_json(self, name: str, text: str) -> Any:
        try:
            return json.loads(text)
        except (ValueError, RecursionError) as error:
            raise TrackingError(
                f"the tags {TAG}{name}.* of the plan of this study (run {self.plan_id}) are damaged: "
                f"{show(shorten(text, 80))}. Restore them, or begin another study"
            ) from error

    def put_json(self, name: str, value: object) -> None:
        """Write plain values under a name, in place of the values there."""
        old = [key for key in self._tags() if key.startswith(f"{TAG}{name}.")]
        self._store.write(self.plan_id, RunUpdate(tags=dict.fromkeys(old, "") | pack(name, json.dumps(value))))

    def bind_data(self, study: str, data_hash: str, description: str = "") -> None:
        """Bind the study to its prepared data at first, and refuse other data later.

        Args:
            study: name of the study, for the message.
            data_hash: name of the data by their content.
            description: JSON text about the data, which is written once.

        Raises:
            InputError: the study was begun on other data or another tokenizer.
        """
        plan = self._store.run(self.plan_id)
        stored = tag(plan, "data_hash")
        if not stored:
            self._store.write(self.plan_id, RunUpdate(tags={f"{TAG}data_hash": data_hash}))
        elif stored != data_hash:
            raise InputError(
                f"study {study!r} was begun on other data or another tokenizer: data_hash was {stored}, now "
                f"{data_hash}. Put back the data files, or give another study name with --study.name NAME"
            )
        if description and not tag(plan, "data_described"):
            self._store.write_text(self.plan_id, description, _DATA_FILE)
            self._store.write(self.plan_id, RunUpdate(tags={f"{TAG}data_described": _DATA_FILE}))

    def data_description(self) -> str:
        """Return the JSON text about the data that ``bind_data`` wrote; empty if there is none."""
        name = tag(self._store.run(self.plan_id), "data_described")
        return self._store.read_text(self.plan_id, name) if name else ""

    def queue_place(self) -> str:
        """Return where the study's queue is, in the words of ``set_queue_place``; empty if there is none yet."""
        return self._tags().get(_QUEUE, "")

    def set_queue_place(self, place: str) -> None:
        """Write where the study's queue is."""
        self._store.write(self.plan_id, RunUpdate(tags={_QUEUE: place}))

    def check_trainable(self, study: str) -> None:
        """Refuse a study whose points are in tags of its plan, as version 0.1 kept them.

        Raises:
            InputError: the study is of version 0.1.
        """
        refuse_tag_plan(study, self._tags())

    def _tags(self) -> dict[str, str]:
        tags: dict[str, str] = self._store.run(self.plan_id).data.tags
        return tags


def refuse_tag_plan(study: str, tags: Mapping[str, str]) -> None:
    """Refuse to train points of a plan that keeps them in its tags, as version 0.1 did.

    Raises:
        InputError: the plan is of version 0.1.
    """
    if unpack(tags, "points") and _QUEUE not in tags:
        raise InputError(
            f"study {study!r} was begun by skillscale 0.1, and this version trains no more points of it. Its runs can "
            "still be fitted, planned from and reported. Train into another study with --study.name NAME"
        )


def part_key(name: str, at: int) -> str:
    """Return the tag of a part of a text that is too long for one tag."""
    return f"{TAG}{name}.{at:04d}"


def pack(name: str, text: str) -> dict[str, str]:
    """Return a long text as tags."""
    return {part_key(name, at): text[first : first + _CHUNK] for at, first in enumerate(range(0, len(text), _CHUNK))}


def unpack(tags: Mapping[str, str], name: str) -> list[str]:
    """Return the parts that were written under ``part_key``, in order."""
    return [tags[key] for key in sorted(key for key in tags if key.startswith(f"{TAG}{name}."))]


def find_plan(store: Store, experiment_id: str) -> "Run | None":
    """Return the plan run of a study: the oldest, if two machines began it at once."""
    plans = store.search([experiment_id], f"tags.`{TAG}kind` = 'plan'")
    return plans[0] if plans else None
