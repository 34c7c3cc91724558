"""The notebook runs, says what it said when it was written, and its claims about the planted truth hold."""

import importlib.util
import json
import re
import shutil
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
STORY = json.loads((ROOT / "examples" / "story.ipynb").read_text(encoding="utf-8"))


def loaded(path):
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


notebook = loaded(ROOT / "docs" / "make" / "notebook.py")


def words(text):
    """Words without numbers: last digits are another processor's business."""
    return [word for word in re.findall(r"\S+", text) if not re.search(r"\d", word) and re.search(r"[a-z]", word)]


def test_the_story_runs_and_says_what_it_said(tmp_path):
    shutil.copy(ROOT / "examples" / "planted.py", tmp_path)
    done = notebook.run(STORY, tmp_path)
    printed, kept = notebook.text_of(done), notebook.text_of(STORY)
    assert [words(text) for text in printed] == [words(text) for text in kept]
    truth, regret = printed[2], printed[5]
    assert re.search(r"knowledge +4\.0 +13\.5", truth)
    assert float(re.search(r"loses ([\d.]+) nats", regret)[1]) < 0.001
    assert float(re.search(r"true N\* ([\d.]+)B", regret)[1]) == pytest.approx(5.2, rel=0.02)
    assert "image/png" in done["cells"][-2]["outputs"][0]["data"]


def test_a_command_that_fails_ends_the_run_with_what_it_said(tmp_path, capsys):
    cell = {"cell_type": "code", "source": ["!skillscale fit --tabel runs.csv\n"]}
    with pytest.raises(RuntimeError, match=r"skillscale fit --tabel runs\.csv failed"):
        notebook.run({"cells": [cell]}, tmp_path)


def test_a_page_shows_text_code_output_and_figure():
    output = [{"output_type": "stream", "text": ["2\n"]}, {"data": {"image/png": "AAAA"}}]
    cells = [
        {"cell_type": "markdown", "source": ["# One\n", "two"]},
        {"cell_type": "code", "source": ["print(2)"], "outputs": output},
    ]
    page = notebook.page({"cells": cells})
    assert page.startswith("# One\ntwo\n\n```python\nprint(2)\n```\n\n```text\n2\n```\n\n![")
    assert page.rstrip().endswith("(data:image/png;base64,AAAA)")


def test_the_notebook_is_of_the_format_it_says():
    assert (STORY["nbformat"], STORY["nbformat_minor"]) == (4, 5)
    assert len({cell["id"] for cell in STORY["cells"]}) == len(STORY["cells"])
    assert all(cell["execution_count"] for cell in STORY["cells"] if cell["cell_type"] == "code")
