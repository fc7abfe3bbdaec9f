"""Where a command is to write: looked at before the work, not after it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from raymix.yaml12 import SpaceError


def check_out(out: Path, endings: Sequence[str] = ("",)) -> None:
    """Refuse a place that cannot be written to, before there is anything to write.

    Raises:
        SpaceError: another ending, a folder, a file in none, or one that may not be written or that no disk takes.
    """
    if not out.name.endswith(tuple(endings)):
        raise SpaceError(f"{out}: the name must end in {' or '.join(endings)}")
    if os.path.isdir(out):
        raise SpaceError(f"{out}: this is a folder; name a file")
    if not out.absolute().parent.is_dir():
        raise SpaceError(f"{out}: there is no folder {out.parent}; make it, or name another place with -o")
    there = os.path.lexists(out)
    if there and not out.is_file():
        return  # a pipe, say: opened once, by whom it is for
    try:
        out.open("ab").close()  # what is there stays as it is
    except OSError as error:
        why = os.strerror(error.errno) if error.errno else str(error)
        raise SpaceError(f"{out}: cannot be written ({why}); name another place with -o") from None
    if not there:
        out.unlink()
