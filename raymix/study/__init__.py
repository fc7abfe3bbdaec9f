"""`Study`: a search with a memory on disk; what it knows, what it does next, when it ends."""

from raymix.study.study import Study

__all__ = ["Study"]
