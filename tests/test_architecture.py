"""The house rules on imports, read from the source: one door per library, nothing upward, no cycle, nothing heavy."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[1] / "src"
PACKAGE = SOURCE / "skillscale"

DOORS = {
    "torch": {"lm"},
    "lightning": {"lm"},
    "datasets": {"lm"},
    "tokenizers": {"lm"},
    "transformers": {"lm"},
    "mlflow": {"tracking"},
    "sqlalchemy": {"tracking"},
    "optuna": {"execution", "sampler", "simulation", "tracking"},
    "scipy": {"design", "laws", "report", "simulation"},
    "matplotlib": {"report"},
    "optuna_dashboard": {"sampler"},
    "submitit": {"execution"},
    "ray": {"execution"},
}
HEAVY = (
    "torch", "transformers", "lightning", "datasets", "tokenizers", "mlflow", "optuna", "scipy", "pandas", "numpy",
    "matplotlib",
)  # fmt: skip


def modules() -> dict[str, ast.Module]:
    """Each module of the package by its dotted name."""
    return {
        ".".join(path.relative_to(SOURCE).with_suffix("").parts): ast.parse(path.read_text(encoding="utf-8"))
        for path in sorted(PACKAGE.rglob("*.py"))
    }


def room(module: str) -> str:
    """``skillscale.lm.train.loop`` is in ``lm``."""
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else "__init__"


def imported(tree: ast.AST, known: set[str]) -> Iterator[str]:
    """Names of the modules that a tree imports, at any depth; ``from skillscale import point`` is skillscale.point."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"relative import in line {node.lineno}"
            for alias in node.names:
                inside = f"{node.module}.{alias.name}"
                yield inside if inside in known or f"{inside}.__init__" in known else str(node.module)


def own_imports() -> dict[str, set[str]]:
    trees = modules()
    known = set(trees)
    graph: dict[str, set[str]] = {}
    for name, tree in trees.items():
        found = {f"{one}.__init__" if f"{one}.__init__" in known else one for one in imported(tree, known)}
        graph[name] = {one for one in found if one.startswith("skillscale.")}
    return graph


def test_every_module_has_a_docstring():
    trees = modules()
    assert {name for name, tree in trees.items() if not ast.get_docstring(tree)} == set()


def test_each_outside_library_has_one_door():
    trees = modules()
    trespassers = {
        (name, library)
        for name, tree in trees.items()
        for library in {one.split(".")[0] for one in imported(tree, set(trees))}
        if library in DOORS and room(name) not in DOORS[library]
    }
    assert trespassers == set()


def test_transformers_has_a_module_of_its_own():
    """It builds and reads models of others: what may be run of those is decided in one place."""
    trees = modules()
    graph = {name: {one.split(".")[0] for one in imported(tree, set())} for name, tree in trees.items()}
    assert {name for name, libraries in graph.items() if "transformers" in libraries} == {
        "skillscale.lm.evaluation.hf_model"
    }


def test_rooms_import_downwards():
    """The layers of ``[tool.importlinter]`` in pyproject.toml hold, and every room has its layer."""
    done = subprocess.run(
        [sys.executable, "-c", "from importlinter.cli import lint_imports; raise SystemExit(lint_imports())"],
        cwd=SOURCE.parent, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout


def test_no_cycle():
    graph = own_imports()
    assert "skillscale.errors" in graph["skillscale.config.schema"], "the reader of imports sees nothing"
    while graph:
        leaves = {name for name, others in graph.items() if not (others - {name}) & set(graph)}
        assert leaves, f"these import one another in a circle: {sorted(graph)}"
        graph = {name: others for name, others in graph.items() if name not in leaves}


@pytest.mark.parametrize("module", ["skillscale", "skillscale.cli", "skillscale.record"])
def test_importing_does_nothing_heavy(module, tmp_path):
    code = f"import sys, {module}; print(*(name for name in {HEAVY} if name in sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env={"PYTHONPATH": str(SOURCE)}, capture_output=True, text=True
    )
    assert (done.returncode, done.stdout.strip(), done.stderr) == (0, "", "")
    assert list(tmp_path.iterdir()) == []


PRONOUNS = {
    "one", "each", "told", "found", "asked", "known", "wanted", "begun", "left", "own", "beside", "said",
}  # fmt: skip


def bindings(tree):
    """Names that a module binds: variables, arguments, functions, classes, imports, keyword arguments."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id
        elif isinstance(node, ast.arg | ast.keyword):
            yield node.arg or ""
        elif isinstance(node, ast.FunctionDef | ast.ClassDef):
            yield node.name
        elif isinstance(node, ast.alias):
            yield node.asname or node.name
        elif isinstance(node, ast.ExceptHandler):
            yield node.name or ""


def test_no_binding_is_a_pronoun_or_a_participle():
    wrong = {
        (module, name) for module, tree in modules().items() for name in bindings(tree) if name.strip("_") in PRONOUNS
    }
    assert wrong == set(), "name it by the field's word for what it is"


def test_each_class_name_is_used_once():
    places = {}
    for module, tree in modules().items():
        for node in tree.body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                places.setdefault(node.name, []).append(module)
    assert {name: homes for name, homes in places.items() if len(homes) > 1} == {}


def test_no_option_travels_as_a_mapping():
    """Rooms take option values: only the command line knows options by name."""
    travellers = [
        str(path.relative_to(PACKAGE)) for path in PACKAGE.rglob("*.py")
        if "arguments: Mapping[str, Any]" in path.read_text() and "cli" not in path.parts
    ]  # fmt: skip
    assert travellers == []


def test_commands_are_thin_and_import_no_other_command():
    for path in sorted((PACKAGE / "commands").glob("*.py")):
        text = path.read_text()
        assert len(text.splitlines()) <= 130, path.name
        assert "skillscale.commands" not in text, path.name


def test_the_package_has_at_most_fourteen_rooms_and_no_loose_module_but_the_vocabulary():
    rooms = {path.name for path in PACKAGE.iterdir() if path.is_dir() and path.name != "__pycache__"}
    assert len(rooms) <= 14
    loose = {path.stem for path in PACKAGE.glob("*.py")}
    assert loose == {"__init__", "__main__", "errors", "formatting", "point", "record"}
