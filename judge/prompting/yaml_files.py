"""YAML files of texts, read into a dataclass: every problem is a line that names the file and the field."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any

import yaml
from pydantic import TypeAdapter, ValidationError

from judge.errors import one_line

MOST_FAULTS = 20
"""Problems of one file that are named."""


def read_yaml(file: Traversable | Path, kind: type, problems: list[str], missing: str) -> Any:
    """The content of a file as a ``kind``; None where it is wrong, and then ``problems`` says why.

    ``missing`` is the remedy where there is no such file.
    """
    try:
        if isinstance(file, Path) and os.path.exists(file) and not os.path.isfile(file):
            raise OSError(0, "a folder, a pipe or a device")
        # No aliases: by aliases of aliases a small file could stand for one that fills the memory.
        text = file.read_text(encoding="utf-8")
        if "*" in text and any(isinstance(event, yaml.AliasEvent) for event in yaml.parse(text, yaml.SafeLoader)):
            raise yaml.YAMLError("an alias (*name); write the text out")
        loader = yaml.SafeLoader(text)
        node = loader.get_single_node()
        if twice := next(_keys_twice(node), None):
            raise yaml.YAMLError(f"the key {twice!r} stands twice; remove one")
        return TypeAdapter(kind).validate_python(None if node is None else loader.construct_document(node))
    except FileNotFoundError:
        problems.append(f"{file}: missing; {missing}")
    except UnicodeDecodeError as error:
        problems.append(f"{file}: not UTF-8 at byte {error.start}; save it as UTF-8")
    except OSError as error:
        problems.append(f"{file}: cannot be read ({error.strerror}); check the file")
    except ValidationError as error:
        for fault in error.errors(include_input=False)[:MOST_FAULTS]:
            name = ".".join(str(part) for part in fault["loc"] if part != "[key]") or "(whole file)"
            said = "holds no fields (name: text)" if fault["type"] == "dataclass_type" else fault["msg"].lower()
            problems.append(f"{file}: field {name}: {said}; fix it")
    except (yaml.YAMLError, RecursionError, ValueError, LookupError, TypeError, AttributeError) as error:
        problems.append(f"{file}: not YAML ({one_line(error)}); fix the syntax")  # PyYAML fails in many ways
    return None


def _keys_twice(node: yaml.Node | None) -> Iterator[str]:
    """The keys that stand twice in an object somewhere in a YAML text, of which one would be lost."""
    if isinstance(node, yaml.MappingNode):
        keys = [str(key.value) for key, _ in node.value]
        yield from (key for key, count in Counter(keys).items() if count > 1)
        for _, value in node.value:
            yield from _keys_twice(value)


def wrong_placeholders(texts: Mapping[str, Any], placeholders: Mapping[str, Sequence[str]]) -> Iterator[str]:
    """What is wrong with the texts of a file that are filled in, by the names of what stands in each."""
    for name, names in ((name, names) for name, names in placeholders.items() if name in texts):
        # Filling the text in shows every fault at once: a name that is missing, unknown, or has a brace too many.
        try:
            filled = texts[name].format(**{one: f"\0{one}\0" for one in names})
        except (KeyError, IndexError, ValueError, AttributeError):
            filled = ""
        if any(f"\0{one}\0" not in filled for one in names):
            yield f"field {name}: {{{'} and {'.join(names)}}} must stand in it, and nothing else in braces; fix it"
