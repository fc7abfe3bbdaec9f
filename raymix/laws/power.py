"""The per-domain power law, "autoscale": every eval domain learns from its own training domain alone.

    L_i = E_i + B_i (x_i + a_i)^-gamma_i,   x_i = r_own(i) D / D0

the general form of AutoScale (arXiv 2407.20177), sum_i beta_i (N0_i + N_i)^-gamma_i + l_i, one term per eval domain.
Where an eval domain has no own training domain, x = D / D0: all tokens count alike. Convex in the mixture; for
interior optima `autoscale.water_fill` gives the same optimum in closed form. What it gives up: transfer between
domains (two other mixtures with one own share are one to it), model size, repetition. It is here as the published
baseline; where domains help each other (measured: nearly always) the union law predicts better.
Where we differ: an amplitude B per domain, and a fit to any runs by maximum a posteriori on log loss instead of
2K+1 perturbations; x counts tokens drawn where the paper counts unique tokens, trained for 3 epochs.
"""

import numpy as np

from raymix.laws.base import Array, Ints, Table
from raymix.laws.exposure import Points
from raymix.laws.separable import Normal, SeparableLaw, Term, power_law

# Priors as (mean, sd); weak: a DDO run of 2K+1 runs is enough to leave them.
LEVEL = (np.log(0.3), 1.0)  # log B, added to log median L
POWER = (np.log(0.35), 0.7)  # log gamma; .35 is the data exponent of Chinchilla refits (arXiv 2203.15556)
OFFSET = (np.log(0.1), 2.0)  # log a, in D0; published DDO fits of 7 domains have a of .35-.95


class PerDomainPower(SeparableLaw):
    """L = E + B (x + a)^-gamma, x the own tokens in D0."""

    name = "autoscale"
    convex = True
    reads = ("mixture", "n_tokens")
    alone = "so the shares have no effect"

    def _look_at(self, table: Table) -> None:
        super()._look_at(table)
        at = self._points(table.mix_BK, table.scale_B2, merge=False)
        x_MB, _ = self._own_tokens(at, np.arange(len(table.own_M)))
        for domain in np.flatnonzero((x_MB == x_MB[:, :1]).all(axis=1)):
            self.notes_.append(f"eval domain {domain}: one quantity of tokens, so its effect is prior only")

    def _prior(self, log_median_M: Array, table: Table) -> list[Normal]:
        return [(log_median_M + LEVEL[0], LEVEL[1]), POWER, OFFSET]

    def _terms(self, theta_MP: Array, at: Points, active_A: Ints) -> list[Term]:
        x_MB, x_by_share_MBK = self._own_tokens(at, active_A)
        offset_M1 = np.exp(theta_MP[:, 2:])
        whole_MB = x_MB + offset_M1
        return [
            power_law(
                theta_MP,
                0,
                np.log(whole_MB),
                lambda: [(2, offset_M1 / whole_MB)],
                lambda: x_by_share_MBK / whole_MB[..., None],
            )
        ]

    def _own_tokens(self, at: Points, active_A: Ints) -> tuple[Array, Array]:
        """x (A, B): own tokens in D0, all tokens where there is no own training domain; and dx/dr (A, B, K)."""
        own_A, d_B = self.own_M_[active_A], np.exp(at.log_d_B)
        share_AB = np.where(own_A[:, None] >= 0, at.rows(at.share_QK.T)[own_A], 1.0)
        own_AK = (own_A[:, None] == np.arange(self.n_domains_)).astype(np.float64)
        return share_AB * d_B, own_AK[:, None] * d_B[:, None]
