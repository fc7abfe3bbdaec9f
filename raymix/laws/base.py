"""What a law is: losses as a function of mixture and scale, fitted once, read anywhere.

Letters: B rows, K training domains, M eval domains, P law parameters, S draws.
`scale_B2` has the columns n_params (N, without embeddings) and n_tokens (D, tokens).
Losses are nats per token. Settings go in the constructor and stay untouched, learned
values end in `_`, and `predict` is pure (the contract of scikit-learn).
"""

from dataclasses import dataclass
from typing import Any, ClassVar, Protocol, Self, runtime_checkable

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]
Ints = NDArray[np.int64]
Flags = NDArray[np.bool_]

SHARE_TOLERANCE = 0.05  # 64 shares rounded to 3 decimals sum to 1 within 64 * .0005 = .032


@runtime_checkable
class Law(Protocol):
    """A surface of losses over mixtures and scales. Whoever constructs it owns it; `fit` may be called again."""

    name: ClassVar[str]
    convex: ClassVar[bool]  # every eval domain's loss is convex in the mixture at a fixed scale
    notes_: list[str]  # what a reader of the predictions must know (prior only, not converged)

    def fit(
        self,
        mix_BK: ArrayLike,
        scale_B2: ArrayLike,
        loss_BM: ArrayLike,
        run_B: ArrayLike | None = None,
        own_M: ArrayLike | None = None,
    ) -> Self:
        """Learn from losses (nats; NaN where not measured) and return self.

        Rows with the same `run_B` (integers) are checkpoints of one run, so their errors are correlated.
        `own_M` is the training domain from which each eval domain was held out, or -1.
        """
        ...

    def predict(self, mix_BK: ArrayLike, scale_B2: ArrayLike) -> Array:
        """Losses (B, M) in nats per token."""
        ...

    def gradient(self, mix_BK: ArrayLike, scale_B2: ArrayLike) -> Array:
        """dL/dr (B, M, K), meaningful along the simplex (directions that sum to 0)."""
        ...

    def sd(self, mix_BK: ArrayLike, scale_B2: ArrayLike) -> Array:
        """Standard deviation (B, M) of log loss for a new run: 90% interval = L exp(+-1.645 sd)."""
        ...

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values from which `from_json` makes an equal law, to the last bit."""
        ...

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Self:
        """The law that `to_json` described."""
        ...


@dataclass(frozen=True)
class Table:
    """Checked observations, as matrices: every law fits from these."""

    mix_BK: Array
    scale_B2: Array
    loss_BM: Array
    run_B: Ints
    own_M: Ints

    def take(self, rows_B: Ints) -> "Table":
        """The rows named, in that order."""
        return Table(self.mix_BK[rows_B], self.scale_B2[rows_B], self.loss_BM[rows_B], self.run_B[rows_B], self.own_M)


def as_table(
    mix_BK: ArrayLike, scale_B2: ArrayLike, loss_BM: ArrayLike, run_B: ArrayLike | None, own_M: ArrayLike | None
) -> Table:
    """Checked copies of what `fit` was given; ValueError names what is wrong."""
    mix, loss = as_mixtures(mix_BK), np.array(loss_BM, dtype=np.float64)
    if loss.ndim != 2 or loss.shape[0] != mix.shape[0] or loss.shape[1] == 0:
        raise ValueError(f"loss_BM has shape {loss.shape}, expected ({mix.shape[0]}, M): a row per mixture")
    if mix.shape[0] == 0:
        raise ValueError("a law needs at least one row")
    scale = as_scales(scale_B2, mix.shape[0])
    bad_BM = np.isinf(loss) | (loss <= 0)
    if bad_BM.any():
        row, domain = np.argwhere(bad_BM)[0]
        raise ValueError(f"loss_BM[{row}, {domain}] = {loss[row, domain]:g}: a loss is finite, > 0, or NaN")
    empty_M = np.isnan(loss).all(axis=0)
    if empty_M.any():
        raise ValueError(f"eval domain {int(np.argmax(empty_M))} has no usable rows (all NaN)")
    own = _as_own(own_M, loss.shape[1], mix.shape[1])
    run = _guess_runs(mix, scale, loss) if run_B is None else _as_runs(run_B, mix.shape[0])
    return Table(mix, scale, loss, run, own)


def as_mixtures(mix_BK: ArrayLike, n_domains: int | None = None) -> Array:
    """Shares (B, K), clipped at 0 and divided by their sum; a share of 0 stays exactly 0."""
    mix = np.array(mix_BK, dtype=np.float64)
    if mix.ndim != 2 or mix.shape[1] == 0 or (n_domains is not None and mix.shape[1] != n_domains):
        want = "K" if n_domains is None else n_domains
        raise ValueError(f"mix_BK has shape {mix.shape}, expected (B, {want})")
    if not np.isfinite(mix).all():
        row, domain = np.argwhere(~np.isfinite(mix))[0]
        raise ValueError(f"mix_BK[{row}, {domain}] = {mix[row, domain]}: shares must be finite")
    wrong_B = (np.abs(mix.sum(axis=1) - 1) > SHARE_TOLERANCE) | (mix < -SHARE_TOLERANCE).any(axis=1)
    if wrong_B.any():
        row = int(np.argmax(wrong_B))
        raise ValueError(f"mix_BK row {row} is no mixture: sum {mix[row].sum():.4f}, least share {mix[row].min():g}")
    mix = np.maximum(mix, 0.0)
    return np.asarray(mix / mix.sum(axis=1, keepdims=True))


def as_scales(scale_B2: ArrayLike, n_rows: int) -> Array:
    """Scales (B, 2); a single scale (2,) stands for every row."""
    scale = np.array(scale_B2, dtype=np.float64)
    if scale.shape == (2,):
        scale = np.tile(scale, (n_rows, 1))
    if scale.shape != (n_rows, 2):
        raise ValueError(f"scale_B2 has shape {scale.shape}, expected ({n_rows}, 2): n_params, n_tokens")
    bad_B = ~(np.isfinite(scale) & (scale > 0)).all(axis=1)
    if bad_B.any():
        row = int(np.argmax(bad_B))
        raise ValueError(f"scale_B2 row {row} = {scale[row].tolist()}: n_params and n_tokens must be > 0")
    return scale


def _as_own(own_M: ArrayLike | None, n_eval: int, n_domains: int) -> Ints:
    own = np.full(n_eval, -1) if own_M is None else np.array(own_M)
    if own.shape != (n_eval,) or not np.issubdtype(own.dtype, np.integer):
        raise ValueError(f"own_M must be {n_eval} integers (one per eval domain), got shape {own.shape}")
    if (own < -1).any() or (own >= n_domains).any():
        raise ValueError(f"own_M must lie in -1..{n_domains - 1}, got {own.tolist()}")
    return own.astype(np.int64)


def _as_runs(run_B: ArrayLike, n_rows: int) -> Ints:
    run = np.array(run_B)
    if run.shape != (n_rows,) or not np.issubdtype(run.dtype, np.integer):
        raise ValueError(f"run_B must be {n_rows} integers (one per row), got shape {run.shape}")
    return run.astype(np.int64)


def _guess_runs(mix_BK: Array, scale_B2: Array, loss_BM: Array) -> Ints:
    """Rows of one mixture and size are one run; the k-th repeat of the same D belongs to the k-th run."""
    _, point_B = np.unique(np.column_stack([mix_BK, scale_B2]), axis=0, return_inverse=True)
    order_B = np.lexsort((np.nan_to_num(loss_BM[:, 0]), point_B))
    first_B = np.r_[True, np.diff(point_B[order_B]) != 0]
    start_B = np.maximum.accumulate(np.where(first_B, np.arange(len(order_B)), 0))
    repeat_B = np.empty(len(order_B))
    repeat_B[order_B] = np.arange(len(order_B)) - start_B
    _, run_B = np.unique(np.column_stack([mix_BK, scale_B2[:, 0], repeat_B]), axis=0, return_inverse=True)
    return run_B.astype(np.int64)
