"""Laws that a plan or an export rests on: fitted now, registered earlier, or in a law.json."""

import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from skillscale.analysis.fit_laws import FitResults, fit_laws
from skillscale.config import LawConfig, StudyConfig
from skillscale.errors import FitError, InputError
from skillscale.formatting import JsonObject, did_you_mean
from skillscale.laws.fit.request import UnfittedSkill
from skillscale.laws.fit.skill_law import FittedLaw
from skillscale.laws.io.document import LawMetadata, read_document, read_metadata
from skillscale.laws.io.schema import MAX_BYTES, parse
from skillscale.laws.optimum.ensemble import SkillLaw
from skillscale.tables.read import LoadedRuns
from skillscale.tracking import AnalysisWriter, StudyStore

_REGISTERED = "models:/"


@dataclass(frozen=True, kw_only=True)
class LoadedLaws:
    """Laws by skill, and where they come from.

    Args:
        laws: Law of each skill.
        name: Name of their study, table, file or model.
        convention: What N counts.
        aggregates: Skills that are means of others.
        unfitted: Reason of each skill without a law.
        mix: Their mix, where it is one of several that have names without shares.
        runs: The runs that they were fitted to, where they were fitted now.
        store: The store that they were read from, where they were registered.
    """

    laws: Mapping[str, SkillLaw]
    name: str
    convention: str
    aggregates: tuple[str, ...]
    unfitted: Mapping[str, str] = field(default_factory=dict)
    mix: str = ""
    runs: LoadedRuns | None = None
    store: StudyStore | None = None

    @property
    def arguments(self) -> str:
        """Options that name the runs of the laws to a command; empty where the laws are from a file."""
        if self.runs is not None:
            return self.runs.arguments
        return f"--study {shlex.quote(self.name)}" if self.store is not None else ""

    @property
    def parts(self) -> dict[str, tuple[str, ...]]:
        """Skills that each aggregate is a mean of, where the laws were fitted now."""
        return {} if self.runs is None else self.runs.table.parts

    @property
    def skills(self) -> tuple[str, ...]:
        """Skills with a law that are no aggregates."""
        return tuple(name for name in self.laws if name not in self.aggregates)

    def open_record(self) -> AnalysisWriter | None:
        """Open the run that a plan is recorded in; None for laws of a file or of a table."""
        if self.runs is not None and self.runs.study is not None:
            return self.runs.study.analysis("plan")
        return self.store.open_law_run(self.name, "plan") if self.store is not None else None


def fit_for_mix(
    runs: LoadedRuns, mix: str, laws: LawConfig, study: StudyConfig, progress: Callable[[str], None]
) -> LoadedLaws:
    """Fit the laws of some runs; of several mixes that have names without shares, those of one.

    Args:
        runs: The runs.
        mix: Name of the mix, where several have names without shares.
        laws: How to fit.
        study: Level of the intervals, and number of resamples.
        progress: Receiver of a line for a person.

    Raises:
        InputError: A name of a mix that the runs lack.
        FitError: No skill can be fitted.
    """
    groups = runs.groups
    name = require_mix(mix, list(groups)) if len(groups) > 1 else next(iter(groups))
    fitted = fit_laws(groups[name], name, laws, study)
    for note in fitted.notes:
        progress(note)
    laws_by_skill = {skill: law for skill, law in fitted.laws.items() if isinstance(law, FittedLaw)}
    unfitted = {skill: law.reason for skill, law in fitted.laws.items() if isinstance(law, UnfittedSkill)}
    unfitted |= runs.table.missing_skills
    return _loaded_laws(runs, laws_by_skill, unfitted, name if len(groups) > 1 else "")


def laws_of_results(runs: LoadedRuns, results: FitResults, mix: str) -> LoadedLaws:
    """Return the fitted laws of some runs; of several mixes that have names without shares, those of one.

    Raises:
        InputError: The runs have no mix of that name.
        FitError: No skill has a law.
    """
    named = results.metadata.mixes
    chosen = require_mix(mix, sorted(set(named.values()))) if named else ""
    laws = {name.removeprefix(f"{chosen}/"): law for name, law in results.laws.items() if named.get(name, "") == chosen}
    fitted = {name: law for name, law in laws.items() if isinstance(law, FittedLaw)}
    unfitted = {name: law.reason for name, law in laws.items() if isinstance(law, UnfittedSkill)}
    unfitted |= runs.table.missing_skills
    return _loaded_laws(runs, fitted, unfitted, chosen)


def _loaded_laws(
    runs: LoadedRuns, laws: Mapping[str, FittedLaw], unfitted: Mapping[str, str], mix: str
) -> LoadedLaws:  # fmt: skip
    if not laws:
        reasons = "; ".join(f"{skill}: {reason}" for skill, reason in unfitted.items())
        raise FitError(f"no skill can be fitted. {reasons}")
    return LoadedLaws(
        laws=laws, name=runs.name, convention=runs.convention, aggregates=tuple(runs.table.aggregates),
        unfitted=unfitted, mix=mix, runs=runs,
    )  # fmt: skip


def load_laws(address: str, tracking: str, mix: str) -> LoadedLaws:
    """Load laws that were fitted earlier.

    Args:
        address: ``models:/NAME@champion``, or the path of a law.json.
        tracking: MLflow store of registered laws.
        mix: Name of the mix, where several have names without shares.

    Raises:
        InputError: There is no such file, it holds no law, or its mixes lack the name.
        TrackingError: The store has no such model.
    """
    document, name, store = load_document(address, tracking)
    laws, metadata = read_document(document, source=address), read_metadata(document)
    if not laws:
        raise InputError(f"{address} holds no law. Fit the runs again.")
    means = [skill.rpartition("/")[2] if metadata.mixes else skill for skill in metadata.aggregates]
    return LoadedLaws(
        laws=_laws_of_mix(laws, metadata, mix), name=name, convention=metadata.convention, aggregates=tuple(means),
        mix=mix if metadata.mixes else "", store=store,
    )  # fmt: skip


def load_document(address: str, tracking: str) -> tuple[JsonObject, str, StudyStore | None]:
    """Load the JSON document of laws that were fitted earlier.

    Returns:
        The document, its name, and the store that it is from, unless it is a file.

    Raises:
        InputError: There is no such file, or it is no JSON.
        TrackingError: The store has no such model.
    """
    if address.startswith(_REGISTERED):
        store = StudyStore.open(tracking, create=False)
        name = address.removeprefix(_REGISTERED).partition("@")[0].partition("/")[0]
        return parse(store.law_text(address), address), name, store
    path = Path(address)
    if not path.is_file():
        raise InputError(f"--from {address}: there is no such file. Registered laws are named models:/NAME@champion.")
    with path.open("rb") as file:
        return parse(file.read(MAX_BYTES + 1), f"--from {address}"), path.stem, None


def _laws_of_mix(laws: Mapping[str, SkillLaw], metadata: LawMetadata, mix: str) -> dict[str, SkillLaw]:
    """Return the laws of one named mix by skill; all laws where no mix has a name."""
    if not metadata.mixes:
        return dict(laws)
    chosen = require_mix(mix, sorted(set(metadata.mixes.values())))
    return {name.removeprefix(f"{chosen}/"): law for name, law in laws.items() if metadata.mixes[name] == chosen}


def require_mix(mix: str, names: Sequence[str]) -> str:
    """Return ``mix`` if it is one of ``names``.

    Raises:
        InputError: It is not; the message names the nearest.
    """
    if mix not in names:
        problem = f"there is none named {mix!r}{did_you_mean(mix, names)}" if mix else "each has laws of its own"
        raise InputError(
            f"the runs are of {len(names)} named mixes, and {problem}. Give --mix, one of {', '.join(names)}."
        )
    return mix


def check_names(option: str, given: Mapping[str, Any], names: Sequence[str], place: str) -> None:
    """Refuse an option that names what ``place`` lacks.

    Raises:
        InputError: With the nearest name.
    """
    for name in given:
        if name not in names:
            there = ", ".join(names) or "none"
            raise InputError(
                f"--{option} names {name}, which {place} lacks{did_you_mean(name, names)}. There is {there}."
            )
