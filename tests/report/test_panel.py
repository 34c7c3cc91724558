import html
import io
import json
import math
import re
from dataclasses import replace
from functools import cache

import numpy as np
import pandas as pd
import pytest
import report_studies as studies

from skillscale.cli import COMMANDS, main
from skillscale.laws.fit.data import RunData
from skillscale.laws.fit.skill_law import fit_together
from skillscale.laws.forms.catalogue import LAWS
from skillscale.laws.io.javascript import javascript_of
from skillscale.laws.optimum.ensemble import Ensemble, resolve_shares
from skillscale.laws.optimum.optimum import weighted_optimum
from skillscale.laws.optimum.plan import PlanRequest, size_costs
from skillscale.laws.uncertainty.bootstrap import ResamplingMethod
from skillscale.laws.uncertainty.resamples import interval
from skillscale.report import panel as panel_module
from skillscale.report.page import render_page
from skillscale.report.panel import Panel, PanelGroup, make_panel

mini_racer = pytest.importorskip("py_mini_racer", reason="no JavaScript engine: pip install mini-racer")
SKILLS = ("code", "prose", "facts")
EVIL = "</script><img src=x onerror=alert(1)>"


@pytest.fixture(scope="module")
def engine():
    return mini_racer.MiniRacer()


def fitted(name):
    """Laws of three skills with draws, and with a rival where there are two names."""
    chosen, *rivals = [fit(law) for law in name.split(" or ")]
    if not rivals:
        return chosen
    return {
        skill: replace(chosen[skill], weight=0.6, rivals=(replace(rivals[0][skill], weight=0.4),)) for skill in chosen
    }


@cache
def fit(name):
    """Fit a law to runs of three skills, which follow the law of Chinchilla with noise."""
    rng = np.random.default_rng(3)
    N, D = (grid.ravel() for grid in np.meshgrid(np.geomspace(1e7, 1e9, 6), np.geomspace(3e8, 3e10, 6)))
    h = rng.dirichlet([3, 3, 3], size=len(N))
    clusters = [f"run {at}" for at in range(len(N))]
    data = {}
    for at, skill in enumerate(SKILLS):
        L = 1.6 + (300 + 60 * at) * N ** -(0.33 + 0.01 * at) + 400 * D**-0.29
        L = L * np.exp(-0.1 * h[:, at] + 0.001 * rng.standard_normal(len(N)))
        data[skill] = RunData(N=N, D=D, L=L, h=h, categories=SKILLS, clusters=np.array(clusters))
    return fit_together(data, law=LAWS[name], method=ResamplingMethod.WILD, resamples=150)


def ask(engine, panel, question):
    body = str(panel.script)[len('"use strict";\n(() => {') : -len("})();")]
    script = f"JSON.stringify((() => {{{body}; const data = {panel.data}; " + (
        f"return makePanel(data, FORMULAS).answer(data.groups[0], {json.dumps(question)})}})())"
    )
    return json.loads(engine.eval(script))


@pytest.mark.parametrize("name", LAWS)
def test_the_formula_in_javascript_is_the_law(engine, name):
    law = LAWS[name].bind(19.0, 22.0, ("a", "b", "c") if LAWS[name].needs_mix else ()).for_skill("b")
    rng = np.random.default_rng(1)
    for _ in range(25):
        q, (x, y) = rng.normal(0, 0.4, len(law.log_names)), rng.uniform(-3, 3, 2).tolist()
        h = rng.dirichlet([1, 1, 1])
        z = law.covariates([math.exp(x + law.x0)], [math.exp(y + law.y0)], h if law.needs_mix else None)
        expected = float(law.log_loss(q[None], z)[0, 0])
        got = engine.eval(f"({javascript_of(law)})({q.tolist()},0,{x!r},{y!r},{h.tolist()})")
        assert got == pytest.approx(expected, rel=1e-8, abs=1e-8)


@pytest.mark.parametrize("name", ["chinchilla", "drifting", "separable", "chinchilla or drifting"])
def test_the_panel_answers_as_the_plan_does(engine, name):
    laws = fitted(name)
    panel = make_panel([PanelGroup(laws=laws, skills=SKILLS)])
    rng = np.random.default_rng(7)
    for _ in range(10):
        C, weights = float(10 ** rng.uniform(19.5, 22.5)), rng.dirichlet([1, 1, 1])
        mix = rng.dirichlet([5, 5, 5]) if name == "separable" else None
        size = float(10 ** rng.uniform(8, 10))
        request = PlanRequest(weights=dict(zip(SKILLS, weights, strict=True)), skills=SKILLS, h=mix, sizes=[size])
        optimum = weighted_optimum(laws, C, request.weights, mix)
        answer = ask(
            engine, panel, {"C": C, "weights": weights.tolist(), "mix": [] if mix is None else mix.tolist(), "N": size}
        )
        agree(answer["N"], optimum.N)
        agree(answer["D"], optimum.D)
        cost = next(item for item in size_costs(laws, C, request, optimum) if item.requested)
        agree(answer["excess"], cost.excess, floor=1e-5)
        agree(answer["compute"], cost.compute, floor=1e-3)
        for skill, shown in zip(SKILLS, answer["skills"], strict=True):
            agree(shown["N"], weighted_optimum(laws, C, {skill: 1.0}, mix).N)
            losses = Ensemble.of(laws, optimum.weights, resolve_shares(laws, mix))
            rows = losses.losses(math.log(optimum.N.value), math.log(C / 6), resolve_shares(laws, mix))
            at = SKILLS.index(skill)
            agree(shown["loss"], interval(rows[at, 0], rows[at, 1:], 0.9))
        assert any("times the largest run" in line for line in answer["warnings"]) == (1.01 * laws["code"].reach[1] < C)


def test_of_many_skills_fewer_draws_are_written_with_the_same_interval(engine, monkeypatch):
    laws = fitted("chinchilla or drifting")
    question = {"C": 1e21, "weights": [1, 1, 1], "mix": [], "N": 1e9}
    full = make_panel([PanelGroup(laws=laws)])
    monkeypatch.setattr(panel_module, "_MOST_NUMBERS", 1_500)
    thinned = make_panel([PanelGroup(laws=laws)])
    assert len(thinned.data) < 0.75 * len(full.data)
    whole, part = (ask(engine, panel, question)["N"] for panel in (full, thinned))
    assert part[0] == whole[0]
    assert part[1:] == pytest.approx(whole[1:], rel=0.03)


def agree(shown, expected, floor=0.0):
    """Compare within 1 % for the estimate, and 3 % for the ends of the interval."""
    for at, (got, value) in enumerate(zip(shown, (expected.value, expected.lo, expected.hi), strict=True)):
        if got is None:  # JSON has no infinity
            assert not math.isfinite(value)
        else:
            assert got == pytest.approx(value, rel=0.03 if at else 0.01, abs=floor)


def test_no_number_beyond_the_runs_is_without_its_warning(engine):
    panel = make_panel([PanelGroup(laws=fitted("chinchilla"))])
    near, far = (ask(engine, panel, {"C": C, "weights": [1, 1, 1], "mix": [], "N": 3e8}) for C in (6e19, 1.8e22))
    assert near["warnings"] == []
    assert not near["beyond"]
    assert "Beyond the runs: the budget is 100 times the largest run." in far["warnings"]
    assert far["beyond"]


def test_names_of_skills_cannot_leave_the_data():
    laws = fitted("chinchilla")
    panel = make_panel([PanelGroup(name=EVIL, laws={EVIL: laws["code"], "prose": laws["prose"]})], convention=EVIL)
    text = render_page("demo", [], studies.fits({}), panel=panel)
    assert "<img src=x" not in text
    scripts = re.findall(r"<script[^>]*>(.*?)</script>", text, flags=re.DOTALL)
    assert len(scripts) == 2
    assert json.loads(scripts[0])["groups"][0]["skills"][0]["name"] == EVIL
    assert html.escape(EVIL, quote=False) in text
    assert not re.search(r"innerHTML|insertAdjacentHTML|document\.write|eval\(|new Function", scripts[1])


def test_the_panel_fetches_nothing_and_is_hidden_without_javascript():
    panel = make_panel([PanelGroup(laws=fitted("chinchilla"))])
    text = render_page("demo", [], studies.fits({}), panel=panel)
    assert '<section id="what-if" hidden>' in text
    assert not re.search(r"https?://(?!www\.w3\.org/2000/svg)|fetch\(|XMLHttp|import\(|src=\"(?!data:)|<link", text)
    assert len(text) < 1.5e6


def test_there_is_no_panel_without_laws():
    assert make_panel([]) is None
    assert "what-if-data" not in render_page("demo", [], studies.fits({}))


def test_the_panel_of_a_written_page_answers_as_plan_by_the_command_line(engine, tmp_path):
    N, D = (grid.ravel() for grid in np.meshgrid(np.geomspace(1e7, 1e9, 5), np.geomspace(3e8, 5e10, 5)))
    rng = np.random.default_rng(0)
    runs = {"params": N, "tokens": D}
    for at, skill in enumerate(("code", "prose")):
        runs[f"loss_{skill}"] = (1.2 + (300 + 90 * at) * N**-0.34 + 700 * D**-0.32) * np.exp(rng.normal(0, 0.002, 25))
    pd.DataFrame(runs).to_csv(tmp_path / "t.csv", index=False)
    (tmp_path / "map.json").write_text(
        '{"n_params": "params", "n_tokens": "tokens", "skills": {"code": "loss_code", "prose": "loss_prose"}}'
    )
    table = ["--table", str(tmp_path / "t.csv"), "--columns", str(tmp_path / "map.json")]
    source = [*table, "--law", "chinchilla", "--laws.bootstrap", "laplace"]
    page, answer = tmp_path / "page.html", io.StringIO()
    assert main(["report", *source, "--page", str(page)], COMMANDS, io.StringIO()) == 0
    plan = ["plan", *source, "--flops", "1e21", "--skill_weights", "code=3,prose=1", "--force", "--json"]
    assert main(plan, COMMANDS, answer) == 0
    planned = json.loads(answer.getvalue())["plans"][0]
    text = page.read_text(encoding="utf-8")
    data, script = re.findall(r"<script[^>]*>(.*?)</script>", text, flags=re.DOTALL)
    shown = ask(engine, Panel(data=data, script=script), {"C": 1e21, "weights": [3, 1], "mix": [], "N": 1e9})
    assert shown["N"] == pytest.approx([planned["n_params"], *planned["interval"]], rel=1e-4)
    assert shown["skills"][0]["loss"][0] == pytest.approx(planned["losses"]["code"]["loss"], rel=1e-5)
