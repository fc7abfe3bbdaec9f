"""A loss that falls with a share as c + k exp(t r), k >= 0, t < 0, fitted exactly by variable projection.

For every t the best c and k are a straight-line fit, so only t is searched (Golub and Pereyra 2003,
doi 10.1088/0266-5611/19/2/201). Letters: B rows, S columns of losses, T values of t tried.
"""

from typing import NamedTuple

import numpy as np

from raymix.simplex import Array

RATES = (-100.0, -1e-2)  # t searched; at the upper end the curve is straight to 1e-3 of its fall
HUBER = 0.01  # nats; delta of the published fit (arXiv 2403.16952), ten times the misfit of its runs


class Exponential(NamedTuple):
    """c + k exp(t r); arrays (S,) where several were fitted."""

    floor: Array
    scale: Array
    rate: Array

    def losses(self, share_B: Array) -> Array:
        """Losses (S, B) in nats per token."""
        return np.asarray(self.floor[:, None] + self.scale[:, None] * np.exp(self.rate[:, None] * share_B))

    def share_for(self, loss: float) -> Array:
        """Smallest share (S,) with a loss of at most `loss`: 0 where none is needed, inf where all is not enough."""
        with np.errstate(divide="ignore", invalid="ignore"):
            share_S = np.log((loss - self.floor) / self.scale) / self.rate
        share_S = np.where(loss >= self.floor + self.scale, 0.0, share_S)
        return np.where((loss <= self.floor) | (share_S > 1), np.inf, share_S)


def fit_exponential(share_B: Array, loss_SB: Array) -> Exponential:
    """c + k exp(t r) with Huber's loss, for each of S columns of losses over the same shares.

    For every t the best c and k >= 0 are a weighted straight-line fit on exp(t r); t is searched on a logarithmic
    grid that zooms in. Huber weights come from the last fit's residuals. A column that does not fall gets k = 0.
    """
    weight_SB = np.ones_like(loss_SB)
    law = _weighted_fit(share_B, loss_SB, weight_SB)
    for _ in range(20):
        size_SB = np.abs(law.losses(share_B) - loss_SB)
        new_SB = HUBER / np.maximum(size_SB, HUBER)
        if np.abs(new_SB - weight_SB).max() < 1e-6:
            break
        weight_SB = new_SB
        law = _weighted_fit(share_B, loss_SB, weight_SB)
    return law


def _weighted_fit(share_B: Array, loss_SB: Array, weight_SB: Array) -> Exponential:
    log_ST = np.tile(np.linspace(np.log(-RATES[1]), np.log(-RATES[0]), 61), (len(loss_SB), 1))
    pick = np.arange(len(loss_SB))
    for _ in range(16):  # a cell becomes two fifths of itself: from .15 in log t to 1e-7
        floor_ST, scale_ST, cost_ST = _project(share_B, loss_SB, weight_SB, -np.exp(log_ST))
        best_S = np.argmin(cost_ST, axis=1)
        found = Exponential(floor_ST[pick, best_S], scale_ST[pick, best_S], -np.exp(log_ST[pick, best_S]))
        cell_S = log_ST[:, 1] - log_ST[:, 0]
        around_ST = log_ST[pick, best_S][:, None] + cell_S[:, None] * np.linspace(-1, 1, 6)
        log_ST = np.clip(around_ST, np.log(-RATES[1]), np.log(-RATES[0]))
    return found


def _project(share_B: Array, loss_SB: Array, weight_SB: Array, rate_ST: Array) -> tuple[Array, Array, Array]:
    """Best c, k >= 0 and the weighted squared error (S, T) at given t."""
    weight_SB = weight_SB / weight_SB.sum(axis=1, keepdims=True)
    basis_STB = np.exp(rate_ST[..., None] * share_B)
    mean_ST = np.einsum("stb,sb->st", basis_STB, weight_SB)
    mean_S = np.sum(weight_SB * loss_SB, axis=1)
    off_STB, loss_off_SB = basis_STB - mean_ST[..., None], loss_SB - mean_S[:, None]
    spread_ST = np.einsum("stb,stb,sb->st", off_STB, off_STB, weight_SB)
    scale_ST = np.maximum(np.einsum("stb,sb,sb->st", off_STB, loss_off_SB, weight_SB), 0) / np.maximum(
        spread_ST, 1e-300
    )
    error_STB = loss_off_SB[:, None] - scale_ST[..., None] * off_STB
    return (
        mean_S[:, None] - scale_ST * mean_ST,
        scale_ST,
        np.einsum("stb,stb,sb->st", error_STB, error_STB, weight_SB),
    )
