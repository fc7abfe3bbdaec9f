"""YAML as people mean it, and errors as people can use them.

PyYAML follows YAML 1.1: a domain called `no` becomes False, `1e-3` stays a string, the second of two equal
keys wins silently, and 010 is 8. This reader keeps `no` and `1:30` strings, reads `1e-3` as a number and 010 as ten,
and refuses duplicate keys.
"""

import difflib
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

import yaml
from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

_MAPPING, _LIST = "it must be a mapping, {key: value, ...}", "it must be a list, [..., ...]"
_NUMBER, _WHOLE = "it must be a number", "it must be a whole number"
_EXPECTED = {  # pydantic speaks of Python; here one writes YAML
    **dict.fromkeys(("model_type", "dict_type", "mapping_type"), _MAPPING),
    **dict.fromkeys(("tuple_type", "list_type"), _LIST),
    **dict.fromkeys(("float_type", "float_parsing"), _NUMBER),
    **dict.fromkeys(("int_type", "int_parsing", "int_from_float"), _WHOLE),
    "string_type": "it must be text",
    "too_short": "it must have at least one item",
}
_POWERS = {"%": -2, "k": 3, "m": 6, "b": 9, "g": 9, "t": 12}
_UNITS = re.compile(r"([0-9]*\.?[0-9]+) ?([%kKmMbBgGtT])")


class SpaceError(ValueError):
    """The user's mistake in a space, in one sentence that names the culprit and the remedy."""


class _Loader(yaml.SafeLoader):
    """YAML 1.2's core schema for booleans and numbers; duplicate keys are errors."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key_node, _ in node.value:
            key = str(key_node.value)
            if key in seen:
                raise SpaceError(f"line {key_node.start_mark.line + 1}: the key {key!r} stands twice; keep one")
            seen.add(key)
        return super().construct_mapping(node, deep)

    def construct_whole(self, node: yaml.ScalarNode) -> int:
        text = str(node.value)
        return int(text, 0 if text[:2] in ("0x", "0o") else 10)


class _Dumper(yaml.SafeDumper):
    """Quotes what either version of YAML would read as something else than text."""


_REPLACED = ("bool", "int", "float", "timestamp")
_Loader.yaml_implicit_resolvers = {
    first: [(tag, regexp) for tag, regexp in resolvers if tag.rsplit(":", 1)[1] not in _REPLACED]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_constructor("tag:yaml.org,2002:int", _Loader.construct_whole)
for _type, _pattern, _first in (
    ("bool", r"^(true|True|TRUE|false|False|FALSE)$", "tTfF"),
    ("int", r"^[-+]?[0-9]+$|^0x[0-9a-fA-F]+$|^0o[0-7]+$", "-+0123456789"),
    (
        "float",
        r"^[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?$|^[-+]?\.(inf|Inf|INF)$|^\.(nan|NaN|NAN)$",
        "-+0123456789.",
    ),
):
    for _side in (_Loader, _Dumper):
        _side.add_implicit_resolver(f"tag:yaml.org,2002:{_type}", re.compile(_pattern), list(_first))


def read_yaml(path: Path) -> dict[str, Any]:
    """A YAML file as a mapping.

    Raises:
        SpaceError: the file is missing, not YAML, or not a mapping.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise SpaceError(f"{path}: there is no such file") from None
    except IsADirectoryError:
        raise SpaceError(f"{path}: this is a folder; name a YAML file (a study goes on with raymix resume)") from None
    except UnicodeDecodeError as error:
        raise SpaceError(f"{path}: cannot be read as text ({error}); save it as UTF-8") from None
    except OSError as error:
        raise SpaceError(f"{path}: cannot be read ({error.strerror})") from None
    raw = parse_yaml(text, str(path))
    if not isinstance(raw, dict):
        raise SpaceError(f"{path}: a search space is a mapping (name: ..., domains: ...), this file is not")
    return raw


def parse_yaml(text: str, origin: str) -> Any:
    """YAML text as plain data; `origin` names it in errors."""
    try:
        loader = _Loader(text)  # it refuses characters that cannot be printed
        try:
            return loader.get_single_data()
        finally:
            loader.dispose()
    except SpaceError as error:
        raise SpaceError(f"{origin}: {error}") from None
    except yaml.MarkedYAMLError as error:
        where = f"line {error.problem_mark.line + 1}: " if error.problem_mark else ""
        remedy = "; indent with spaces, not tabs" if "'\\t'" in str(error.problem) else ""
        raise SpaceError(f"{origin}: not valid YAML: {where}{error.problem}{remedy}") from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise SpaceError(f"{origin}: not valid YAML: {' '.join(str(error).split())}") from None


def write_yaml(value: Any) -> str:
    """Plain data as YAML text that `parse_yaml` reads back as it was."""
    return yaml.dump(value, Dumper=_Dumper, sort_keys=False, allow_unicode=True)


def apply_settings(raw: dict[str, Any], settings: Sequence[str]) -> dict[str, Any]:
    """`dotted.key=value` strings written into a copy of `raw`; list items by number (`ladder.0.n_params=1e5`)."""
    for setting in settings:
        key, equals, value = setting.partition("=")
        if not equals or not key:
            raise SpaceError(f"--set {setting!r}: write it as key=value, for example budget.trials=32")
        raw = _put(raw, key.split("."), parse_yaml(value, f"--set {key}"), key)
    return raw


def _put(node: Any, path: list[str], value: Any, key: str) -> Any:
    if not path:
        return value
    head, rest = path[0], path[1:]
    if isinstance(node, list):
        if not head.isdigit() or int(head) >= len(node):
            raise SpaceError(f"--set {key}: {head!r} is not an item of a list of {len(node)}")
        return [_put(item, rest, value, key) if i == int(head) else item for i, item in enumerate(node)]
    if node is None or isinstance(node, Mapping):
        node = dict(node or {})
        return {**node, head: _put(node.get(head), rest, value, key)}
    raise SpaceError(f"--set {key}: {head!r} lies below a plain value")


def explain(error: ValidationError, model: type[BaseModel]) -> str:
    """All problems of a failed validation, one clear sentence each."""
    problems = error.errors()
    inside = {problem["loc"][:-1] for problem in problems}  # a list whose items are wrong counts as too short as well
    told = [p for p in problems if p["type"] != "too_short" or p["loc"] not in inside]
    return "; ".join(_sentence(problem, model) for problem in told)


def _sentence(problem: ErrorDetails, model: type[BaseModel]) -> str:
    where = ".".join(str(part) for part in problem["loc"])
    if problem["type"] == "extra_forbidden":
        valid = _keys_at(model, [str(part) for part in problem["loc"][:-1]])
        near = difflib.get_close_matches(str(problem["loc"][-1]), valid, n=1, cutoff=0.5)
        hint = f"did you mean {near[0]!r}?" if near else f"valid keys here: {', '.join(valid)}"
        return f"unknown key {where!r}: {hint}"
    if problem["type"] == "missing":
        return f"missing key {where!r}"
    message = problem["msg"].removeprefix("Value error, ").replace("Input should", "it must")
    if problem["type"] == "value_error":
        return f"{where}: {message}" if where and where.split(".")[0] not in message else message
    expected = _EXPECTED.get(problem["type"], f"{message[0].lower()}{message[1:]}")
    given = "empty" if problem["input"] is None else repr(problem["input"])
    return (f"{where} is {given}: " if where else "") + expected + _written_out(problem)


def _written_out(problem: ErrorDetails) -> str:
    """How to write a number like 1B, 1.2T or 70%; else nothing."""
    found = _UNITS.fullmatch(problem["input"]) if isinstance(problem["input"], str) else None
    if found is None or not problem["type"].endswith("_parsing"):
        return ""
    return f"; write {float(found[1]) * 10.0 ** _POWERS[found[2].lower()]:g}"


def _keys_at(model: type[BaseModel], path: list[str]) -> list[str]:
    """Valid keys of the model that lies at `path` inside `model`."""
    for part in path:
        if part.isdigit() or part not in model.model_fields:
            continue
        found = _model_in(model.model_fields[part].annotation)
        if found is not None:
            model = found
    return [field.alias or name for name, field in model.model_fields.items()]


def _model_in(annotation: Any) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next((found for arg in get_args(annotation) if (found := _model_in(arg))), None)
