"""A law written as Python says what the law says, with nothing but numpy at hand."""

import ast
import json
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from planted_laws import CATEGORIES, CENTRE, bound, scattered, truth

from skillscale.laws.fit.mix_effects import MixEffects
from skillscale.laws.fit.skill_law import fit_skill
from skillscale.laws.forms.catalogue import LAWS
from skillscale.laws.io.document import LawMetadata, SavedLaw, formula, law_document, read_document
from skillscale.laws.io.snippet import snippet

MIXES = np.array([[0.5, 0.3, 0.2], [0.05, 0.15, 0.8], [0.0, 0.4, 0.6]])
SIZES = np.array([2e3, 4e4, 9e6, 3e9])
TOKENS = np.array([7e4, 6e5, 2e8, 5e11])


def saved(name, **more):
    law = bound(name)
    mix = dict(zip(CATEGORIES, (0.2, 0.5, 0.3), strict=True)) if law.needs_mix else {}
    plain = {
        "skill": "code", "law": law, "theta": truth(name), "q": law.log_parameters(truth(name)[None]), "level": 0.9,
        "noise": 0.01, "status": "ok", "reason": "", "objective": "", "n_runs": 3, "run_ids": ("a", "b", "c"),
        "digest": "", "reach": (1e9, 1e12), "mix": mix,
    }  # fmt: skip
    return SavedLaw(**plain | more)


def defined(**laws):
    """The function that the written file defines."""
    names = {}
    exec(snippet(laws, LawMetadata(convention="all of them"), source="a test"), names)
    return names["loss"]


@pytest.mark.parametrize("name", LAWS)
def test_every_law_says_the_same_as_python(name):
    law, loss = saved(name), defined(code=saved(name))
    np.testing.assert_allclose(loss("code", SIZES, TOKENS), law.loss(SIZES, TOKENS).value, rtol=1e-12)
    for mix in MIXES if law.categories else ():
        predicted = loss("code", SIZES, TOKENS, dict(zip(CATEGORIES, mix, strict=True)))
        np.testing.assert_allclose(predicted, law.loss(SIZES, TOKENS, mix).value, rtol=1e-12)
    assert loss("code", 1e6, 1e8) == pytest.approx(law.loss(1e6, 1e8).value[0], rel=1e-12)
    assert loss("code", SIZES[:, None], TOKENS).shape == (4, 4)


@pytest.mark.parametrize("name", ["chinchilla", "farseer", "separable", "joint_mixture"])
def test_a_fitted_law_does_too(name):
    points = scattered(bound(name), truth(name), n=60, noise=0.005)
    plain = json.loads(json.dumps(law_document({"code": fit_skill("code", points, law=bound(name), resamples=100)})))
    law = read_document(plain)["code"]
    predicted = defined(code=law)("code", SIZES, TOKENS)
    np.testing.assert_allclose(predicted, law.loss(SIZES, TOKENS).value, rtol=1e-12)


def test_without_bends_farseer_has_straight_lines():
    law = saved("farseer")
    q = law.estimate
    q[[2, 5, 8]] = 0.0
    straight = replace(law, theta=np.zeros(9), law=_Straight(*CENTRE, q=tuple(q)))
    x, y = np.log(SIZES) - CENTRE[0], np.log(TOKENS) - CENTRE[1]
    rate = np.exp(q[0] + q[1] * x)
    term = q[3] + q[4] * x + (np.exp(q[0]) - rate) * CENTRE[1] - rate * y
    expected = np.exp(q[6] + q[7] * x) + np.exp(term)
    np.testing.assert_allclose(defined(code=straight)("code", SIZES, TOKENS), expected, rtol=1e-12)


class _Straight(type(LAWS["farseer"])):
    """Farseer whose log-parameters are given: those of a law without bends have no published ones."""

    def __init__(self, x0, y0, q):
        super().__init__(x0, y0)
        object.__setattr__(self, "given", np.array(q))

    def log_parameters(self, theta):
        return np.tile(self.given, (len(theta), 1))


def test_what_a_mix_adds_beyond_the_law_is_told_for_the_mixes_that_were_run():
    effects = MixEffects(categories=CATEGORIES, mixes=MIXES[:2], offsets=np.array([0.03, -0.05]))
    for name in ("separable", "chinchilla"):
        law = saved(name, effects=effects)
        loss = defined(code=law)
        for mix in MIXES:
            predicted = loss("code", SIZES, TOKENS, dict(zip(CATEGORIES, mix, strict=True)))
            np.testing.assert_allclose(predicted, law.loss(SIZES, TOKENS, mix).value, rtol=1e-12)


def test_the_file_needs_numpy_alone(tmp_path):
    text = snippet({"web/code": saved("separable"), "plain": saved("chinchilla")}, LawMetadata(), source="a test")
    imports = [node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Import | ast.ImportFrom)]
    assert [ast.unparse(node) for node in imports] == ["import numpy as np"]
    (tmp_path / "law.py").write_text(text)
    code = "import sys, law; print(law.loss('web/code', 1e6, 1e8), [m for m in sys.modules if 'skillscale' in m])"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env={}, capture_output=True, text=True)
    assert done.stderr == ""
    number, rest = done.stdout.split(maxsplit=1)
    assert float(number) == pytest.approx(saved("separable").loss(1e6, 1e8).value[0], rel=1e-12)
    assert rest.strip() == "[]"


@pytest.mark.parametrize("name", LAWS)
def test_every_formula_can_be_read_by_itself(name):
    text = formula(bound(name))
    assert text.startswith("L")
    assert "``" not in text.partition(":")[0]
    assert ("x = ln N - 10.59" in text) == (name in ("drifting", "separable", "separable_transient"))


EVIL = (
    'x"""\nimport os; os.system("touch PWNED")\n"""', "x'); import os; ('", "x\r\nimport os", "x\u2028import os",
    "x\x85import os", "x\x0cimport os", "\\", "x\\", "# x", "{x}", "%s", "x\ud800", "\u202ex", "\x00", "'''",
    """a"b'c""",
)  # fmt: skip
FORBIDDEN = {"Lambda", "ClassDef", "With", "Try", "Global", "Nonlocal", "Delete", "Await", "Yield", "ImportFrom"}


@pytest.mark.parametrize("name", EVIL)
@pytest.mark.parametrize("law_name", ["chinchilla", "separable"])
def test_no_name_becomes_code(name, law_name, tmp_path, monkeypatch):
    """Skill, category, convention, mix and source: whatever stands in them, the file has the nodes of a plain one."""
    law = saved(law_name)
    if law.categories:
        names = (name, *CATEGORIES[1:])
        shares = dict(zip(names, (0.2, 0.5, 0.3), strict=True))
        law = saved(law_name, law=replace(law.law, categories=names).for_skill(name), mix=shares)
    about = LawMetadata(convention=name, aggregates=(name,), mixes={f"{name}/code": name})
    text = snippet({name: law, f"{name}/code": law}, about, source=name)
    plain = snippet({"code": saved(law_name), "web/code": saved(law_name)}, LawMetadata(), source="a test")
    nodes, expected = ([type(node).__name__ for node in ast.walk(ast.parse(file))] for file in (text, plain))
    assert nodes == expected
    assert not FORBIDDEN & set(nodes)
    assert nodes.count("Import") == 1
    assert len(text.splitlines()) == len(plain.splitlines())
    monkeypatch.chdir(tmp_path)
    module = {}
    exec(text, module)
    assert module["loss"](name, 1e7, 1e9) == pytest.approx(law.loss(1e7, 1e9).value[0])
    assert list(tmp_path.iterdir()) == []
