"""What goes wrong in storage, in words: the place, the cause by its name, and what to do."""

import errno

SAFE = "nothing recorded so far is lost"
REMEDIES = {
    errno.ENOSPC: f"free some space there, then run the same command again: {SAFE}",
    errno.EDQUOT: f"raise the quota or free some space, then run the same command again: {SAFE}",
    errno.EACCES: f"make it writable for this user, or choose another directory: {SAFE}",
    errno.EPERM: f"make it writable for this user, or choose another directory: {SAFE}",
    errno.EEXIST: f"a folder must be there, and not a file or a link to a disk that is not mounted: {SAFE}",
    errno.EROFS: f"mount it writable, or choose another directory: {SAFE}",
}
RENEW = "(renew the credentials of this environment, then run the same command again)"


class StoreError(ValueError):
    """A study's storage that is missing, damaged, in use, out of reach, or of another study."""


class InUseError(StoreError):
    """Somebody else holds the study."""


class NoStudyError(StoreError):
    """There is no study where one was named: wrong usage."""


def unwritable(where: str, error: OSError) -> StoreError:
    """The error of a write that failed for good; what stands in the way of a folder is named itself."""
    if error.errno == errno.EEXIST:
        where = str(error.filename)
    cause, remedy = reason(error), REMEDIES.get(error.errno or 0, SAFE)
    return StoreError(f"{where}: cannot be written: {cause}; {remedy}")


def unreadable(where: str, error: OSError) -> StoreError:
    """The error of a read that failed for good."""
    return StoreError(f"{where}: cannot be read: {reason(error)}")


def reason(error: OSError) -> str:
    """The system's sentence with the name of its code, or what the object store said."""
    if error.errno is None:
        said = " ".join(str(error).split())[:400]
        return f"{said} {RENEW}" if "ExpiredToken" in said else said
    return f"{error.strerror} ({errno.errorcode.get(error.errno, error.errno)})"
