"""A choice made by measuring is kept in the cache: timings vary, and the same machine must choose the same tomorrow.

Otherwise two runs of one trial could differ in their last bits, and a killed study end elsewhere than one that was not.
"""

import hashlib
import json
import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any
from uuid import uuid4

import torch


def kept(question: Sequence[Any], measure: Callable[[], str], device: torch.device) -> str:
    """What was found first on such a machine; measured now where nothing was, or where nothing can be kept."""
    from raymix.corpus import default_cache

    hardware = torch.cuda.get_device_name(device) if device.type == "cuda" else torch.backends.cpu.get_cpu_capability()
    key = json.dumps([*map(str, question), hardware, os.cpu_count(), torch.__version__])
    file = default_cache() / "measured" / hashlib.sha256(key.encode()).hexdigest()[:16]
    try:
        if not file.exists():
            file.parent.mkdir(parents=True, exist_ok=True)
            part = file.with_name(f".{uuid4().hex[:8]}.part")
            part.write_text(measure())
            with suppress(FileExistsError):  # another process was first
                os.link(part, file)
            part.unlink()
        return file.read_text()
    except OSError:
        return measure()
