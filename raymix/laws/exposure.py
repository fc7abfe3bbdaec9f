"""The mixture factor F(r) = e + sum_j w_j r_j^b and its derivatives, once per distinct mixture.

For 0 < b <= 1 and w >= 0, F is concave in r, so every F^-q (q > 0) is convex: this is what gives
the laws built on it one optimum. A share of exactly 0 contributes exactly 0: flooring shares
(say at 1e-5) breaks convexity by about .002 nats, because r^b is steep at 0.
Q distinct mixtures, U distinct shares in them; the other letters as in `base`.
"""

from dataclasses import dataclass

import numpy as np

from raymix.laws.base import Array, Few, Ints
from raymix.laws.repetition import Worth

GRADIENT_FLOOR = 1e-9  # dF/dr is infinite at r = 0 for b < 1; it is read at this share instead


@dataclass(frozen=True)
class Equal:
    """Shares that mixtures have in common: a power of one is taken once."""

    log_U: Array  # 0 where the share is 0
    present_U: Array  # 1 where the share is > 0
    which_KQ: Ints


@dataclass(frozen=True)
class Points:
    """Rows prepared for evaluation: distinct mixtures, and the log scale of every row."""

    share_QK: Array
    log_share_KQ: Array  # 0 where the share is 0
    present_KQ: Array  # 1 where the share is > 0
    mixture_B: Ints | None  # row -> distinct mixture; None where every row is its own
    log_n_B: Array  # log(N / N0)
    log_d_B: Array  # log(D / D0)
    epochs_BK: Array | None = None  # of every row; None where no token is a repeat
    equal: Equal | None = None  # None where hardly any share is had twice

    def rows(self, value_xQ: Array) -> Array:
        """Values per distinct mixture, spread over the rows (last axis)."""
        return value_xQ if self.mixture_B is None else np.take(value_xQ, self.mixture_B, axis=-1)

    def apart(self) -> "Points":
        """Every row as a mixture of its own: rows of one mixture may have been repeated differently."""
        share_KB, log_share_KB, present_KB = map(self.rows, (self.share_QK.T, self.log_share_KQ, self.present_KQ))
        return Points(share_KB.T, log_share_KB, present_KB, None, self.log_n_B, self.log_d_B, self.epochs_BK)


@dataclass(frozen=True)
class Factor:
    """The mixture factor of some eval domains; `grown` where it is F = e + d sum_j w_j r_j^b, the offset of tokens."""

    at: Points
    power_MKQ: Array
    weight_MK: Array
    offset_M: Array
    b_M: Array
    worth: Worth | None
    grown: bool
    whole_MQ: Array  # F; of every row (M, B) where `grown`

    @classmethod
    def of(
        cls, at: Points, b_M: Array, weight_MK: Array, offset_M: Array, worth: Worth | None = None, grown: bool = False
    ) -> "Factor":
        """F of every eval domain; with `worth`, of shares (r_j g_j)^b, every row must be a mixture of its own."""
        power_MKQ = powers(b_M, at, worth)
        whole_MQ = np.matmul(weight_MK[:, None, :], power_MKQ)[:, 0]
        if grown:
            whole_MQ = at.rows(whole_MQ) * np.exp(at.log_d_B)
        return cls(at, power_MKQ, weight_MK, offset_M, b_M, worth, grown, whole_MQ + offset_M[:, None])

    def log_rows(self) -> Array:
        """log F of every row (M, B)."""
        return np.log(self.whole_MQ) if self.grown else self.at.rows(np.log(self.whole_MQ))

    def slopes(self, few: Few, slope_AB: Array, by_weight_AKB: Array) -> tuple[Array, Array, Array | float]:
        """d log F of the eval domains `few` (A of them) by the logit of b, log e and log R*, times `slope_AB`.

        That by log w_j is written into `by_weight_AKB`.
        """
        rows, weight_AK, b_A, worth = self.at.rows, self.weight_MK[few], self.b_M[few], self.worth
        into = by_weight_AKB if self.at.mixture_B is None else None  # where they have one shape
        part_AKQ = np.multiply(self.power_MKQ[few], weight_AK[:, :, None], out=into)
        by_b_AQ = np.einsum("akq,kq->aq", part_AKQ, self.at.log_share_KQ)
        offset_AB = slope_AB / (self.whole_MQ[few] if self.grown else rows(self.whole_MQ[few]))
        scaled_AB = offset_AB * np.exp(self.at.log_d_B) if self.grown else offset_AB
        by_repeats_AB: Array | float = 0.0  # where no token is a repeat
        if worth is not None:
            log_AKB, slope_AKB = (x[few].transpose(0, 2, 1) for x in (worth.log_MBK, worth.by_repeats_MBK))
            by_b_AQ += (part_AKQ * log_AKB).sum(axis=1)
            by_repeats_AB = b_A[:, None] * (part_AKQ * slope_AKB).sum(axis=1) * scaled_AB
        np.multiply(rows(part_AKQ), scaled_AB[:, None, :], out=by_weight_AKB)
        by_power_AB = rows(by_b_AQ) * scaled_AB * (b_A * (1 - b_A))[:, None]
        return by_power_AB, offset_AB * self.offset_M[few, None], by_repeats_AB


def points(mix_BK: Array, scale_B2: Array, n0: float, d0: float, merge: bool, epochs_BK: Array | None = None) -> Points:
    """Rows ready for evaluation; `merge` finds equal mixtures and shares (worth it where rows are read many times)."""
    mixture_B: Ints | None = None
    share_QK = mix_BK
    if merge:
        distinct_QK, which_B = np.unique(mix_BK, axis=0, return_inverse=True)
        if len(distinct_QK) < len(mix_BK):
            share_QK, mixture_B = distinct_QK, which_B.ravel()
    log_share_KQ, present_KQ = _log_shares(np.ascontiguousarray(share_QK.T))
    log_n_B, log_d_B = np.log(scale_B2[:, 0] / n0), np.log(scale_B2[:, 1] / d0)
    equal = _equal(share_QK) if merge else None
    return Points(share_QK, log_share_KQ, present_KQ, mixture_B, log_n_B, log_d_B, epochs_BK, equal)


def _log_shares(share: Array) -> tuple[Array, Array]:
    """log share, 0 where there is none, and 1 where there is any."""
    present = share > 0
    return np.log(np.where(present, share, 1.0)), present.astype(np.float64)


def _equal(share_QK: Array) -> Equal | None:
    """The distinct shares, if they are less than half of all."""
    share_U, which = np.unique(share_QK.T, return_inverse=True)
    if len(share_U) > share_QK.size / 2:
        return None
    return Equal(*_log_shares(share_U), which.reshape(share_QK.T.shape))


def sigmoid(x: Array) -> Array:
    """1 / (1 + exp(-x)), without overflow."""
    return 0.5 * (1 + np.tanh(0.5 * x))


def powers(b_M: Array, at: Points, worth: Worth | None = None) -> Array:
    """r_j^b per eval domain (M, K, Q), or (r_j g_j)^b, exactly 0 where the share is 0."""
    if worth is None and at.equal is not None:
        power_MU = np.exp(b_M[:, None] * at.equal.log_U) * at.equal.present_U
        return np.take(power_MU, at.equal.which_KQ, axis=1, mode="clip")  # clip: no check of every index
    log_MKQ = at.log_share_KQ if worth is None else at.log_share_KQ + worth.log_MBK.transpose(0, 2, 1)
    power_MKQ = np.exp(b_M[:, None, None] * log_MKQ)
    power_MKQ *= at.present_KQ
    return np.asarray(power_MKQ)


def log_factor_slope(
    mix_BK: Array,
    weight_MK: Array,
    offset_M: Array,
    b_M: Array,
    worth: Worth | None = None,
    log_d_B: Array | None = None,
) -> tuple[Array, Array]:
    """log F (M, B) and d log F / dr (M, B, K); shares below GRADIENT_FLOOR give the slope at the floor.

    With `log_d_B` F is e + d sum_j w_j r_j^b.
    """
    log_floor_BK = np.log(np.maximum(mix_BK, GRADIENT_FLOOR))
    weight_MBK = weight_MK[:, None, :] if log_d_B is None else weight_MK[:, None, :] * np.exp(log_d_B)[:, None]
    if worth is None:
        slope_MBK = np.exp((b_M[:, None, None] - 1) * log_floor_BK) * weight_MBK
        whole_MB = offset_M[:, None] + np.einsum("mbk,bk->mb", slope_MBK, mix_BK)
    else:
        slope_MBK = np.exp((b_M[:, None, None] - 1) * (log_floor_BK + worth.log_MBK)) * weight_MBK
        whole_MB = offset_M[:, None] + (slope_MBK * mix_BK * np.exp(worth.log_MBK)).sum(axis=2)
        slope_MBK *= worth.slope_MBK
    return np.log(whole_MB), slope_MBK * b_M[:, None, None] / whole_MB[..., None]
