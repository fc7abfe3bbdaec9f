"""What must not fail for one absurd number: the size of residuals, the eigenvalues of a covariance."""

import numpy as np
from scipy import linalg, stats

from raymix.laws.base import Array

ABSURD = 6.0  # sds; beyond it a residual is not noise
MEDIAN_OF_NORMAL = float(stats.norm.ppf(0.75))  # of the absolute value, in sds


def tamed(residual_MB: Array, least_M: Array) -> Array:
    """Residuals (M, B), NaN where there is none, no farther from 0 than ABSURD times their usual size.

    The usual size is the median, scaled to an sd, but at least `least_M`: one absurd loss says nothing about the noise.
    """
    usual_M = np.maximum(np.nanmedian(np.abs(residual_MB), axis=1) / MEDIAN_OF_NORMAL, least_M)
    return np.asarray(np.clip(residual_MB, -ABSURD * usual_M[:, None], ABSURD * usual_M[:, None]))


def tamed_row(residual_B: Array) -> Array:
    """The same of one row (B,) without NaN; as it is where most are exactly 0."""
    found_B = tamed(residual_B[None], np.zeros(1))[0] if len(residual_B) else residual_B
    return found_B if found_B.any() else residual_B


def eigen(matrix_PP: Array) -> tuple[Array, Array]:
    """Eigenvalues (P,) and vectors (P, P) of a symmetric matrix.

    LAPACK's divide and conquer (numpy's) gave up on a covariance without fault, its eigenvalues between 5e-5 and 2.25;
    QR iterations are slower and do not.
    """
    try:
        value_P, vector_PP = np.linalg.eigh(matrix_PP)
    except np.linalg.LinAlgError:
        value_P, vector_PP = linalg.eigh(matrix_PP, driver="ev")
    return np.asarray(value_P), np.asarray(vector_PP)
