"""Fitted laws of all skills, and the questions that they answer."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from skillscale.analysis.fit_laws import FitResults, fit_runs
from skillscale.analysis.load_laws import LoadedLaws, laws_of_results
from skillscale.analysis.plan import MadePlans, make_plans
from skillscale.analysis.suggest import Suggestion, suggest_runs
from skillscale.api.display import as_html, as_preformatted
from skillscale.api.sources import Runs
from skillscale.config import Config, overridden
from skillscale.config.options import PlanOptions, build_options
from skillscale.errors import InputError
from skillscale.laws.optimum.optimum import weighted_optimum
from skillscale.laws.results import Interval

_SIZES = {"N": ("N", "n_params", "params"), "D": ("D", "n_tokens", "tokens")}


class SkillPlan:
    """A plan of one training run for each budget. In a notebook it shows its figure and text.

    Args:
        made: The plans.
    """

    def __init__(self, made: MadePlans) -> None:
        self._made = made

    @property
    def frame(self) -> pd.DataFrame:
        """One row a budget: C, N and D with their intervals, the weighted loss, and the loss of each skill."""
        return pd.DataFrame(
            {
                "C": plan.optimum.C, **_ends("N", plan.optimum.N), **_ends("D", plan.optimum.D),
                **_ends("loss", plan.loss), "extrapolation": plan.optimum.extrapolation,
                **{f"loss_{name}": loss.value for name, loss in plan.losses.items()},
            }
            for plan in self._made.plans
        )  # fmt: skip

    def as_dict(self) -> dict[str, Any]:
        """Return what ``plan --json`` prints."""
        return dict(self._made.answer)

    def __repr__(self) -> str:
        return self._made.text

    def _repr_html_(self) -> str:
        return as_html(self._made.figures["svg"]) + as_preformatted(repr(self))


class SkillLaws:
    """Laws of all skills. ``fit`` returns it.

    Args:
        runs: The runs.
        results: The fits.
        config: Settings of the fits.
    """

    def __init__(self, runs: Runs, results: FitResults, config: Config) -> None:
        self.runs = runs
        self.results = results
        self.config = config

    @property
    def skills(self) -> tuple[str, ...]:
        """Names of the skills and aggregates that have a law; with several named mixes ``MIX/SKILL``."""
        return tuple(self.results.fitted)

    def optimum(
        self, C: float | Sequence[float], *, mix: str | Mapping[str, float] | None = None
    ) -> pd.DataFrame:  # fmt: skip
        """Return the compute optimum of each skill.

        Args:
            C: One or several budgets, FLOP.
            mix: Shares by category, or name of a mix; None: the mean mix of the runs.

        Returns:
            One row a budget and skill: N* (parameters), D* (tokens) and the loss there (nats per token), with the ends
            of their intervals; how many times the largest run the budget is; and the reason where there is no N*.

        Examples:
            >>> import skillscale as ss
            >>> laws = ss.fit(ss.runs("examples/planted.csv"), law="separable")
            >>> float(laws.optimum(1e21).set_index("skill")["N"].round(-8)["code"])
            1600000000.0
        """
        loaded = self._loaded(mix if isinstance(mix, str) else "")
        shares = dict(mix) if isinstance(mix, Mapping) else None
        rows = []
        for budget in _budgets(C):
            for name in loaded.laws:
                optimum = weighted_optimum(loaded.laws, budget, {name: 1.0}, shares)
                rows.append({
                    "C": budget, "skill": name, **_ends("N", optimum.N), **_ends("D", optimum.D),
                    **_ends("loss", optimum.losses[name]), "extrapolation": optimum.extrapolation,
                    "reason": optimum.reason,
                })  # fmt: skip
        return pd.DataFrame(rows)

    def plan(
        self, C: float | Sequence[float], *, weights: Mapping[str, float] | None = None,
        validation: Mapping[str, float] | None = None, mix: str | Mapping[str, float] = "",
        bounds: Mapping[str, tuple[float, float]] | None = None, n_params: Sequence[float] | None = None,
        force: bool = False,
    ) -> SkillPlan:  # fmt: skip
        """Plan one training run for each budget.

        Args:
            C: One or several budgets, FLOP.
            weights: Weights of skills; None: all equal.
            validation: Weights of a validation set, to price a choice by it.
            mix: Shares by category, or name of a mix; empty: the mean mix of the runs.
            bounds: Least and largest share in the best mix, by category.
            n_params: Further sizes to price.
            force: Plan although weak priors decide N*, not the runs.

        Raises:
            InputError: Names that the laws lack, or an N* that priors decide.
            FitError: A skill with a weight has no law.
        """
        given = {
            "skill_weights": dict(weights or {}), "validation": dict(validation or {}), "bounds": dict(bounds or {}),
            "mix": mix if isinstance(mix, str) else ",".join(f"{name}={share!r}" for name, share in mix.items()),
            "n_params": tuple(n_params) if n_params else None, "force": force, "flops": _budgets(C),
        }  # fmt: skip
        options = build_options(PlanOptions, given)
        return SkillPlan(make_plans(options, self._loaded(mix if isinstance(mix, str) else "")))

    def predict(self, points: pd.DataFrame, *, mix: str = "") -> pd.DataFrame:
        """Predict the loss of each skill.

        Args:
            points: One row a model: N (or n_params, params) and D (or n_tokens, tokens), and shares as ``mix/CATEGORY``
                where the laws need a mix and it is not the mean mix of the runs.
            mix: Name of the mix, where several have names without shares.

        Returns:
            One row a model and skill: N, D, skill, loss (nats per token), the interval of the law (``loss_low``,
            ``loss_high``) and that of one more run (``run_low``, ``run_high``).

        Raises:
            InputError: A column is missing, a number is not positive, or shares do not sum to 1.
        """
        N, D = (_column(points, letter) for letter in _SIZES)
        frames = []
        for name, law in self._loaded(mix).laws.items():
            categories = law.law.categories
            columns = [f"mix/{category}" for category in categories]
            given = bool(columns) and set(columns) <= set(map(str, points.columns))
            predicted = law.loss(N, D, points[columns].to_numpy(dtype=float) if given else None)
            frames.append(pd.DataFrame({
                "N": N, "D": D, "skill": name, "loss": predicted.value, "loss_low": predicted.lo,
                "loss_high": predicted.hi, "run_low": predicted.new_lo, "run_high": predicted.new_hi,
            }))  # fmt: skip
        return pd.concat(frames, ignore_index=True)

    def suggest(self, count: int = 4, *, mix: str = "", **settings: Any) -> Suggestion:
        """Suggest the next runs. Nothing is trained.

        Args:
            count: Number of runs.
            mix: Name of the mix, where several have names without shares.
            settings: Settings of ``sample``, as in ``flops_max=1e21``.
        """
        config = overridden(self.config, {f"sample.{name}": value for name, value in settings.items()})
        return suggest_runs(self.runs.loaded, config, count=count, mix=mix)

    def plot(self) -> Any:
        """Draw N* of each skill against compute, with intervals. Return a matplotlib figure."""
        from skillscale.report.law_figures import draw_law_figures

        return draw_law_figures(self.results.laws, self.results.flops)["law-optima"]

    def save(self, path: str | Path) -> None:
        """Write the laws as JSON, which ``load`` and ``plan --from`` read."""
        Path(path).write_text(self.results.law_json(), encoding="utf-8")

    def __repr__(self) -> str:
        from skillscale.report.doubts import MAX_LINES, doubt_lines
        from skillscale.report.laws import law_text

        doubts = doubt_lines(self.results.doubts(), self.results.source, limit=MAX_LINES)
        return "\n".join([law_text(self.results.laws, self.results.flops), *doubts])

    def _repr_html_(self) -> str:
        return as_preformatted(repr(self))

    def _loaded(self, mix: str) -> LoadedLaws:
        return laws_of_results(self.runs.loaded, self.results, mix)


def fit(
    runs: Runs, *, law: str = "", flops: Sequence[float] | None = None, settings: Mapping[str, Any] | None = None
) -> SkillLaws:  # fmt: skip
    """Fit every skill's law.

    Args:
        runs: Runs, as ``runs`` reads them.
        law: Name of a law, such as chinchilla; empty: the best on held-out larger runs.
        flops: Budgets of the optima that ``print`` shows, FLOP; None: 1, 10 and 100 times the largest run.
        settings: Further settings by dotted name, as in ``{"laws.bootstrap": "laplace"}``.

    Raises:
        FitError: No skill has a law or an isoFLOP optimum.
    """
    config = overridden(runs.config, {**({"laws.law": law} if law else {}), **(settings or {})})
    results = fit_runs(runs.loaded, config.laws, config.study, flops)
    results.require_a_fit()
    return SkillLaws(runs, results, config)


def _budgets(C: float | Sequence[float]) -> tuple[float, ...]:
    return tuple(np.atleast_1d(np.asarray(C, dtype=float)).tolist())


def _ends(name: str, value: Interval) -> dict[str, float]:
    return {name: value.value, f"{name}_low": value.lo, f"{name}_high": value.hi}


def _column(points: pd.DataFrame, letter: str) -> "np.ndarray[Any, np.dtype[np.float64]]":
    for name in _SIZES[letter]:
        if name in points:
            return points[name].to_numpy(dtype=float)
    raise InputError(f"points need a column {letter} (or {' or '.join(_SIZES[letter][1:])}). They have "
                     f"{', '.join(map(str, points.columns))}.")  # fmt: skip
