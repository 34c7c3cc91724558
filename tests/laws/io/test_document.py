"""Fitted laws written and read back: the same predictions to the last digit, and other schemas refused."""

import json
from dataclasses import replace

import numpy as np
import pytest
from planted_laws import bound, scattered, truth

from skillscale.errors import InputError
from skillscale.laws.fit.skill_law import fit_skill
from skillscale.laws.io.document import DRAWS, LawMetadata, digest, law_document, read_document, read_metadata

MIX = np.array([0.5, 0.3, 0.2])


def fitted(name="separable"):
    points = scattered(bound(name), truth(name), n=60, noise=0.005)
    return fit_skill("code", points, law=bound(name), resamples=400)


@pytest.mark.parametrize("name", ["chinchilla", "separable", "farseer"])
def test_a_document_predicts_as_the_fit_does(name):
    original = fitted(name)
    saved = read_document(json.loads(json.dumps(law_document({"code": original}))))["code"]
    N, D = np.array([1e5, 4e5]), np.array([1e6, 3e7])
    read_back, expected = saved.loss(N, D, MIX), original.loss(N, D, MIX)
    np.testing.assert_array_equal(read_back.value, original.law.loss(original.fit.theta, N, D, MIX))
    for end in ("lo", "hi", "new_lo", "new_hi"):
        np.testing.assert_allclose(getattr(read_back, end), getattr(expected, end), rtol=0.01)
    assert saved.q.shape == (DRAWS, len(original.fit.q))
    there, here = saved.optimum(1e11, MIX), original.optimum(1e11, MIX)
    assert there.value == pytest.approx(here.value, rel=1e-12, nan_ok=True)
    assert there.lo == pytest.approx(here.lo, rel=0.1, nan_ok=True)


def test_at_no_mix_the_runs_mean_mix_is_meant():
    original = fitted()
    saved = read_document(law_document({"code": original}))["code"]
    np.testing.assert_allclose(
        saved.loss(1e5, 1e6).value, original.law.loss(original.fit.theta, 1e5, 1e6, original.mean_mix)
    )


def test_what_a_plan_needs_to_know_of_the_runs_is_kept():
    original = fitted()
    about = LawMetadata(convention="total", aggregates=("mean",), mixes={"web/code": "web"})
    plain = json.loads(json.dumps(law_document({"web/code": original}, about)))
    saved = read_document(plain)["web/code"]
    assert (saved.reach, saved.sizes, saved.noise) == (original.reach, original.sizes, original.noise)
    assert saved.sizes == (original.runs.N.min(), original.runs.N.max())
    np.testing.assert_array_equal(saved.shares, [original.runs.h.min(0), original.runs.h.max(0)])
    np.testing.assert_allclose(saved.law.theta(saved.estimate[None])[0], original.fit.theta, rtol=1e-9)
    assert saved.warnings == original.warnings
    assert read_metadata(plain) == about
    for key in ("sizes", "tokens", "shares", "warnings"):  # as in documents that were written before
        del plain["skills"]["web/code"][key]
    older = read_document({"schema": plain["schema"], "skills": plain["skills"]})["web/code"]
    assert np.isnan(older.sizes).all()
    assert (older.shares, older.warnings) == (None, ())


def test_the_runs_are_told_by_id_and_digest():
    original = fitted("chinchilla")
    labels = np.repeat([f"run{i:02d}" for i in range(30)], 2)
    points = replace(original.runs, clusters=labels, labels=labels)
    saved = read_document(law_document({"code": replace(original, runs=points)}))["code"]
    assert saved.run_ids == tuple(f"run{i:02d}" for i in range(30))
    assert saved.n_runs == 60
    assert saved.digest == digest(points) == digest(points.take(np.arange(60)[::-1]))
    changed = points.L * np.where(np.arange(60) == 7, 1 + 1e-12, 1.0)
    assert digest(replace(points, L=changed)) != saved.digest
    assert digest(replace(points, weights=np.linspace(1, 2, 60))) != saved.digest


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"schema": 1}, r"laws of schema 1, but this version reads schema 2\. Fit the runs again"),
        ({"schema": 9}, r"schema 9.*Update skillscale"),
        ({"schema": None}, "schema None"),
    ],
)
def test_another_schema_is_refused_with_the_cure(change, message):
    with pytest.raises(InputError, match=message):
        read_document(law_document({"code": fitted()}) | change, source="models:/law/1")


def test_a_law_that_is_not_known_here_is_named():
    plain = law_document({"code": fitted()})
    plain["skills"]["code"]["law"] = "kaplan"
    with pytest.raises(InputError, match=r"the law 'kaplan' for code.*It has chinchilla"):
        read_document(plain)


def test_a_damaged_document_says_what_is_missing():
    plain = law_document({"code": fitted()})
    del plain["skills"]["code"]["theta"]["alpha"]
    with pytest.raises(InputError, match="damaged: code lacks 'alpha'"):
        read_document(plain)
