"""Scaling laws in N and D alone (Chinchilla, arXiv 2203.15556 eq. 2): the mixture is ignored.

    L = E + A n^-al + B d^-be        several sizes and token counts
    L = E + B d^-be                  the step law: one size
    L = E + A n^-al                  the size law: one n_tokens, several sizes

n = N/N0, d = D/D0. What does not vary has no term: it would only be a second floor. Fit one mixture at a time, or
the whole table where mixtures hardly matter. Where we differ: Huber at 1.5 noise levels (the paper: 1e-3 of log
loss), priors, and one start. Trivially convex in the mixture.
"""

from raymix.laws.base import Array, Ints, Table
from raymix.laws.exposure import Points
from raymix.laws.separable import Normal, SeparableLaw, Term, power_law


class Chinchilla(SeparableLaw):
    """L = E + A n^-al + B d^-be."""

    name = "chinchilla"
    convex = True
    reads = ("n_params", "n_tokens")

    @property
    def has_size_term_(self) -> bool:
        """Whether several sizes were seen."""
        return bool(self.varies_2_[0])

    @property
    def has_data_term_(self) -> bool:
        """Whether several token counts were seen; one point of both keeps this term, on its prior."""
        return bool(self.varies_2_[1]) or not self.has_size_term_

    def _look_at(self, table: Table) -> None:
        super()._look_at(table)
        none = {"n_params": not self.has_size_term_, "n_tokens": not self.has_data_term_}
        for what in (what for what, missing in none.items() if missing):
            self.notes_ = [note for note in self.notes_ if f"effect of {what} " not in note]
            self.notes_.append(f"one {what}: the law has no term in it, and predicts no effect of {what}")

    def _prior(self, log_median_M: Array, table: Table) -> list[Normal]:
        size = self._size_prior(log_median_M) if self.has_size_term_ else []
        return size + (self._data_prior(log_median_M) if self.has_data_term_ else [])

    def _terms(self, theta_MP: Array, at: Points, active_A: Ints) -> list[Term]:
        size = [power_law(theta_MP, 0, at.log_n_B[None])] if self.has_size_term_ else []
        data = [power_law(theta_MP, 2 * len(size), at.log_d_B[None])] if self.has_data_term_ else []
        return size + data
