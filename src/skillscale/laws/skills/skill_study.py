"""Fit every column of a study and compare its skills: on two splits, by validation set, and over mixes.

A table of runs and the roles of its columns go in, and a ``SkillStudy`` comes out. Parts that the runs do not allow are
None or empty.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations

import pandas as pd

from skillscale.laws.isoflop.study import Laws, fit_study
from skillscale.laws.results import StudyResults
from skillscale.laws.skills.crossover import CrossoverStudy, crossover_study, log_ratios
from skillscale.laws.skills.regression import MIN_MIXES
from skillscale.laws.skills.share_effects import ShareStudy, share_study
from skillscale.laws.skills.validation_shift import CompositionShift, composition_shifts
from skillscale.laws.skills.validation_similarity import ValidationSimilarityStudy, similarity_study
from skillscale.laws.skills.verdicts import (
    ConfirmedVerdict,
    RequiredRuns,
    SkillColumns,
    confirmed_verdicts,
    required_runs,
)

PAIR = ("knowledge", "code")


@dataclass(frozen=True, kw_only=True)
class MeasuredColumns:
    """The roles of the loss columns in a table of runs.

    ``skills``: means over each skill's hypothesis split. ``splits``: of the skills with several data sets.
    ``categories``: category of the mix by skill. ``validation``: validation sets.
    """

    skills: tuple[str, ...]
    aggregates: tuple[str, ...]
    splits: tuple[SkillColumns, ...] = ()
    categories: Mapping[str, str]
    validation: tuple[str, ...] = ()

    @property
    def columns(self) -> tuple[str, ...]:
        """All columns except the aggregates, without duplicates."""
        of_splits = [name for split in self.splits for name in split.others]
        return tuple(dict.fromkeys([*self.skills, *of_splits, *self.validation]))

    def restrict_to(self, columns: Sequence[str]) -> tuple[SkillColumns, ...]:
        """Return the splits of the skills among ``columns``, without columns that are not among them."""

        def present(names: Sequence[str]) -> tuple[str, ...]:
            return tuple(name for name in names if name in columns)

        by_skill = {split.skill: split for split in self.splits}
        skills = present(self.skills)
        splits = [by_skill.get(name, SkillColumns(skill=name, hypothesis=name)) for name in skills]
        return tuple(
            replace(
                split, held_out=split.held_out if split.held_out in columns else "",
                hypothesis_sets=present(split.hypothesis_sets), held_out_sets=present(split.held_out_sets),
            )
            for split in splits
        )  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class SkillStudy:
    """The comparisons that the runs allow. The others are None or empty.

    ``base``: the mix of verdicts and shifts. ``shares``, ``crossover`` and ``similarity`` are over mixes, the last two
    for ``pair``, two skills.
    """

    base: str
    fits: StudyResults
    verdicts: tuple[ConfirmedVerdict, ...] = ()
    shifts: tuple[CompositionShift, ...] = ()
    required: tuple[RequiredRuns, ...] = ()
    pair: tuple[str, str] | None = None
    shares: ShareStudy | None = None
    crossover: CrossoverStudy | None = None
    similarity: ValidationSimilarityStudy | None = None


def skill_study(
    runs: pd.DataFrame, measured: MeasuredColumns, *, base: str, level: float, resamples: int, curve: str = "shared",
    laws: Laws | None = None,
) -> SkillStudy:  # fmt: skip
    """Fit every column of a study and compare the skills.

    Args:
        runs: table of runs, as for ``fit_study``, with the columns in ``measured``.
        measured: roles of the columns.
        base: base mix of the study, where it has several.
        level: level of all intervals, two-sided.
        resamples: number of bootstrap resamples.
        curve: isoFLOP method.
        laws: fitted laws by mix and skill, as for ``fit_study``.

    Raises:
        FitError: no run is usable.
    """
    columns = [name for name in measured.columns if name in runs and runs[name].notna().any()]
    fits = fit_study(
        runs, skills=columns, aggregates=measured.aggregates, level=level, resamples=resamples, curve=curve,
        laws=laws or {},
    )  # fmt: skip
    fitted = {minimum.skill for minimum in fits.minima}
    skills = [name for name in measured.skills if name in fitted]
    categories = {name: category for name, category in measured.categories.items() if name in skills}
    enough_mixes = len(fits.mixes) >= MIN_MIXES
    pair = _pair(fits, categories) if enough_mixes else None
    parts = _parts(measured, pair or ())
    return SkillStudy(
        base=base, fits=fits, pair=pair,
        verdicts=_verdicts(fits, measured.restrict_to(columns), base),
        shifts=composition_shifts(fits, skills) if len(skills) > 1 else (),
        required=tuple(needs for needs in required_runs(fits) if needs.mix == base and needs.skill in skills),
        shares=share_study(fits, categories) if enough_mixes and categories else None,
        crossover=_crossover(fits, pair, categories) if pair else None,
        similarity=_similarity(fits, pair, categories, [name for name in columns if name not in parts])
        if pair
        else None,
    )  # fmt: skip


def _verdicts(fits: StudyResults, splits: Sequence[SkillColumns], base: str) -> tuple[ConfirmedVerdict, ...]:
    return confirmed_verdicts(fits, splits, mix=base) if splits and fits.aggregates and base in fits.mixes else ()


def _parts(measured: MeasuredColumns, pair: Sequence[str]) -> set[str]:
    """Return two skills and the data sets behind their means, which are similar to them by construction."""
    splits = [split for split in measured.splits if split.skill in pair]
    return {*pair, *(name for split in splits for name in split.hypothesis_sets)}


def _pair(fits: StudyResults, categories: Mapping[str, str]) -> tuple[str, str] | None:
    """Choose the two skills to compare over ratios: knowledge and code where possible, as in Roberts et al. 2025.

    Otherwise choose the skills whose category ratio varies most over the mixes.
    """
    spans: dict[tuple[str, str], float] = {}
    for first, second in combinations(sorted(categories, key=lambda name: name == PAIR[1]), 2):
        if categories[first] == categories[second]:
            continue
        ratios = log_ratios(fits, categories[second], categories[first]).values()
        if len({round(ratio, 2) for ratio in ratios}) >= MIN_MIXES:
            spans[first, second] = round(max(ratios) - min(ratios), 6)
    return PAIR if PAIR in spans else max(spans, key=lambda pair: spans[pair], default=None)


def _crossover(fits: StudyResults, pair: tuple[str, str], categories: Mapping[str, str]) -> CrossoverStudy:
    first, second = pair
    return crossover_study(fits, first, second, over=categories[second], under=categories[first])


def _similarity(
    fits: StudyResults, pair: tuple[str, str], categories: Mapping[str, str], columns: Sequence[str]
) -> ValidationSimilarityStudy:
    first, second = pair
    return similarity_study(
        fits, columns, first=first, second=second, over=categories[second], under=categories[first]
    )  # fmt: skip


def largest_budget_shift(study: SkillStudy) -> CompositionShift | None:
    """Return the composition shift at the largest budget of the base mix. The choice does not depend on the results."""
    shifts = [shift for shift in study.shifts if shift.mix == study.base and shift.largest.is_finite]
    return max(shifts, key=lambda shift: shift.C, default=None)
