"""What the doctor finds."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Finding:
    """One answer: `level` is ok, warning or error."""

    level: str
    what: str
    found: str
    remedy: str = ""
