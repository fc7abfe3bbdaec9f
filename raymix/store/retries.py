"""Faults of storage that pass: tried again with growing pauses, a limited number of times."""

import errno
import logging
import random
import time
from collections.abc import Callable
from typing import TypeVar

from raymix.store.errors import reason

log = logging.getLogger(__name__)
T = TypeVar("T")

ATTEMPTS = 5  # a minute at most: the S3 client inside pyarrow tries for some 7 s each time, the GCS one for 10
FIRST_PAUSE, LONGEST_PAUSE = 0.5, 8.0  # seconds
PASSING = {errno.EAGAIN, errno.EINTR, errno.ETIMEDOUT, errno.ESTALE, errno.EIO, errno.ECONNRESET, errno.EBUSY}
FINAL = ("ACCESS_DENIED", "NO_SUCH_BUCKET", "INVALID_ACCESS_KEY_ID", "SIGNATURE_DOES_NOT_MATCH", "Path does not exist",
         "INVALID_CLIENT_TOKEN_ID", "HTTP status 400", "HTTP status 401", "HTTP status 403", "PERMISSION_DENIED",
         "UNAUTHENTICATED")  # fmt: skip


def retried(action: Callable[[], T], where: str) -> T:
    """What `action` returns. It must be harmless to do twice.

    Raises:
        OSError: it failed for a reason that does not pass, or `ATTEMPTS` times.
    """
    pause = FIRST_PAUSE
    for attempt in range(1, ATTEMPTS + 1):
        try:
            return action()
        except OSError as error:
            if attempt == ATTEMPTS or not passes(error):
                raise
            if attempt == 1:
                log.warning("%s: %s; trying again, at most %d times", where, reason(error), ATTEMPTS - 1)
        time.sleep(pause * random.uniform(0.5, 1.0))  # several drivers must not come back in step
        pause = min(2 * pause, LONGEST_PAUSE)
    raise AssertionError("the last attempt returns or raises")


def passes(error: OSError) -> bool:
    """Whether the same call may well succeed later: time-outs, 5xx, throttling, lost connections."""
    if error.errno is not None:
        return error.errno in PASSING
    return not any(word in str(error) for word in FINAL)
