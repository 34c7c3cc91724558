"""The registered law as MLflow loads it: a damaged document and frames that are none are refused in one line."""

import json
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
from planted_laws import bound, scattered, truth

from skillscale.errors import InputError
from skillscale.laws.fit.skill_law import fit_skill
from skillscale.laws.io.document import law_document

pytestmark = pytest.mark.filterwarnings("ignore:.*type hint:UserWarning")  # of MLflow, about its own types


@pytest.fixture(scope="module")
def document():
    points = scattered(bound("separable"), truth("separable"), n=60, noise=0.005)
    return law_document({"code": fit_skill("code", points, law=bound("separable"), resamples=20)})


@pytest.fixture
def load(tmp_path):
    from skillscale.tracking.law_pyfunc import LawModel

    def load(text):
        path, model = tmp_path / "law.json", LawModel()
        path.write_text(text)
        model.load_context(SimpleNamespace(artifacts={"law": str(path)}))
        return model

    return load


@pytest.mark.parametrize(
    "text", ["", "[1, 2]", "[" * 10_000, '{"schema": 2, "skills": {"a": null}}', '{"schema": NaN}']
)
def test_a_damaged_law_is_not_loaded(load, text):
    with pytest.raises(InputError, match="this registered model"):
        load(text)


SIZES = {"n_params": [1e7], "n_tokens": [1e9]}


@pytest.mark.parametrize(
    ("frame", "problem"),
    [
        (None, "give a data frame"),
        ([[1e7, 1e9]], "give a data frame"),
        (pd.DataFrame(SIZES)[:0], "has no rows"),
        (pd.DataFrame({"n_params": [1e7]}), "lacks n_tokens"),
        (pd.DataFrame([[1.0, 2.0, 3.0]], columns=["n_params", "n_tokens", "n_tokens"]), "'n_tokens' twice"),
        (pd.DataFrame(SIZES | {"n_params": ["many"]}), "columns of numbers"),
        (pd.DataFrame(SIZES | {"n_params": [None]}), "row 0 has nan"),
        (pd.DataFrame(SIZES | {"n_params": [-1.0]}), "row 0 has -1"),
        (pd.DataFrame(SIZES | {"n_tokens": [np.inf]}), "row 0 has inf"),
        (pd.DataFrame(SIZES | {"n_tokens": [[1, 2]]}), "columns of numbers"),
        (pd.DataFrame(SIZES | {"skill": ["prose"]}), "there is no law of 'prose'"),
        (pd.DataFrame(SIZES | {"skill": [np.nan]}), "there is no law of nan"),
        (pd.DataFrame(SIZES | {"skill": [5]}), "there is no law of 5"),
        (pd.DataFrame(SIZES | {"mix/code": [0.5]}), "a share of every category"),
        (pd.DataFrame(SIZES | {"mix/code": ["a"], "mix/prose": [0.5], "mix/web": [0.5]}), "numbers"),
        (pd.DataFrame(SIZES | {"mix/code": [7.0], "mix/prose": [0.5], "mix/web": [0.5]}), "sum to 1"),
    ],
)
def test_a_frame_that_is_none_is_refused(load, document, frame, problem):
    from planted_laws import CATEGORIES

    if isinstance(frame, pd.DataFrame):
        frame = frame.rename(columns=dict(zip(("mix/code", "mix/prose", "mix/web"),
                                              (f"mix/{name}" for name in CATEGORIES), strict=True)))  # fmt: skip
    with pytest.raises(InputError, match=problem):
        load(json.dumps(document)).predict(None, frame)


def test_a_frame_of_numbers_is_answered(load, document):
    predicted = load(json.dumps(document)).predict(None, pd.DataFrame(SIZES | {"skill": ["code"]}))
    assert predicted["loss"].between(0.01, 100).all()
    assert list(predicted["skill"]) == ["code"]
