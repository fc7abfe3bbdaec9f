"""What of a space was changed since a study was begun, in words."""

from collections.abc import Mapping
from typing import Any

MAY_CHANGE = ("budget", "objective", "constraints", "confirm", "from")


def differences(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    """`key: old -> new` for every leaf that differs and may not; of lists of named things which are more or fewer."""
    was, now = ({key: space[key] for key in space if key not in MAY_CHANGE} for space in (before, after))
    return _differences(was, now)


def _differences(before: Any, after: Any, where: str = "") -> list[str]:
    if isinstance(before, Mapping) and isinstance(after, Mapping):
        keys = [*before, *(key for key in after if key not in before)]
        return [d for key in keys for d in _differences(before.get(key), after.get(key), f"{where}.{key}".lstrip("."))]
    if isinstance(before, list) and isinstance(after, list):
        was, now = _names(before), _names(after)
        if was != now and set(was) == set(now) and was:
            return [f"{where}: in another order"]
        if was and now and was != now:
            said = {"without": [n for n in was if n not in now], "with": [n for n in now if n not in was]}
            return [f"{where}: {word} {', '.join(map(repr, names))}" for word, names in said.items() if names]
        if len(before) == len(after):
            pairs = enumerate(zip(before, after, strict=True))
            return [d for i, (b, a) in pairs for d in _differences(b, a, f"{where}.{was[i] if was else i}")]
    return [] if before == after else [f"{where}: {before} -> {after}"]


def _names(listed: list[Any]) -> list[str]:
    """Those of a list of named things, as domains are; else nothing."""
    names = [str(each["name"]) for each in listed if isinstance(each, Mapping) and "name" in each]
    return names if len(names) == len(listed) else []
