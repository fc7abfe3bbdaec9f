"""Contracts for laws and designers, ours and yours, and worlds whose truth is known.

from raymix.testing import check_law, check_designer

def test_my_law() -> None:
    check_law(MyLaw)
"""

from raymix.testing.designers import check_designer
from raymix.testing.laws import LAW_CHECKS, check_law
from raymix.testing.synthetic import SyntheticRuns, World, synthetic_runs, world

__all__ = ["LAW_CHECKS", "SyntheticRuns", "World", "check_designer", "check_law", "synthetic_runs", "world"]
