"""The text of a space, for commands that train on it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from raymix.screens.screen import Screen
from raymix.space import SearchSpace, SpaceError

if TYPE_CHECKING:
    from raymix.corpus import Corpus


def trainable(space: SearchSpace) -> SearchSpace:
    """The space, if its domains have text to train proxies on.

    Raises:
        SpaceError: they have none.
    """
    if not space.trains_proxies:
        raise SpaceError(f"{space.name}: the domains have no source, so there is no text to train proxies on; "
                         "give every domain a source, or train on your own: raymix ask DIR --space SPACE.yaml, "
                         "then raymix tell")  # fmt: skip
    return space


def prepared(space: SearchSpace, screen: Screen) -> Corpus:
    """The corpus of a space, prepared if it is not, with its progress on the screen.

    Raises:
        OSError: as `prepare`; where the cache cannot be written, it says how to have another.
    """
    from raymix.corpus import default_cache, prepare

    with screen.working("preparing the corpus") as progress:
        try:
            return prepare(space, progress=progress)
        except OSError as error:
            cache, there = default_cache(), Path(str(error.filename))
            if not (error.errno and (there in (cache, *cache.parents) or cache in there.parents)):
                raise
            raise OSError(f"{error.filename}: cannot be written ({os.strerror(error.errno)}): tokens are kept there; "
                          "free space, or set RAYMIX_CACHE to another folder") from None  # fmt: skip
