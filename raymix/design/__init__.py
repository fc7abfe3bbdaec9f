"""Designers: what to try next, from what is known."""

from raymix.design.base import Designer, Proposal
from raymix.design.law_guided import LawGuided
from raymix.design.model_free import ModelFree
from raymix.design.schedule import cost, rungs, scale_of
from raymix.design.space_filling import SpaceFilling

DESIGNERS: dict[str, type] = {"law": LawGuided, "space_filling": SpaceFilling, "tpe": ModelFree}

__all__ = ["DESIGNERS", "Designer", "LawGuided", "ModelFree", "Proposal", "SpaceFilling", "cost", "rungs", "scale_of"]
