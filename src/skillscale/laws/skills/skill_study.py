"""All that a study says of how its skills differ: on two splits, by validation set, and over mixes."""

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
    """What is measured on the runs, by the columns of their table.

    ``skills``: means over each skill's hypothesis split; ``splits``: of the skills that have several data sets;
    ``categories``: the category of the mix that belongs to a skill; ``validation``: validation sets.
    """

    skills: tuple[str, ...]
    aggregates: tuple[str, ...]
    splits: tuple[SkillColumns, ...] = ()
    categories: Mapping[str, str]
    validation: tuple[str, ...] = ()

    @property
    def columns(self) -> tuple[str, ...]:
        """Everything but the aggregates, each once."""
        of_splits = [name for one in self.splits for name in one.others]
        return tuple(dict.fromkeys([*self.skills, *of_splits, *self.validation]))

    def restrict_to(self, columns: Sequence[str]) -> tuple[SkillColumns, ...]:
        """The splits of every skill among some columns, with what of them is there too."""

        def there(names: Sequence[str]) -> tuple[str, ...]:
            return tuple(name for name in names if name in columns)

        known = {one.skill: one for one in self.splits}
        every = [known.get(name, SkillColumns(skill=name, hypothesis=name)) for name in self.skills if name in columns]
        return tuple(
            replace(
                one, held_out=one.held_out if one.held_out in columns else "",
                hypothesis_sets=there(one.hypothesis_sets), held_out_sets=there(one.held_out_sets),
            )
            for one in every
        )  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class SkillStudy:
    """The parts that the runs allow; None, or empty, where they don't.

    ``base``: the mix that verdicts and shifts are told of; ``shares``, ``crossover`` and ``likeness`` are over mixes,
    the last two for ``pair``, two skills.
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
    """Fit every column of a study, and compare.

    Args:
        runs: as ``fit_study`` takes them, with the columns that ``measured`` names.
        measured: which column is what.
        base: the mix of the study, where it has several.
        level: of all intervals, two-sided.
        resamples: draws behind the intervals.
        curve: the isoFLOP method.
        laws: of skills by mix, as ``fit_study`` takes them.

    Raises:
        FitError: no usable run is left.
    """
    columns = [name for name in measured.columns if name in runs and runs[name].notna().any()]
    fits = fit_study(
        runs, skills=columns, aggregates=measured.aggregates, level=level, resamples=resamples, curve=curve,
        laws=laws or {},
    )  # fmt: skip
    there = {one.skill for one in fits.minima}
    skills = [name for name in measured.skills if name in there]
    own = {name: category for name, category in measured.categories.items() if name in skills}
    several = len(fits.mixes) >= MIN_MIXES
    pair = _pair(fits, own) if several else None
    parts = _parts(measured, pair or ())
    return SkillStudy(
        base=base, fits=fits, pair=pair,
        verdicts=_verdicts(fits, measured.restrict_to(columns), base),
        shifts=composition_shifts(fits, skills) if len(skills) > 1 else (),
        required=tuple(one for one in required_runs(fits) if one.mix == base and one.skill in skills),
        shares=share_study(fits, own) if several and own else None,
        crossover=_crossover(fits, pair, own) if pair else None,
        similarity=_likeness(fits, pair, own, [name for name in columns if name not in parts]) if pair else None,
    )  # fmt: skip


def _verdicts(fits: StudyResults, splits: Sequence[SkillColumns], base: str) -> tuple[ConfirmedVerdict, ...]:
    return confirmed_verdicts(fits, splits, mix=base) if splits and fits.aggregates and base in fits.mixes else ()


def _parts(measured: MeasuredColumns, pair: Sequence[str]) -> set[str]:
    """Two skills and the data sets they are the mean of, which would be like them by construction."""
    return {*pair, *(name for one in measured.splits if one.skill in pair for name in one.hypothesis_sets)}


def _pair(fits: StudyResults, categories: Mapping[str, str]) -> tuple[str, str] | None:
    """The two skills to compare over ratios: knowledge and code where they can be, as in Roberts et al. 2025.

    Else those the ratio of whose categories varies most over the mixes.
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


def _likeness(
    fits: StudyResults, pair: tuple[str, str], categories: Mapping[str, str], columns: Sequence[str]
) -> ValidationSimilarityStudy:
    first, second = pair
    return similarity_study(
        fits, columns, first=first, second=second, over=categories[second], under=categories[first]
    )  # fmt: skip


def largest_budget_shift(study: SkillStudy) -> CompositionShift | None:
    """What another validation set does at the largest budget of the base mix: named before anything was looked at."""
    known = [one for one in study.shifts if one.mix == study.base and one.largest.is_finite]
    return max(known, key=lambda one: one.C, default=None)
