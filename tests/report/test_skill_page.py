"""Figures and words on how skills differ, from studies planted with known differences."""

import math
import re
from dataclasses import replace

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest

from skillscale.errors import InputError
from skillscale.laws.isoflop.study import fit_study
from skillscale.laws.skills.skill_study import MeasuredColumns, SkillStudy, skill_study
from skillscale.laws.skills.verdicts import Confirmation, SkillColumns
from skillscale.report import skill_figures
from skillscale.report.skill_page import make_skill_figures, skill_frames
from skillscale.tables.published_optima import read_optima

CATEGORIES = {"knowledge": "knowledge", "code": "code"}
SPLITS = (
    SkillColumns(skill="knowledge", hypothesis="knowledge", held_out="knowledge held-out",
               hypothesis_sets=("set/a", "set/b")),
    SkillColumns(skill="code", hypothesis="code", held_out="code held-out"),
)  # fmt: skip
MEASURED = MeasuredColumns(
    skills=("knowledge", "code"), aggregates=("aggregate",), splits=SPLITS, categories=CATEGORIES,
    validation=("val/text",),
)  # fmt: skip
APART = {"knowledge": 0.4, "code": -0.4, "knowledge held-out": 0.4, "code held-out": 0.3, "set/a": 0.4, "set/b": 0.4}
BASE = "code=0.4,knowledge=0.6"


def runs(shares: tuple[float, ...], *, elasticity: float = 0.2, noise: float = 0.0015) -> pd.DataFrame:
    """Parabolas about N* = .1 C^.5 e^apart (share of the own category / .5)^elasticity, in mixes of two categories."""
    rng = np.random.default_rng(3)
    rows = []
    for share in shares:
        for C in (5e10, 4e11):
            for N in np.geomspace(0.1 * C**0.5 / 8, 0.1 * C**0.5 * 8, 7).round():
                for seed in range(2):
                    row = {
                        "run_id": f"run{len(rows)}", "C": C, "N": N, "D": C / 6 / N, "seed": seed,
                        "mix": f"code={share:g},knowledge={1 - share:g}", "mix/code": share, "mix/knowledge": 1 - share,
                    }  # fmt: skip
                    for name in (*APART, "val/text", "aggregate"):
                        own = share if name.startswith("code") else 1 - share
                        apart = APART.get(name, 0.0) + (elasticity * math.log(own / 0.5) if name in APART else 0.0)
                        x = math.log(N / (0.1 * C**0.5)) - apart
                        row[name] = 3 * (1 - 0.2 * own) * math.exp(0.02 * x * x + noise * rng.normal()) * C**-0.02
                    rows.append(row)
    return pd.DataFrame(rows)


@pytest.fixture(scope="module")
def one_mix() -> SkillStudy:
    return skill_study(runs((0.4,)), MEASURED, base=BASE, level=0.9, resamples=200)


@pytest.fixture(scope="module")
def several() -> SkillStudy:
    return skill_study(runs((0.1, 0.25, 0.4, 0.7, 0.9)), MEASURED, base=BASE, level=0.9, resamples=200)


def figures(study: SkillStudy, beside=None):
    fits = fit_study(study.fits.runs, skills=("knowledge", "code"), aggregates=("aggregate",), resamples=200, laws={})
    return {one.name: one for one in make_skill_figures(study, CATEGORIES, fits=fits, published=beside)}


def drawn(figure, gid):
    return figure.findobj(lambda artist: artist.get_gid() == gid)


def test_verdicts_stand_on_the_first_split_and_are_asked_of_the_second(one_mix):
    caption = figures(one_mix)["splits"].caption
    assert re.search(r"knowledge: capacity-hungry \(.*\), and confirmed on the held-out split", caption)
    assert re.search(r"code: data-hungry \(.*\), but contradicted on the held-out split", caption)
    figure = skill_figures.draw_splits(one_mix.verdicts)
    assert len(drawn(figure, "residual")) == 6, "two splits a skill, and two data sets"


def test_one_mix_tells_what_to_run_for_the_figures_of_mixes(one_mix):
    found = figures(one_mix)
    assert list(found) == ["splits", "composition", "mixes"]
    assert not found["mixes"].image
    assert "The runs have 1 mix. " in found["mixes"].caption
    assert "at least 3 mixes" in found["mixes"].caption
    assert "mix-ablation-hour" in found["mixes"].caption


def test_a_shift_is_claimed_only_as_far_as_its_interval(one_mix):
    caption = figures(one_mix)["composition"].caption
    value, lo, hi = (int(text) for text in re.search(r"it is (\d+) % \[(\d+), (\d+)\]", caption).groups())
    truth = 100 * math.expm1(0.8 + 0.2 * math.log(0.6 / 0.4))
    assert 0.5 * truth < lo < truth < hi
    assert lo < value < hi
    assert "a shift is resolved there" in caption


def test_what_cannot_be_drawn_says_what_it_takes():
    """One skill: no shift, no crossing, but its own shares; without optima: nothing of mixes."""
    alone = replace(MEASURED, skills=("code",), splits=(), categories={"code": "code"}, validation=())
    found = figures(skill_study(runs((0.1, 0.4, 0.9)), alone, base=BASE, level=0.9, resamples=200))
    assert [name for name, one in found.items() if one.image] == ["splits", "mixes", "shares"]
    assert "two skills with an optimum" in found["composition"].caption
    assert "with no held-out split to confirm it" in found["splits"].caption
    bad = figures(skill_study(runs((0.1, 0.4, 0.9), noise=0.3), MEASURED, base=BASE, level=0.9, resamples=200))
    assert not bad["mixes"].image
    assert "need optima of 3 mixes at one budget" in bad["mixes"].caption
    without = replace(MEASURED, aggregates=())
    assert (
        "no aggregate"
        in figures(skill_study(runs((0.4,)), without, base=BASE, level=0.9, resamples=200))["splits"].caption
    )


def test_a_column_without_losses_costs_itself_alone():
    table = runs((0.4,)).assign(**{"set/a": math.nan, "code held-out": math.nan})
    found = skill_study(table, MEASURED, base=BASE, level=0.9, resamples=200)
    knowledge, code = found.verdicts
    assert [one.skill for one in knowledge.hypothesis_sets] == ["set/b"]
    assert (code.confirmation, code.held_out.value.is_finite) == (Confirmation.NO_SPLIT, False)


def test_mixes_have_every_figure_and_the_tables_behind_them(several):
    found = figures(several)
    assert list(found) == ["splits", "composition", "mixes", "shares", "crossover", "likeness"]
    assert all(one.image.startswith("data:image/svg+xml;base64,") for one in found.values())
    frames = skill_frames(several)
    assert {"shares", "share_effects", "equal_shares", "crossover", "likeness", "splits"} <= set(frames)
    pooled = frames["share_effects"].query("C != C").set_index("skill")
    for skill in CATEGORIES:
        assert pooled.loc[skill, "elasticity_lo"] < 0.2 < pooled.loc[skill, "elasticity_hi"]
    assert f"code {pooled.loc['code', 'elasticity']:+.2f}" in found["shares"].caption


def test_the_crossing_is_where_it_was_planted_or_said_to_be_missing(several):
    """.8 + .2 ln(knowledge / code) = 0 lies beyond the ratios that were run."""
    assert several.pair == ("knowledge", "code")
    caption = figures(several)["crossover"].caption
    assert "don't cross within the ratios" in caption
    assert re.search(r"N\*\(knowledge\) against N\*\(code\): \+\d+ %", caption)
    assert len(drawn(skill_figures.draw_crossover(several.crossover), "line")) == 2


def test_a_validation_set_is_told_by_the_skill_that_it_follows(several):
    """The planted text falls with the share of knowledge, as that skill does; what makes a skill up is left out."""
    caption = figures(several)["likeness"].caption
    assert re.search(r"knowledge: [^;]*val/text", caption)
    assert re.search(r"code: code held-out", caption)
    assert {one.column for one in several.similarity.similarities} == {
        "knowledge held-out",
        "code held-out",
        "val/text",
    }


def test_published_optima_are_drawn_hollow_beside_our_own(one_mix):
    theirs = read_optima("roberts2025")
    assert set(theirs["skill"]) == {"knowledge", "code", "aggregate"}
    found = figures(one_mix, beside=("roberts2025", theirs))
    assert "Comparison with roberts2025" in found["published"].title
    fits = fit_study(one_mix.fits.runs, skills=("knowledge", "code"), aggregates=("aggregate",), resamples=200, laws={})
    points = drawn(skill_figures.draw_published(fits, BASE, theirs), "published")
    at = {tuple(line.get_xdata()) for line in points if isinstance(line, mpl.lines.Line2D)}
    assert (6e18, 3e21) in at
    assert "published" not in figures(one_mix, beside=("others", theirs.assign(skill="poetry")))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("skill,C\na,1\n", "lacks the columns N"),
        ("skill,C,N\na,1,-3\n", "N must be a positive number, but one is -3"),
        ("skill,C,N,N_lo\na,1,3,x\n", "N_lo must be a positive number"),
        ("skill,C,N\na,1,3\na,1,4\n", "has a twice at one C"),
        ("skill,C,N,N_lo\na,1,3,4\n", "N must be between N_lo and N_hi, but one is 3"),
    ],
)
def test_published_optima_that_cannot_be_used_are_refused(tmp_path, text, message):
    (tmp_path / "theirs.csv").write_text(text)
    with pytest.raises(InputError, match=message):
        read_optima(str(tmp_path / "theirs.csv"))
    with pytest.raises(InputError, match=r"there are no published optima 'x'\. Give a CSV file, or one of roberts2025"):
        read_optima("x")
