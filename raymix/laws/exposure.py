"""The mixture factor F(r) = e + sum_j w_j r_j^b and its derivatives, once per distinct mixture.

For 0 < b <= 1 and w >= 0, F is concave in r, so every F^-q (q > 0) is convex: this is what gives
the laws built on it one optimum. A share of exactly 0 contributes exactly 0: flooring shares
(say at 1e-5) breaks convexity by about .002 nats, because r^b is steep at 0.
Q distinct mixtures; the other letters as in `base`.
"""

from dataclasses import dataclass

import numpy as np

from raymix.laws.base import Array, Ints
from raymix.laws.repetition import Worth

GRADIENT_FLOOR = 1e-9  # dF/dr is infinite at r = 0 for b < 1; it is read at this share instead


@dataclass(frozen=True)
class Points:
    """Rows prepared for evaluation: distinct mixtures, and the log scale of every row."""

    share_QK: Array
    log_share_QK: Array  # 0 where the share is 0
    present_QK: Array  # 1 where the share is > 0
    mixture_B: Ints | None  # row -> distinct mixture; None where every row is its own
    log_n_B: Array  # log(N / N0)
    log_d_B: Array  # log(D / D0)
    epochs_BK: Array | None = None  # of every row; None where no token is a repeat

    def rows(self, value_xQ: Array) -> Array:
        """Values per distinct mixture, spread over the rows (last axis)."""
        return value_xQ if self.mixture_B is None else np.take(value_xQ, self.mixture_B, axis=-1)

    def apart(self) -> "Points":
        """Every row as a mixture of its own: rows of one mixture may have been repeated differently."""
        share, log_share, present = (self.rows(x.T).T for x in (self.share_QK, self.log_share_QK, self.present_QK))
        return Points(share, log_share, present, None, self.log_n_B, self.log_d_B, self.epochs_BK)


@dataclass(frozen=True)
class Factor:
    """log F and its derivatives with respect to log w_j, log e and the logit of b."""

    log_MQ: Array
    by_weight_MKQ: Array
    by_offset_MQ: Array
    by_power_MQ: Array
    by_repeats_MQ: Array | None = None


def points(mix_BK: Array, scale_B2: Array, n0: float, d0: float, merge: bool, epochs_BK: Array | None = None) -> Points:
    """Rows ready for evaluation; `merge` finds equal mixtures (worth it where rows are read many times)."""
    mixture_B: Ints | None = None
    share_QK = mix_BK
    if merge:
        share_QK, mixture_B = np.unique(mix_BK, axis=0, return_inverse=True)
        mixture_B = mixture_B.ravel()
    present_QK = share_QK > 0
    log_share_QK = np.log(np.where(present_QK, share_QK, 1.0))
    return Points(
        share_QK,
        log_share_QK,
        present_QK.astype(np.float64),
        mixture_B,
        np.log(scale_B2[:, 0] / n0),
        np.log(scale_B2[:, 1] / d0),
        epochs_BK,
    )


def sigmoid(x: Array) -> Array:
    """1 / (1 + exp(-x)), without overflow."""
    return 0.5 * (1 + np.tanh(0.5 * x))


def powers(b_M: Array, at: Points, worth: Worth | None = None) -> Array:
    """r_j^b per eval domain (M, Q, K), or (r_j g_j)^b, exactly 0 where the share is 0."""
    log_MQK = at.log_share_QK if worth is None else at.log_share_QK + worth.log_MBK
    power_MQK = np.exp(b_M[:, None, None] * log_MQK)
    power_MQK *= at.present_QK
    return np.asarray(power_MQK)


def log_factor(power_MQK: Array, weight_MK: Array, offset_M: Array) -> Array:
    """log F (M, Q)."""
    return np.asarray(np.log(offset_M[:, None] + np.matmul(power_MQK, weight_MK[:, :, None])[..., 0]))


def factor(
    power_MQK: Array, weight_MK: Array, offset_M: Array, b_M: Array, at: Points, worth: Worth | None = None
) -> Factor:
    """log F and its derivatives (M, K, Q) in log weights, (M, Q) in log offset, the logit of b and log R*."""
    part_MQK = power_MQK * weight_MK[:, None, :]
    whole_MQ = offset_M[:, None] + part_MQK.sum(axis=2)
    inv_MQ = 1 / whole_MQ
    by_b_MQ = np.einsum("mqk,qk->mq", part_MQK, at.log_share_QK) * inv_MQ
    part_MQK *= inv_MQ[..., None]
    by_repeats_MQ = None
    if worth is not None:
        by_b_MQ += (part_MQK * worth.log_MBK).sum(axis=2)
        by_repeats_MQ = b_M[:, None] * (part_MQK * worth.by_repeats_MBK).sum(axis=2)
    return Factor(
        np.log(whole_MQ),
        part_MQK.transpose(0, 2, 1),
        offset_M[:, None] * inv_MQ,
        by_b_MQ * (b_M * (1 - b_M))[:, None],
        by_repeats_MQ,
    )


def times_tokens(power_MQK: Array, at: Points) -> tuple[Array, Points]:
    """d r_j^b of every row (M, B, K), of which F is e + d sum_j w_j r_j^b: an offset that does not grow with d."""
    power_MBK = power_MQK if at.mixture_B is None else np.take(power_MQK, at.mixture_B, axis=1)
    return power_MBK * np.exp(at.log_d_B)[:, None], at.apart()


def log_factor_slope(
    mix_BK: Array,
    weight_MK: Array,
    offset_M: Array,
    b_M: Array,
    worth: Worth | None = None,
    log_d_B: Array | None = None,
) -> tuple[Array, Array]:
    """log F (M, B) and d log F / dr (M, B, K); shares below GRADIENT_FLOOR give the slope at the floor.

    With `log_d_B` F is that of `times_tokens`.
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
