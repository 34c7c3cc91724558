"""Hyperparameter sweeps: many settings at one (N, D, mix), whose mean is no law of well-trained models.

``note_sweeps`` finds them. ``best_settings`` replaces each point by the loss of its best setting, free of selection
bias: the lowest of k noisy losses is too low. A quadratic in the logarithms of the settings is fitted near the best
of each point, with one curvature for all points. Its minimum is taken, and the part of it that noise in the
slopes explains, tr(H^-1 Cov(b)) / 4, is added back.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from skillscale.formatting import format_percent, join_first, plural
from skillscale.tables.column_hints import is_data_name, is_seed_name, is_setting_name
from skillscale.tables.column_map import ColumnMap
from skillscale.tables.points import Codes, Floats, Mask, point_codes

_WIDE = 0.1  # ln L above the lowest, beyond which a setting is never near the best
_NEAR_BEST, _NOISE_SD = 0.03, 4.0  # settings shape the quadratic within this ln L, or 4 sd, of its minimum
_PASSES = 4
_LEAST_GAIN = 0.002  # mean loss above the lowest, relative, below which a sweep is not noted
_LARGE_GAIN = 0.01  # the same where no column names the settings: seeds differ by less
_LEAST_SHARE = 0.1  # of the rows
_SMALLEST_CURVATURE = 1e-6  # ln L per squared unit of a setting: keeps a flat direction finite
_FEWEST_VALUES = 3  # of a setting, from which its losses can bend
_FEWEST_FREE = 3  # degrees of freedom from which the noise is known
_SKEW_SE = 2.0
_FEWEST_POINTS, _COMMON = 5, 0.5  # share of the variance within points that the order of rows explains; 1/n by chance
_SMOOTH = 0.6  # means this much smoother than replicates would be


def note_sweeps(runs: pd.DataFrame, cells: pd.DataFrame, columns: ColumnMap, skills: Sequence[str]) -> list[str]:
    """Return a note if many rows share a point and differ by settings.

    Args:
        runs: usable runs, without rows of one run at several D.
        cells: cells of these rows, with columns that the column map does not name.
        columns: column map.
        skills: columns of the losses.
    """
    points = point_codes(runs)
    if columns.best_of or len(np.unique(points)) == len(points):
        return []
    mapped = {column for _, column in columns.key_columns()}
    free = [str(name) for name in cells.columns if str(name) not in mapped]
    kinds = (is_setting_name,) if columns.mix or columns.mix_name else (is_setting_name, is_data_name)
    names = [name for name in free if any(kind(name) for kind in kinds) and _varies(cells[name], points)]
    seed_columns = [name for name in free if is_seed_name(name)] + [*filter(None, [columns.seed])]
    if names:
        settings = _row_codes(cells, names)
    else:
        repeats = pd.Series(points).groupby([points, _row_codes(cells, seed_columns)]).cumcount()
        settings = np.asarray(repeats, dtype=np.intp)
    return _note(runs, points, settings, names, skills)


def setting_codes(cells: pd.DataFrame, columns: ColumnMap) -> Codes:
    """Return a code of the hyperparameters of each row, in the columns that hold some by their names."""
    mapped = {column for _, column in columns.key_columns()} - set(columns.best_of)
    free = [str(name) for name in cells.columns if str(name) not in mapped]
    names = [name for name in free if is_setting_name(name) or is_data_name(name) or name in columns.best_of]
    return _row_codes(cells, names)


def _row_codes(cells: pd.DataFrame, names: Sequence[str]) -> Codes:
    """Return a code of the cells of each row in some columns, where missing cells are equal."""
    codes = [pd.factorize(cells[name], use_na_sentinel=False)[0] for name in names]
    rows = np.column_stack([np.zeros(len(cells), dtype=np.intp), *codes])
    return np.asarray(np.unique(rows, axis=0, return_inverse=True)[1]).ravel()


def _varies(cells: "pd.Series[float]", points: Codes) -> bool:
    """Return whether a column differs between rows of one point."""
    return bool(pd.Series(pd.factorize(cells, use_na_sentinel=False)[0]).groupby(points).nunique().gt(1).any())


def _note(runs: pd.DataFrame, points: Codes, settings: Codes, names: Sequence[str], skills: Sequence[str]) -> list[str]:
    counts = pd.Series(settings).groupby(points).nunique()
    swept = counts[counts >= 2]
    is_swept = np.isin(points, swept.index)
    if not is_swept.mean() >= _LEAST_SHARE:
        return []
    logs = [np.log(runs[skill].to_numpy(dtype=float)) for skill in skills]
    gains = [_gain(log_L[is_swept], points[is_swept], settings[is_swept]) for log_L in logs]
    gain = max(gains, default=0.0)
    if not gain >= (_LEAST_GAIN if names else _LARGE_GAIN):
        return []
    log_L = logs[int(np.argmax(gains))]
    if not names and not _is_systematic(runs[is_swept], log_L[is_swept], points[is_swept], settings[is_swept]):
        return []
    low, high = int(swept.min()), int(swept.max())
    many = f"{low if low == high else f'{low} to {high}'} settings ({join_first(names)})" if names else ""
    rows = f"{low if low == high else f'{low} to {high}'} rows that differ only in losses"
    where = f"at {'each of ' if len(swept) > 1 else ''}{plural(len(swept), 'point')} (N, D, mix)"
    effect = f"the law is of their mean, and the best lies {format_percent(gain)} lower"
    if names:
        return [f"{many} {where}: {effect}. Add {_keys(names)} to the column map"]
    return [f"{rows} {where}: {effect}. Are they settings? Add best_of: [COLUMNS]; if they are seeds, add seed: COLUMN"]


def _keys(names: Sequence[str]) -> str:
    """Return the lines of a column map that take these columns."""
    data = [name for name in names if is_data_name(name)]
    settings = [name for name in names if name not in data]
    return " and ".join(
        [*(f"mix: {name}" for name in data[:1]), *([f"best_of: [{', '.join(settings)}]"] * bool(settings))]
    )


def _gain(log_L: Floats, points: Codes, settings: Codes) -> float:
    """Return the median over points of how far the mean setting lies above the best, relative."""
    means = pd.Series(log_L).groupby([points, settings]).mean()
    by_point = means.groupby(level=0)
    gain = (by_point.mean() - by_point.min()).median()
    return float(np.expm1(gain)) if np.isfinite(gain) else 0.0


def _is_systematic(runs: pd.DataFrame, log_L: Floats, points: Codes, order: Codes) -> bool:
    """Return whether losses within points differ as settings do, and not as seeds.

    Losses above a floor are skewed to the right. Rows of a point that are in the order of their settings differ alike
    at all points. Means over one grid of settings follow N and D more smoothly than means over seeds would.
    """
    has_loss = np.isfinite(log_L)
    runs, log_L, points, order = runs[has_loss], log_L[has_loss], points[has_loss], order[has_loss]
    means = pd.Series(log_L).groupby(points).transform("mean").to_numpy()
    counts = pd.Series(log_L).groupby(points).transform("count").to_numpy()
    within = (log_L - means) * np.sqrt(counts / np.maximum(counts - 1, 1))
    sd = float(np.sqrt(np.mean(within**2)))
    scaled = within / sd
    skew = float(np.mean(scaled**3))
    if skew > _SKEW_SE * np.sqrt(6 / len(scaled)):
        return True
    common = pd.Series(within).groupby(order).transform("mean").to_numpy()
    if len(np.unique(points)) >= _FEWEST_POINTS and np.mean(common**2) >= _COMMON * np.mean(within**2):
        return True
    x, y = (np.log(runs[letter].to_numpy(dtype=float)) for letter in ("N", "D"))
    mixes = pd.get_dummies(runs["mix"]).to_numpy(dtype=float)
    x, y = x - x.mean(), y - y.mean()
    design = np.column_stack([mixes, x, y, x * x, x * y, y * y])
    n_points, n_terms = len(np.unique(points)), design.shape[1]
    if n_points < 2 * n_terms:
        return False
    residual = means - design @ np.linalg.lstsq(design, means, rcond=None)[0]
    between = float(np.sqrt(np.mean(residual**2) * n_points / (n_points - n_terms)))
    return between < _SMOOTH * sd / float(np.sqrt(np.mean(counts)))


@dataclass(frozen=True, kw_only=True)
class Envelope:
    """The best setting of each point for one loss.

    Args:
        log_loss: ln L of the best setting, by point, NaN without losses.
        row: position of the lowest row, by point, -1 without losses.
        at_edge: points whose best setting is the last that was tried.
        n_unfitted: points with too few settings for the quadratic: their lowest loss is used.
    """

    log_loss: Floats
    row: Codes
    at_edge: Mask
    n_unfitted: int


def best_settings(
    runs: pd.DataFrame, cells: pd.DataFrame, columns: ColumnMap, skills: Sequence[str]
) -> tuple[pd.DataFrame, list[str]]:
    """Return one run a point, with the loss of its best setting for each skill, and notes.

    Args:
        runs: usable runs.
        cells: cells of these rows.
        columns: column map; ``best_of`` names the settings.
        skills: columns of the losses.
    """
    if not columns.best_of:
        return runs, []
    points = pd.factorize(point_codes(runs))[0]
    settings, kinds = _settings(cells, columns.best_of)
    envelopes = {
        skill: lower_envelope(points, settings, kinds, np.log(runs[skill].to_numpy(dtype=float))) for skill in skills
    }
    rows = np.max([envelope.row for envelope in envelopes.values()], axis=0)
    first = envelopes[skills[0]].row
    chosen = np.where(first >= 0, first, rows)
    best = runs.iloc[chosen].assign(
        cluster=lambda kept: kept["run_id"], seed=0,
        **{skill: np.exp(envelope.log_loss) for skill, envelope in envelopes.items()},
    )  # fmt: skip
    return best.reset_index(drop=True), _best_notes(len(runs), len(best), columns.best_of, envelopes)


def _best_notes(n_rows: int, n_points: int, names: Sequence[str], envelopes: dict[str, Envelope]) -> list[str]:
    notes = [
        f"best of {', '.join(names)}: {plural(n_rows, 'row')} become {plural(n_points, 'point')}, each with the "
        "minimum of a quadratic in its settings, corrected for the choice among noisy losses"
    ]
    edges = max(int(envelope.at_edge.sum()) for envelope in envelopes.values())
    if edges:
        notes.append(
            f"at {edges} of {plural(n_points, 'point')} the best setting is the last that was tried: the true best may "
            "lie beyond, and its loss is lower. Add settings there"
        )
    unfitted = max(envelope.n_unfitted for envelope in envelopes.values())
    if unfitted:
        notes.append(
            f"{unfitted} of {plural(n_points, 'point')} have too few settings for a quadratic: their lowest loss is "
            "used as it is"
        )
    return notes


def _settings(cells: pd.DataFrame, names: Sequence[str]) -> tuple[Floats, Codes]:
    """Return the numeric settings in units of their sd, as logarithms where all are above 0, and a code of the others.

    Rows without a number, and settings of two values, are kinds.
    """
    numeric, others = [], []
    for name in names:
        values = pd.to_numeric(cells[name], errors="coerce").to_numpy(dtype=float)
        is_number = np.isfinite(values)
        n_values = len(np.unique(values[is_number]))
        if n_values < _FEWEST_VALUES or is_number.mean() < 0.5:
            others.append(pd.factorize(cells[name], use_na_sentinel=False)[0])
            continue
        numbers = np.log(np.where(is_number, values, 1.0)) if (values[is_number] > 0).all() else values
        numeric.append(np.where(is_number, numbers / np.std(numbers[is_number]), 0.0))
        others.append(is_number)
    kinds = pd.factorize(pd.MultiIndex.from_arrays(others))[0] if others else np.zeros(len(cells), dtype=np.intp)
    return np.column_stack(numeric) if numeric else np.zeros((len(cells), 0)), np.asarray(kinds)


def lower_envelope(points: Codes, settings: Floats, kinds: Codes, log_L: Floats) -> Envelope:
    """Return ln L at the best setting of each point.

    Args:
        points: codes of the points from 0, (n,).
        settings: numeric settings, (n, d).
        kinds: codes of the other settings, (n,). The kind of the lowest loss is used.
        log_L: ln L, (n,), NaN where missing. Rows of one setting are averaged.
    """
    n_points = int(points.max()) + 1
    means = _setting_means(points, settings, kinds, log_L)
    lowest = np.full(n_points, np.nan)
    row = np.full(n_points, -1, dtype=np.intp)
    edge = np.zeros(n_points, dtype=bool)
    designs, kept = [], []
    for at, rows in ((int(rows["point"].iloc[0]), rows) for _, rows in means.groupby("point", sort=False)):
        enough = rows[rows.groupby("kind")["y"].transform("size") >= settings.shape[1] + 2]
        candidates = enough if len(enough) else rows
        best = candidates.iloc[int(np.argmin(candidates["y"].to_numpy()))]
        lowest[at], row[at] = best["y"], int(best["row"])
        tried = _tried_settings(rows[rows["kind"] == best["kind"]], settings.shape[1])
        if tried is not None:
            designs.append(tried)
            kept.append(at)
    fitted: set[int] = set()
    for point, (value, is_edge) in zip(kept, _quadratic_minima(designs), strict=True):
        if value > lowest[point] - _NEAR_BEST:
            lowest[point], edge[point] = value, is_edge
            fitted.add(point)
    several = set(means[means.duplicated("point")]["point"]) - fitted
    return Envelope(log_loss=lowest, row=row, at_edge=edge, n_unfitted=len(several))


def _setting_means(points: Codes, settings: Floats, kinds: Codes, log_L: Floats) -> pd.DataFrame:
    """Return the mean ln L of each setting at each point, with one of its rows."""
    has_loss = np.flatnonzero(np.isfinite(log_L))
    frame = pd.DataFrame(
        {"point": points, "kind": kinds, "y": log_L, "row": np.arange(len(points)), "weight": 1.0}
        | {f"x{at}": column for at, column in enumerate(settings.T)}
    ).iloc[has_loss]
    keys = ["point", "kind", *(f"x{at}" for at in range(settings.shape[1]))]
    return frame.groupby(keys, sort=False, as_index=False).agg(
        y=("y", "mean"), row=("row", "first"), weight=("weight", "sum")
    )


@dataclass(frozen=True, kw_only=True)
class _TriedSettings:
    """Settings of a point: centred (k, d), their ln L (k,), weights (k,), and which shape the quadratic (k,)."""

    x: Floats
    y: Floats
    weight: Floats
    used: Mask

    @property
    def terms(self) -> Floats:
        """A constant and the settings that are used, (k, 1 + d)."""
        x = self.x[self.used]
        return np.column_stack([np.ones(len(x)), x])


@dataclass(frozen=True, kw_only=True)
class _Bowl:
    """ln L = level + slope x + x H x at one point, the covariance of the slope per noise variance, and its minimum."""

    level: float
    slope: Floats
    H: Floats
    covariance: Floats
    best: Floats
    at_edge: bool

    def log_loss(self, x: Floats) -> Floats:
        """Return ln L at settings (k, d)."""
        return np.asarray(self.level + x @ self.slope + np.einsum("ki,ij,kj->k", x, self.H, x))


def _tried_settings(rows: pd.DataFrame, d: int) -> _TriedSettings | None:
    """Return the settings of a point, or None if they are too few for slopes."""
    if not d or len(rows) < d + 2:
        return None
    x = rows[[f"x{at}" for at in range(d)]].to_numpy(dtype=float)
    y = rows["y"].to_numpy(dtype=float)
    tried = _TriedSettings(
        x=x - x.mean(axis=0), y=y, weight=rows["weight"].to_numpy(dtype=float), used=_lowest(y, _WIDE, d)
    )
    return tried if _has_slopes(tried) else None


def _lowest(y: Floats, within: float, d: int) -> Mask:
    """Return the mask of the values within a distance of the lowest, and at least as many as a quadratic needs."""
    fewest = np.sort(y)[min(len(y), 3**d) - 1]
    return np.asarray(y <= max(y.min() + within, fewest))


def _has_slopes(tried: _TriedSettings) -> bool:
    return bool(np.linalg.matrix_rank(tried.terms, tol=1e-9) == tried.terms.shape[1])


def _quadratic_minima(points: Sequence[_TriedSettings]) -> list[tuple[float, bool]]:
    """Return the minimum of each point's quadratic, and whether it is the last setting that was tried.

    The settings near the minimum are chosen by the quadratic of the last pass. Choosing them by their noisy losses
    would bring the selection bias back.
    """
    if not points:
        return []
    bowls, noise = _fit_bowls(points)
    for _ in range(_PASSES):
        within = max(_NEAR_BEST, _NOISE_SD * float(np.sqrt(noise)))
        points = [_near_minimum(point, bowl, within) for point, bowl in zip(points, bowls, strict=True)]
        bowls, noise = _fit_bowls(points)
    return [(_corrected_minimum(bowl, noise), bowl.at_edge) for bowl in bowls]


def _near_minimum(point: _TriedSettings, bowl: _Bowl, within: float) -> _TriedSettings:
    expected = bowl.log_loss(point.x)
    usable = np.where(point.y <= expected + within, expected, np.inf)  # without runs that went wrong
    near = replace(point, used=_lowest(usable, within, point.x.shape[1]) & np.isfinite(usable))
    return near if _has_slopes(near) else point


def _fit_bowls(points: Sequence[_TriedSettings]) -> tuple[list[_Bowl], float]:
    """Fit one curvature and the level and slopes of each point. Return the bowls and the noise variance of ln L."""
    d = points[0].x.shape[1]
    pairs = [(i, j) for i in range(d) for j in range(i, d)]
    targets, squares, free = [], [], -len(pairs)
    for point in points:
        x, root = point.x[point.used], np.sqrt(point.weight[point.used])
        q, _ = np.linalg.qr(point.terms * root[:, None])
        square = np.column_stack([x[:, i] * x[:, j] for i, j in pairs]) * root[:, None]
        target = point.y[point.used] * root
        targets.append(target - q @ (q.T @ target))
        squares.append(square - q @ (q.T @ square))
        free += len(x) - 1 - d
    design, rest = np.concatenate(squares), np.concatenate(targets)
    curvature = np.linalg.lstsq(design, rest, rcond=None)[0]
    noise = float(((rest - design @ curvature) ** 2).sum() / free) if free >= _FEWEST_FREE else 0.0
    H = np.zeros((d, d))
    for (i, j), value in zip(pairs, curvature, strict=True):
        H[i, j] = H[j, i] = value if i == j else value / 2
    values, axes = np.linalg.eigh(H)
    H = (axes * np.maximum(values, _SMALLEST_CURVATURE)) @ axes.T
    return [_bowl(point, H) for point in points], noise


def _bowl(point: _TriedSettings, H: Floats) -> _Bowl:
    x, weight, terms = point.x[point.used], point.weight[point.used], point.terms
    rest = point.y[point.used] - np.einsum("ki,ij,kj->k", x, H, x)
    inverse = np.linalg.inv(terms.T @ (terms * weight[:, None]))
    level, *slopes = inverse @ (terms.T @ (rest * weight))
    slope = np.array(slopes)
    free = -0.5 * np.linalg.solve(H, slope)
    best = np.clip(free, point.x.min(axis=0), point.x.max(axis=0))
    return _Bowl(
        level=float(level),
        slope=slope,
        H=H,
        covariance=np.asarray(inverse[1:, 1:], dtype=float),
        best=best,
        at_edge=bool(np.any(best != free)),
    )


def _corrected_minimum(bowl: _Bowl, noise: float) -> float:
    """Return ln L at the minimum, without what noise in the slopes takes from it."""
    bias = 0.0 if bowl.at_edge else noise * float(np.trace(np.linalg.solve(bowl.H, bowl.covariance))) / 4
    return float(bowl.log_loss(bowl.best[None])[0]) + bias
