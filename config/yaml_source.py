"""YAML as a tree of plain values that remembers the file and line of every part.

Stricter than YAML 1.1: `yes`, `no` and `on` stay text (a region may be called `no`), a leading zero stays text
(`00123` is a customer number), a key may stand once only, and size, depth and alias expansion are limited.
"""

import gc
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import yaml

Location = tuple[str | int, ...]
"""Where a value stands: section, index, field and so on, such as ("customers", 3, "contracts", 0, "plan")."""

FILE_BYTES_MAX: Final = 16 << 20
FILES_MAX: Final = 1000
VALUES_MAX: Final = 4_000_000
DEPTH_MAX: Final = 32

_TAGS: Final = frozenset(
    f"tag:yaml.org,2002:{kind}" for kind in ("map", "seq", "str", "int", "float", "bool", "null", "timestamp")
)


class _Loader(yaml.CSafeLoader):
    """The safe loader with the scalars of YAML 1.2: see the module's docstring."""


_Loader.yaml_implicit_resolvers = {
    first: [
        (tag, pattern)
        for tag, pattern in resolvers
        if tag.rsplit(":", 1)[1] not in {"bool", "int", "float", "merge", "value"}
    ]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver("tag:yaml.org,2002:bool", re.compile(r"^(?:true|True|false|False)$"), list("tTfF"))
_Loader.add_implicit_resolver("tag:yaml.org,2002:int", re.compile(r"^-?(?:0|[1-9][0-9]*)$"), list("-0123456789"))
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^-?(?:0|[1-9][0-9]*)(?:\.[0-9]+(?:[eE][-+]?[0-9]+)?|[eE][-+]?[0-9]+)$"),
    list("-0123456789"),
)


@dataclass
class Source:
    """Values of one or more YAML files, their lines, and the problems met while reading them."""

    values: dict[str, Any] = field(default_factory=dict)
    lines: dict[Location, str] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    root: str = ""

    def where(self, location: Location) -> str:
        """Return `file:line` of that part, or of the nearest part around it that was written."""
        for end in range(len(location), -1, -1):
            found = self.lines.get(location[:end])
            if found is not None:
                return found
        return self.root

    def written(self, location: Location) -> Location:
        """Return the longest beginning of the location that was written in a file."""
        for end in range(len(location), 0, -1):
            if location[:end] in self.lines:
                return location[:end]
        return ()

    def value(self, location: Location) -> Any:
        """Return the value at that place; None where nothing was written."""
        value: Any = self.values
        for part in location:
            try:
                value = value[part]
            except (KeyError, IndexError, TypeError):
                return None
        return value

    def name(self, location: Location) -> str:
        """Return the place for people: list elements by their id where they have one."""
        text = ""
        for end, part in enumerate(location, start=1):
            if isinstance(part, int):
                element = self.value(location[:end])
                label = element.get("id") if isinstance(element, Mapping) else None
                text += f"[{label if isinstance(label, str) else part}]"
            else:
                text += f".{part}" if text else part
        return text


class _Reader:
    """Turns the nodes of one file into values and lines."""

    def __init__(self, file: str) -> None:
        self.file = file
        self.lines: dict[Location, str] = {}
        self.problems: list[str] = []
        self._constructor = yaml.constructor.SafeConstructor()

    def at(self, node: yaml.Node) -> str:
        return f"{self.file}:{node.start_mark.line + 1}"

    def convert(self, node: yaml.Node, location: Location) -> Any:
        """Return the node's value; raise ValueError if it is nested too deep."""
        if len(location) > DEPTH_MAX:
            message = f"{self.at(node)}: nested deeper than {DEPTH_MAX}. hint: that is no configuration"
            raise ValueError(message)
        self.lines.setdefault(location, self.at(node))
        if node.tag not in _TAGS:
            self.problems.append(f"{self.at(node)}: the tag {node.tag} is not allowed. hint: write plain values")
            return None
        if isinstance(node, yaml.MappingNode):
            return dict(self._pairs(node, location))
        if isinstance(node, yaml.SequenceNode):
            return [self.convert(item, (*location, place)) for place, item in enumerate(node.value)]
        return self._scalar(node, location)

    def _pairs(self, node: yaml.MappingNode, location: Location) -> Iterator[tuple[str, Any]]:
        seen: dict[str, int] = {}
        for key_node, value_node in node.value:
            key = key_node.value
            if not isinstance(key_node, yaml.ScalarNode) or key == "<<":
                self.problems.append(f"{self.at(key_node)}: a key must be plain text. hint: write the field out")
                continue
            if key in seen:
                name = ".".join(map(str, (*location, key)))
                self.problems.append(
                    f"{self.at(key_node)}: {name}: the key stands twice in one mapping (first in line {seen[key]})."
                    " hint: remove one"
                )
                continue
            seen[key] = key_node.start_mark.line + 1
            self.lines[(*location, key)] = self.at(key_node)
            yield key, self.convert(value_node, (*location, key))

    def _scalar(self, node: yaml.Node, location: Location) -> Any:
        try:
            return self._constructor.construct_object(node, deep=True)
        except (ValueError, yaml.YAMLError):
            what = ".".join(map(str, location))
            self.problems.append(f"{self.at(node)}: {what}: cannot be read (got {node.value!r}). hint: quote it")
            return None


def read(path: Path) -> Source:
    """Read a YAML file, or all `*.yaml` of a directory as one. Problems are collected, never raised."""
    source = Source(root=str(path))
    for file in _files(path, source):
        reader = _Reader(str(file))
        try:
            values = _values(file, reader)
        except ValueError as error:
            source.problems += [*reader.problems, str(error)]
            continue
        source.problems += reader.problems
        _merge(source, values, reader)
    return source


def _count(node: yaml.Node, known: dict[int, int]) -> int:
    """Return how many values the node stands for with its aliases written out; too many for a circle."""
    if isinstance(node, yaml.ScalarNode):
        return 1
    found = known.get(id(node))
    if found is None:
        known[id(node)] = VALUES_MAX + 1  # met again inside itself
        children = (part for pair in node.value for part in (pair if isinstance(pair, tuple) else (pair,)))
        found = known[id(node)] = 1 + sum(_count(child, known) for child in children)
    return found


@contextmanager
def _collector_paused() -> Iterator[None]:
    """Hold the garbage collector off while many small objects are made that all stay: four times the speed."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def _files(path: Path, source: Source) -> list[Path]:
    if not path.exists():
        source.problems.append(f"{path}: no such file. hint: name it with --config or METERBRIDGE_CONFIG_FILE")
        return []
    if not path.is_dir():
        return [path]
    files = sorted(path.glob("*.yaml"))
    if not files:
        source.problems.append(f"{path}: no *.yaml file in this directory. hint: name a file")
    if len(files) > FILES_MAX:
        source.problems.append(f"{path}: more than {FILES_MAX} files. hint: join some")
        return []
    return files


def _values(file: Path, reader: _Reader) -> dict[str, Any]:
    try:
        size = file.stat().st_size
        if size > FILE_BYTES_MAX:
            message = f"{file}: {size} bytes, more than {FILE_BYTES_MAX}. hint: split it into a directory"
            raise ValueError(message)
        with _collector_paused():
            node = yaml.compose(file.read_text(encoding="utf-8"), Loader=_Loader)
        count = _count(node, {}) if node is not None else 0
    except OSError as error:
        message = f"{file}: cannot be read: {error.strerror}. hint: check the path and its permissions"
        raise ValueError(message) from error
    except UnicodeDecodeError as error:
        message = f"{file}: not UTF-8 at byte {error.start}. hint: save the file as UTF-8"
        raise ValueError(message) from error
    except RecursionError as error:
        message = f"{file}: nested too deeply. hint: at most {DEPTH_MAX} levels"
        raise ValueError(message) from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = f"{file}:{mark.line + 1}" if mark is not None else str(file)
        message = f"{place}: not YAML: {getattr(error, 'problem', None) or error}. hint: check indentation and quotes"
        raise ValueError(message) from error
    if node is None:
        return {}
    if not isinstance(node, yaml.MappingNode):
        message = f"{reader.at(node)}: must be a mapping of sections. hint: begin with a section such as `meters:`"
        raise ValueError(message)
    if count > VALUES_MAX:
        message = f"{file}: more than {VALUES_MAX} values, or an alias inside itself. hint: repeat fewer large anchors"
        raise ValueError(message)
    values = reader.convert(node, ())
    assert isinstance(values, dict)  # noqa: S101  # a mapping node gives a dict
    return values


def _merge(source: Source, values: dict[str, Any], reader: _Reader) -> None:
    """Append one file's lists to the sections read so far; mappings join, a key in two files is a problem."""
    shifts: dict[str, int] = {}
    for section, value in values.items():
        present = source.values.get(section)
        if isinstance(present, list) and isinstance(value, list):
            shifts[section] = len(present)
            present.extend(value)
        elif isinstance(present, dict) and isinstance(value, dict):
            for key in sorted(present.keys() & value.keys()):
                source.problems.append(
                    f"{reader.lines[section, key]}: {section}.{key}: also in {source.where((section, key))}."
                    " hint: keep one"
                )
            source.values[section] = present | value
        elif present is None:
            source.values[section] = value
        else:
            source.problems.append(
                f"{reader.lines[section,]}: {section}: differs in kind from {source.where((section,))}."
                " hint: a section is a list in all files, or a mapping in all"
            )
    for location, line in reader.lines.items():
        if len(location) > 1 and location[0] in shifts and isinstance(location[1], int):
            source.lines[(location[0], location[1] + shifts[str(location[0])], *location[2:])] = line
        else:
            source.lines.setdefault(location, line)
