"""Whatever stands in a table, a column map or a law document: a command ends with a code and a line, never a traceback.

A quick run has 20 examples of each kind. `make fuzz` has 10,000 in all, in about an hour.
"""

import copy
import csv
import io
import json
import os

import numpy as np
import pytest
import yaml

from skillscale.cli import COMMANDS, main
from skillscale.errors import safe_text
from skillscale.laws.fit.skill_law import fit_skill
from skillscale.laws.io.document import law_document

pytest.importorskip("hypothesis")
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from planted_laws import bound, scattered, truth

pytestmark = pytest.mark.filterwarnings("ignore")  # of numpy on numbers that overflow
KINDS = 4
EXAMPLES = max(int(os.environ.get("SKILLSCALE_FUZZ", 20 * KINDS)) // KINDS, 1)
IS_QUICK = EXAMPLES <= 100  # a long run shows failures as they are, rather than the smallest ones after minutes
FUZZ = settings(
    max_examples=EXAMPLES, deadline=None, database=None, derandomize=IS_QUICK, suppress_health_check=list(HealthCheck),
    phases=list(Phase) if IS_QUICK else [Phase.generate],
)  # fmt: skip
QUICK = ("--law", "chinchilla", "--laws.bootstrap", "laplace", "--study.resamples", "100")
MAPPING = {
    "n_params": "n", "n_tokens": "d", "run": "run",
    "skills": {"prose": "loss", "code": {"loss": "loss2", "sem": "sem"}},
    "mix": {"a": "a", "b": "b"}, "seed": "seed", "flops": "c",
}  # fmt: skip
NAMES = ("n", "d", "run", "loss", "loss2", "sem", "a", "b", "seed", "c", "State", "step")


def good_row(at):
    n, d = (1e7, 4e7, 2e8, 9e8)[at % 4], (1e9, 6e9, 3e10)[at // 4 % 3]
    loss = 1.7 + 400 / n**0.34 + 410 / d**0.28
    return {
        "n": n, "d": d, "run": f"run{at}", "loss": loss, "loss2": 1.1 * loss, "sem": 0.01, "a": 0.25, "b": 0.75,
        "seed": at, "c": 6 * n * d, "State": "finished", "step": at,
    }  # fmt: skip


numbers = st.one_of(
    st.floats(),
    st.integers(-(2**70), 2**70),
    st.sampled_from([0, -1, 1e-300, 1e300, 1.7976931348623157e308, 2**63, 1e9]),
)
texts = st.one_of(
    st.text(max_size=12),
    st.sampled_from([
        "", " ", "nan", "-", "1,234", "1.234,5", "250M", "1e", "0x1F", "True", "=1+1", "'", '"', "\\", "a\nb",
        "\x1b[31m", "\u202e", "\ufeff", "9" * 400, "x" * 300, "{'a': 1}", "[1]", "{}", "__import__('os')", "%s", "{0}",
        "../..", "~", "null", "2024-01-01", "crashed", "1_000", "+5", "1e999", "Infinity", "-0", "é", "\ud800", "\x00",
    ]),
)  # fmt: skip
cells = st.one_of(numbers, texts, st.none(), st.booleans())
values = st.recursive(
    st.one_of(cells, st.sampled_from([*NAMES, "all", "bits", "prose", "code"])),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.dictionaries(
            st.one_of(texts, st.sampled_from([*MAPPING, *NAMES, "prose", "file", "by"])), inner, max_size=4
        ),
    ),
    max_leaves=8,
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("fuzz")
    write_rows(path / "good.csv", [good_row(at) for at in range(12)], NAMES)
    (path / "good.yaml").write_text(yaml.safe_dump(MAPPING))
    return path


@pytest.fixture(scope="module")
def documents():
    made = []
    for name in ("chinchilla", "separable", "farseer"):
        points = scattered(bound(name), truth(name), n=40, noise=0.005)
        made.append(
            json.loads(json.dumps(law_document({"code": fit_skill("code", points, law=bound(name), resamples=8)})))
        )
    return made


def write_rows(path, rows, names):
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(names)
    writer.writerows([row.get(name) for name in names] for row in rows)
    path.write_bytes(text.getvalue().encode("utf-8", "surrogatepass"))


def run(capsys, *words):
    """Run a command; anything but a code and a line is an error."""
    capsys.readouterr()
    code = main(list(words), COMMANDS, io.StringIO())
    errors = [line for line in capsys.readouterr().err.splitlines() if line.startswith("skillscale: error: ")]
    assert code in (0, 1, 2)
    assert len(errors) == (code != 0)
    assert all(len(line) < 5_000 and safe_text(line) == line for line in errors)
    return code


def mutated(data, text):
    """Return bytes that differ from a text in some places."""
    content = bytearray(text.encode("utf-8", "surrogatepass"))
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, max(len(content) - 1, 0)))
        length = data.draw(st.integers(0, 12))
        new = data.draw(st.one_of(st.binary(max_size=6), texts.map(lambda text: text.encode("utf-8", "surrogatepass"))))
        content[at : at + length] = new
    return bytes(content)


def paths(value, path=()):
    """Yield the place of every part of plain values; of long lists the first parts alone."""
    yield path
    parts = value.items() if isinstance(value, dict) else enumerate(value[:3]) if isinstance(value, list) else ()
    for key, part in parts:
        yield from paths(part, (*path, key))


def put(value, path, new):
    """Return plain values with another part at a place."""
    if not path:
        return new
    changed = copy.copy(value)
    changed[path[0]] = put(value[path[0]], path[1:], new)
    return changed


@FUZZ
@given(data=st.data())
def test_tables(folder, capsys, data):
    rows = [good_row(at) for at in range(data.draw(st.integers(0, 14)))]
    names = list(NAMES)
    for _ in range(data.draw(st.integers(0, 10)) if rows else 0):
        at, name = data.draw(st.integers(0, len(rows) - 1)), data.draw(st.sampled_from(NAMES))
        rows[at] = rows[at] | {name: data.draw(cells)}
    if data.draw(st.booleans()):
        column, name = data.draw(st.integers(0, len(names) - 1)), data.draw(st.sampled_from(NAMES))
        rows = [row | {name: data.draw(cells)} for row in rows]
        if data.draw(st.booleans()):
            names[column] = data.draw(st.one_of(texts, st.sampled_from(NAMES)))
    path = folder / "table.csv"
    write_rows(path, rows, names)
    if data.draw(st.integers(0, 3)) == 0:
        path.write_bytes(mutated(data, path.read_text("utf-8", "surrogatepass")))
    run(capsys, "fit", "--table", str(path), "--columns", str(folder / "good.yaml"), *QUICK)


@FUZZ
@given(data=st.data())
def test_json_tables(folder, capsys, data):
    rows = [good_row(at) for at in range(data.draw(st.integers(1, 12)))]
    for _ in range(data.draw(st.integers(0, 6))):
        at, name = data.draw(st.integers(0, len(rows) - 1)), data.draw(st.one_of(st.sampled_from(NAMES), texts))
        rows[at] = rows[at] | {name: data.draw(values)}
    kind = data.draw(st.sampled_from(["lines", "records", "mutated", "results"]))
    path = folder / ("table.jsonl" if kind == "lines" else "table.json")
    text = "\n".join(map(json.dumps, rows)) if kind == "lines" else json.dumps(rows)
    if kind == "results":
        results = {"results": {"task": {"loss,none": data.draw(values)}}, "config": data.draw(values)}
        text = json.dumps(results | {"model_name": data.draw(values), "date": data.draw(values)})
    path.write_bytes(mutated(data, text) if kind == "mutated" else text.encode("utf-8", "surrogatepass"))
    out = str(folder / "out.csv")
    run(
        capsys, "export", "--table", str(path), "--columns", str(folder / "good.yaml"), "--file", out, "--force", "true"
    )


@FUZZ
@given(data=st.data())
def test_mappings(folder, capsys, data):
    mapping = MAPPING
    more = ("where", "validation", "units", "splits", "categories", "sets", "perplexity", "purpose", "join", "best_of",
            "checkpoints", "budget")  # fmt: skip
    for _ in range(data.draw(st.integers(1, 3))):
        if data.draw(st.booleans()):
            mapping = put(mapping, data.draw(st.sampled_from(list(paths(mapping)))), data.draw(values))
            if not isinstance(mapping, dict):
                break
        else:
            mapping = mapping | {data.draw(st.sampled_from([*MAPPING, *more])): data.draw(values)}
    path = folder / "map.yaml"
    try:
        text = yaml.safe_dump(mapping, allow_unicode=data.draw(st.booleans()))
    except UnicodeEncodeError:
        text = repr(mapping)
    path.write_bytes(
        mutated(data, text) if data.draw(st.integers(0, 3)) == 0 else text.encode("utf-8", "surrogatepass")
    )
    out = str(folder / "out.csv")
    run(capsys, "export", "--table", str(folder / "good.csv"), "--columns", str(path), "--file", out, "--force", "true")


@FUZZ
@given(data=st.data())
def test_law_documents(folder, documents, capsys, data):
    document = data.draw(st.sampled_from(documents))
    for _ in range(data.draw(st.integers(1, 3))):
        place = data.draw(st.sampled_from(list(paths(document))))
        new = data.draw(st.one_of(values, numbers, st.floats(-2, 2), st.just([]), st.just({})))
        document = put(document, place, new)
        if not isinstance(document, dict):
            break
    path = folder / "law.json"
    text = json.dumps(document)
    path.write_bytes(
        mutated(data, text) if data.draw(st.integers(0, 4)) == 0 else text.encode("utf-8", "surrogatepass")
    )
    law = folder / "law.py"
    law.unlink(missing_ok=True)
    code = run(capsys, "export", "--from", str(path), "--file", str(law), "--force", "true")
    assert law.exists() == (code == 0)
    if code == 0:
        module = {}
        exec(compile(law.read_text(), "law.py", "exec"), module)
        for skill in module["LAWS"]:
            assert np.ndim(module["loss"](skill, 1e8, 1e10)) == 0
        run(capsys, "export", "--from", str(path), "--file", str(folder / "again.json"), "--force", "true")
    if code or data.draw(st.integers(0, 9)) == 0:
        run(capsys, "plan", "--from", str(path), "--flops", "1e20")
