"""What a record says: a field by its name, and whether the record passes the filter of its source.

A dotted name lies inside: `meta.set` is the field `set` of the field `meta`, which may be an object or, as some
published data sets have it, JSON text of one.
"""

import json
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from raymix.space import Source, SpaceError
from raymix.space_parts import Between

ABSENT = object()


class Document(NamedTuple):
    """One text and what it came from: documents of one origin are held out together."""

    text: str
    origin: str


def document(record: Mapping[str, Any], source: Source, where: str) -> Document | None:
    """The document of a record, or None where the filter stops it or it has no text.

    Raises:
        SpaceError: there is no such text field, or no text in it; `where` says which record.
    """
    if source.where and not passes(record, source.where):
        return None
    value = field(record, source.text)
    if value is ABSENT:
        raise no_field(source.text, record, where)
    if value is None:
        return None
    if not isinstance(value, str):
        raise SpaceError(
            f"{where}: the field {source.text!r} holds {type(value).__name__}, not text; name another as `text`"
        )
    if not value.strip():
        return None
    if source.origin is None:
        return Document(value, value)
    origin = field(record, source.origin)
    if origin is ABSENT:
        raise no_field(source.origin, record, where, "origin")
    return Document(value, value if origin is None else str(origin))


def field(record: Any, name: str) -> Any:
    """The value under a dotted name, or ABSENT; a field whose own name has the dot comes first, inside null is null."""
    if isinstance(record, Mapping) and name in record:
        return record[name]
    for part in name.split("."):
        if record is None:
            return None
        if isinstance(record, str) and record.startswith("{"):
            record = _parsed(record)
        if not isinstance(record, Mapping) or part not in record:
            return ABSENT
        record = record[part]
    return record


def passes(record: Mapping[str, Any], conditions: Mapping[str, Any]) -> bool:
    """Whether every condition holds: a value, one of several, or a range; a field that is absent holds none."""
    return all(_holds(field(record, name), condition) for name, condition in conditions.items())


def fields(source: Source) -> list[str]:
    """The names of all fields the source reads."""
    return [source.text, *source.where, *([source.origin] if source.origin is not None else [])]


def no_field(name: str, existing: Iterable[str], where: str, key: str = "text") -> SpaceError:
    """The error of a field that is not there."""
    return SpaceError(
        f"{where}: there is no field {name!r}; it has {', '.join(existing)}: name one as the source's `{key}`"
    )


def _holds(value: Any, condition: Any) -> bool:
    if isinstance(condition, Between):
        if not isinstance(value, int | float) or isinstance(value, bool):
            return False
        return (condition.min is None or value >= condition.min) and (condition.max is None or value <= condition.max)
    allowed = condition if isinstance(condition, tuple) else (condition,)
    values = value if isinstance(value, list | tuple) else (value,)  # a list of labels: one of them is enough
    return any(one == other and isinstance(one, bool) == isinstance(other, bool) for one in values for other in allowed)


def _parsed(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None
