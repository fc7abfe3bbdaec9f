"""What the process expects at a mixture, g = k alpha, and its slope: for all eval domains at once.

Each eval domain m stretches phi by v_m, so it has a kernel of its own; but all inner products come of one product of
matrices, (v_m^2 phi) . phi', and where all stretch alike one kernel serves all of them. Only so many queries are read
at a time as stay near the processor. Letters: R rows of the process, C kernels (M, or 1 where all stretch alike).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from raymix.laws.base import Array
from raymix.laws.fitted import chunks
from raymix.laws.process import ROOT5, Sites, scale_kernel

AT_ONCE = 2**16  # numbers of a work array: half a megabyte


@dataclass(frozen=True)
class Mean:
    """The process after its residuals were seen."""

    sites: Sites
    hyper_H: Array
    stretch_MK: Array
    alpha_RM: Array

    def value(self, phi_BK: Array, log_scale_B2: Array) -> Array:
        """g (B, M); a new run shares no run noise with those seen."""
        return self._read(phi_BK, log_scale_B2, False)[0]

    def value_and_slope(self, phi_BK: Array, log_scale_B2: Array) -> tuple[Array, Array]:
        """g (B, M) and dg/dphi (B, M, K)."""
        return self._read(phi_BK, log_scale_B2, True)

    def _read(self, phi_BK: Array, log_scale_B2: Array, slope: bool) -> tuple[Array, Array]:
        (n_rows, n_eval), K = self.alpha_RM.shape, phi_BK.shape[1]
        square_CK = self.stretch_MK**2
        if (square_CK == square_CK[:1]).all():
            square_CK = square_CK[:1]
        length_CR = square_CK @ (self.sites.phi_RK**2).T
        g_BM, slope_BMK = np.empty((len(phi_BK), n_eval)), np.empty((len(phi_BK), n_eval, K if slope else 0))
        for few in chunks(len(phi_BK), max(1, AT_ONCE // (n_rows * (n_eval if slope else len(square_CK))))):
            near_BR = scale_kernel(log_scale_B2[few], self.sites.log_scale_R2, self.hyper_H)
            dot_BCR, s_BCR = self._apart(phi_BK[few], square_CK, length_CR)
            decay_BCR = np.exp(-s_BCR)
            g_BM[few] = self._value(dot_BCR, s_BCR, decay_BCR, near_BR)
            if slope:
                slope_BMK[few] = square_CK * self._pulls(phi_BK[few], s_BCR, decay_BCR, near_BR)
        return g_BM, slope_BMK

    def _apart(self, phi_BK: Array, square_CK: Array, length_CR: Array) -> tuple[Array, Array]:
        """phi . phi' and root5 |phi - phi'| / ell, stretched (B, C, R)."""
        scaled_BCK = phi_BK[:, None] * square_CK
        dot_BCR = (scaled_BCK.reshape(-1, phi_BK.shape[1]) @ self.sites.phi_RK.T).reshape(*scaled_BCK.shape[:2], -1)
        square_BCR = (phi_BK[:, None] * scaled_BCK).sum(axis=2)[..., None] + length_CR
        square_BCR -= 2 * dot_BCR
        np.maximum(square_BCR, 0.0, out=square_BCR)
        return dot_BCR, np.sqrt(square_BCR, out=square_BCR) * (ROOT5 / np.exp(self.hyper_H[0]))

    def _value(self, dot_BCR: Array, s_BCR: Array, decay_BCR: Array, near_BR: Array) -> Array:
        """g (B, M): Matern kernel and linear part (`process.mixture_kernel`), times alpha."""
        kernel_BCR = (1 + s_BCR + s_BCR**2 / 3) * decay_BCR
        kernel_BCR += np.exp(self.hyper_H[1]) * dot_BCR
        kernel_BCR *= near_BR[:, None]
        if kernel_BCR.shape[1] == 1:
            return np.asarray(kernel_BCR[:, 0] @ self.alpha_RM)
        return np.asarray(np.einsum("bmr,rm->bm", kernel_BCR, self.alpha_RM))

    def _pulls(self, phi_BK: Array, s_BCR: Array, decay_BCR: Array, near_BR: Array) -> Array:
        """dg/dphi (B, M, K) before stretching: the Matern part has -5/3 (1 + s) exp(-s) (phi - phi') / ell^2."""
        ell, w = np.exp(self.hyper_H[:2])
        weight_BMR = near_BR[:, None] * self.alpha_RM.T
        pull_BMR = (-5 / 3 / ell**2) * (1 + s_BCR) * decay_BCR * weight_BMR
        weight_BMR *= w
        weight_BMR -= pull_BMR
        towards_BMK = weight_BMR.reshape(-1, len(self.alpha_RM)) @ self.sites.phi_RK
        return np.asarray(
            pull_BMR.sum(axis=2)[..., None] * phi_BK[:, None] + towards_BMK.reshape(*pull_BMR.shape[:2], -1)
        )
