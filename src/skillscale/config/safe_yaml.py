"""YAML that somebody else may have written: plain values alone, with limits on size, depth and aliases."""

from pathlib import Path
from typing import Any

import yaml

from skillscale.errors import InputError, show

MAX_BYTES = 10 * 2**20
MAX_NODES = 100_000  # values and keys, aliases counted as what they stand for
_MAX_DEPTH = 50
_DIGITS = 300  # of an integer: no float holds more


class _Loader(yaml.SafeLoader):
    """PyYAML's safe loader, which stops as soon as a document is too large once its aliases are followed."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._n_nodes = 0
        self._depth = 0
        self._sizes: dict[int, int] = {}

    def compose_node(self, parent: Any, index: Any) -> Any:
        is_alias, before = self.check_event(yaml.AliasEvent), self._n_nodes
        self._depth += 1
        if self._depth > _MAX_DEPTH:
            raise yaml.YAMLError(f"lists and mappings are nested more than {_MAX_DEPTH} deep")
        node = super().compose_node(parent, index)
        self._depth -= 1
        # An alias within its own anchor has no size yet
        self._n_nodes += self._sizes.get(id(node), MAX_NODES) if is_alias else 1
        if self._n_nodes > MAX_NODES:
            raise yaml.YAMLError(f"it has more than {MAX_NODES:,} values, aliases counted as what they stand for")
        if not is_alias:
            self._sizes[id(node)] = self._n_nodes - before
        return node

    def construct_short_int(self, node: yaml.ScalarNode) -> int:
        """Return an integer that a float can hold."""
        if len(str(node.value)) > _DIGITS:
            raise yaml.YAMLError(f"a whole number has {len(str(node.value)):,} digits")
        return int(self.construct_yaml_int(node))


_Loader.add_constructor("tag:yaml.org,2002:int", _Loader.construct_short_int)


def load_yaml(text: str) -> Any:
    """Return the plain values of a YAML text.

    Raises:
        InputError: it is no YAML, or beyond the limits.
    """
    try:
        return yaml.load(text, Loader=_Loader)  # noqa: S506 - it extends the safe loader
    except RecursionError as error:
        raise InputError("it is nested too deeply") from error
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        place = f" in line {mark.line + 1}" if mark is not None else ""
        raise InputError(f"{show(str(error.problem or error.context)).strip(chr(34) + chr(39))}{place}") from error
    # Values that a tag or their form promises, such as the month 13, fail in many ways
    except (yaml.YAMLError, ValueError, TypeError, LookupError, AttributeError, OverflowError) as error:
        raise InputError(show(error)) from error


def read_yaml_file(path: Path) -> Any:
    """Return the plain values of a YAML file.

    Raises:
        InputError: it can't be read, is too large or no YAML.
    """
    try:
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
        if len(content) > MAX_BYTES:
            raise InputError(f"it is larger than {MAX_BYTES // 2**20} MB")
        return load_yaml(content.decode("utf-8"))
    except (OSError, ValueError) as error:  # an InputError is a ValueError
        raise InputError(f"{path} can't be read as YAML: {show(error)}") from error
