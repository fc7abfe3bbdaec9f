"""Losses of runs that diverged: a fit is robust to a few of them, an error of predictions held out is not.

One loss of 11 among 24 runs chose another law, and made noise of half a nat, above which was no gain.
"""

import numpy as np

from raymix.laws import TiedUnion
from raymix.laws.base import Array, Flags, Table
from raymix.laws.repetition import at_rows
from raymix.laws.robust import ABSURD, MEDIAN_OF_NORMAL
from raymix.laws.rows import WARMUP

DIVERGED = 0.3  # log loss: beyond it, and beyond ABSURD, no mixture is so far from its law but a run that diverged


def diverged(table: Table) -> tuple[Flags, Array]:
    """Which losses (B, M) are so far above a law that their run diverged, or a number is wrong; what the law says.

    The law is the union law, which has no process that would follow such a loss. None is in the warm-up of a run, where
    no law is fitted.
    """
    said_BM = at_rows(table.fit(TiedUnion()), table).predict(table.mix_BK, table.scale_B2)
    above_BM = np.log(table.loss_BM / said_BM)
    usual_M = np.nanmedian(np.abs(above_BM), axis=0) / MEDIAN_OF_NORMAL
    _, run_B = np.unique(table.run_B, return_inverse=True)
    longest_R = np.zeros(run_B.max() + 1)
    np.maximum.at(longest_R, run_B, table.scale_B2[:, 1])
    settled_B = table.scale_B2[:, 1] >= WARMUP * longest_R[run_B]
    return (above_BM > np.maximum(DIVERGED, ABSURD * usual_M)) & settled_B[:, None], said_BM
