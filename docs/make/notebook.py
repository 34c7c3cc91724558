"""Run a notebook without Jupyter, and show it as a page.

    python docs/make/notebook.py examples/story.ipynb        # runs it in its folder and keeps the outputs

Its code cells are Python, but for lines that begin with ``!skillscale`` or ``!python FILE``, which Jupyter gives to the
shell and which are run in this process here. What they print, and a figure left open at the end, are the outputs.
"""

import base64
import contextlib
import io
import json
import os
import runpy
import shlex
import sys
from pathlib import Path
from typing import Any

from skillscale import cli


def run(notebook: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Run a notebook in a folder and return it with its outputs.

    Raises:
        RuntimeError: a command failed.
    """
    os.environ.setdefault("MPLBACKEND", "agg")
    space: dict[str, Any] = {"__name__": "notebook"}
    cells, count = [], 0
    with contextlib.chdir(folder):
        sys.path.insert(0, str(folder))
        try:
            for cell in notebook["cells"]:
                ran: dict[str, Any] = {}
                if cell["cell_type"] == "code":
                    count += 1
                    ran = {"execution_count": count, "outputs": _outputs("".join(cell["source"]), space)}
                cells.append(cell | ran)
        finally:
            sys.path.remove(str(folder))
    return notebook | {"cells": cells}


def page(notebook: dict[str, Any]) -> str:
    """Return a notebook as Markdown, with outputs below the cells."""
    parts: list[str] = []
    for cell in notebook["cells"]:
        source = "".join(cell["source"])
        parts.append(source if cell["cell_type"] == "markdown" else f"```python\n{source}\n```")
        for output in cell.get("outputs", ()):
            if "text" in output:
                parts.append("```text\n" + "".join(output["text"]).rstrip() + "\n```")
            else:
                parts.append(f"![What the cell draws](data:image/png;base64,{output['data']['image/png']})")
    return "\n\n".join([*parts, ""])


def text_of(notebook: dict[str, Any]) -> list[str]:
    """Return the printed text of each cell."""
    outputs = [output for cell in notebook["cells"] for output in cell.get("outputs", ())]
    return ["".join(output["text"]) for output in outputs if "text" in output]


def _outputs(source: str, space: dict[str, Any]) -> list[dict[str, Any]]:
    printed = io.StringIO()
    python = []
    with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
        for line in source.splitlines():
            if line.startswith("!"):
                _shell(shlex.split(line[1:], comments=True), printed)
            else:
                python.append(line)
        exec(compile("\n".join(python), "cell", "exec"), space)
    outputs: list[dict[str, Any]] = []
    if printed.getvalue():
        outputs.append(
            {"output_type": "stream", "name": "stdout", "text": printed.getvalue().splitlines(keepends=True)}
        )
    return outputs + _figures()


def _shell(words: list[str], printed: io.StringIO) -> None:
    if words[0] == "python":
        runpy.run_path(words[1], run_name="__main__")
    elif words[0] != "skillscale" or cli.main(words[1:], answer=printed) != 0:
        raise RuntimeError(f"{shlex.join(words)} failed: {printed.getvalue()[-500:]}")


def _figures() -> list[dict[str, Any]]:
    """Figures that are open, as Jupyter would show them."""
    if "matplotlib.pyplot" not in sys.modules:
        return []
    pyplot = sys.modules["matplotlib.pyplot"]
    outputs = []
    for number in pyplot.get_fignums():
        png = io.BytesIO()
        pyplot.figure(number).savefig(png, format="png", dpi=80)
        data = {"image/png": base64.b64encode(png.getvalue()).decode()}
        outputs.append({"output_type": "display_data", "data": data, "metadata": {}})
    pyplot.close("all")
    return outputs


if __name__ == "__main__":
    path = Path(sys.argv[1]).absolute()
    done = run(json.loads(path.read_text(encoding="utf-8")), path.parent)
    path.write_text(json.dumps(done, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
