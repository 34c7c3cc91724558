"""Functions and files are cut as said."""

import ast
import warnings
import zipfile
from pathlib import Path

from skillscale.lm.data.corpora import code

SOURCE = '''
class Box:
    @property
    def area(self, *,
             scale=1):
        """Area of the box.

        Long story.
        """

        value = self.width * self.height
        return value * scale

    def empty(self):
        """Nothing to do."""

    def bare(self):
        return 1


async def later(x):
    "Say \\\\d later."
    await x
    return x
'''


def test_functions_are_cut_after_the_summary_of_their_docstring() -> None:
    functions = dict(code.find_documented_functions(SOURCE))
    assert functions == {
        'def area(self, *,\n         scale=1):\n    """Area of the box."""': (
            "\n    value = self.width * self.height\n    return value * scale\n"
        ),
        'async def later(x):\n    """Say \\\\d later."""': "\n    await x\n    return x\n",
    }
    for prompt, body in functions.items():
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            ast.parse(prompt + body)
    assert list(code.find_documented_functions("print 'old'")) == []


def test_only_files_worth_learning_from_are_read(tmp_path: Path) -> None:
    good = "value = 1\n" * 20
    with zipfile.ZipFile(tmp_path / "a.whl", "w") as bundle:
        for name in (
            "p/good.py",
            "p/tests/x.py",
            "p/test_x.py",
            "p/_vendor/y.py",
            "p/contest.py",
            "p/x_test.py",
            "p/a.txt",
        ):
            bundle.writestr(name, good)
        bundle.writestr("p/table.py", "t = '" + "x" * 1000 + "'\n")
        bundle.writestr("p/latin.py", b"# caf\xe9\n" + good.encode())
        bundle.writestr("p/short.py", "\n")
    assert [path for path, _ in code.read_python_files(tmp_path / "a.whl")] == ["p/contest.py", "p/good.py"]


def test_bodies_fit_a_small_context() -> None:
    long = 'def f(x):\n    """Long."""\n' + "    x = x + 1\n" * 60 + "    return x\n"
    (item,) = code.make_body_items({"pack/a.py": SOURCE, "pack/b.py": long})
    assert item.prompt.startswith("def area")
    assert item.n_bytes <= code.ITEM_BYTES
    assert item.meta == {"package": "pack", "path": "pack/a.py"}
