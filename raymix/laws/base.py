"""What a law is: losses as a function of mixture and scale, fitted once, read anywhere.

Letters: B rows, K training domains, M eval domains, P law parameters, S draws.
`scale_B2` has the columns n_params (N, without embeddings) and n_tokens (D, tokens).
Losses are nats per token. Settings go in the constructor and stay untouched, learned
values end in `_`, and `predict` is pure (the contract of scikit-learn).
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any, ClassVar, Protocol, Self, TypeVar, runtime_checkable

import numpy as np
from numpy.typing import ArrayLike, NDArray

from raymix.simplex import Array as Array
from raymix.simplex import normalise

Ints = NDArray[np.int64]
Flags = NDArray[np.bool_]
Few = Ints | slice  # some of the eval domains

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

    def predict(self, mix_BK: ArrayLike, scale_B2: ArrayLike) -> Array:
        """Losses (B, M) in nats per token."""

    def gradient(self, mix_BK: ArrayLike, scale_B2: ArrayLike) -> Array:
        """dL/dr (B, M, K), meaningful along the simplex (directions that sum to 0)."""

    def sd(self, mix_BK: ArrayLike, scale_B2: ArrayLike) -> Array:
        """Standard deviation (B, M) of log loss for a new run: 90% interval = L exp(+-1.645 sd)."""

    def sd_between(self, mix_BK: ArrayLike, other_BK: ArrayLike, scale_B2: ArrayLike) -> Array:
        """Standard deviation (B, M) of log L(mix) - log L(other), row by row at one scale, without the noise of runs.

        What both share cancels: 0 between a mixture and itself.
        """

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values from which `from_json` makes an equal law, to the last bit."""

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Self:
        """The law that `to_json` described."""


AnyLaw = TypeVar("AnyLaw", bound=Law)


@dataclass(frozen=True)
class Table:
    """Checked observations, as matrices: every law fits from these."""

    mix_BK: Array
    scale_B2: Array
    loss_BM: Array
    run_B: Ints
    own_M: Ints
    unique_BK: Array | None = None
    """Unique tokens that a row's run could draw from; NaN where not known, None where nothing is."""

    def take(self, rows_B: Ints | Flags) -> "Table":
        """The rows named, in that order, or those flagged."""
        unique_BK = None if self.unique_BK is None else self.unique_BK[rows_B]
        parts = (self.mix_BK[rows_B], self.scale_B2[rows_B], self.loss_BM[rows_B], self.run_B[rows_B])
        return Table(*parts, self.own_M, unique_BK)

    def measured(self) -> tuple["Table", Ints]:
        """The eval domains with any loss, and which they are."""
        seen_m = np.flatnonzero(np.isfinite(self.loss_BM).any(axis=0))
        return replace(self, loss_BM=self.loss_BM[:, seen_m], own_M=self.own_M[seen_m]), seen_m

    def fit(self, law: AnyLaw) -> AnyLaw:
        """The law fitted on these rows; only some laws ask for unique tokens."""
        more = {} if self.unique_BK is None or not getattr(law, "repeats", False) else {"unique_BK": self.unique_BK}
        return law.fit(self.mix_BK, self.scale_B2, self.loss_BM, self.run_B, self.own_M, **more)


class FromTable(ABC):
    """What a law's `fit` does first: its rows, checked, as a table."""

    name: ClassVar[str]
    convex: ClassVar[bool]
    repeats: ClassVar[bool] = False
    """Whether it counts repeated tokens: only then `fit` takes unique tokens."""

    def fit(
        self,
        mix_BK: ArrayLike,
        scale_B2: ArrayLike,
        loss_BM: ArrayLike,
        run_B: ArrayLike | None = None,
        own_M: ArrayLike | None = None,
        unique_BK: ArrayLike | None = None,
    ) -> Self:
        """Learn from losses (nats; NaN where not measured) and return self; see `Law.fit`.

        `unique_BK` are the unique tokens of each domain that a row's run could draw from, NaN where not known. Where
        some were repeated, what repeats are worth is learned; see `repetition`.
        """
        if unique_BK is not None and not self.repeats:
            raise TypeError(f"the law {self.name} counts no repeats: fit it without unique_BK")
        return self._fit(as_table(mix_BK, scale_B2, loss_BM, run_B, own_M, unique_BK))

    @abstractmethod
    def _fit(self, table: Table) -> Self: ...


def as_table(
    mix_BK: ArrayLike,
    scale_B2: ArrayLike,
    loss_BM: ArrayLike,
    run_B: ArrayLike | None,
    own_M: ArrayLike | None,
    unique_BK: ArrayLike | None = None,
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
    run = _guess_runs(mix, scale, loss) if run_B is None else _as_integers(run_B, "run_B", len(mix), "row")
    return Table(mix, scale, loss, run, own, None if unique_BK is None else _as_unique(unique_BK, mix))


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
    return normalise(mix)


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


def as_queries(mix_BK: ArrayLike, scale_B2: ArrayLike, n_domains: int) -> tuple[Array, Array]:
    """What a law with so many domains is asked for: `as_mixtures` and `as_scales`."""
    mix = as_mixtures(mix_BK, n_domains)
    return mix, as_scales(scale_B2, len(mix))


def _as_own(own_M: ArrayLike | None, n_eval: int, n_domains: int) -> Ints:
    own = _as_integers(np.full(n_eval, -1) if own_M is None else own_M, "own_M", n_eval, "eval domain")
    if (own < -1).any() or (own >= n_domains).any():
        raise ValueError(f"own_M must lie in -1..{n_domains - 1}, got {own.tolist()}")
    return own


def _as_unique(unique_BK: ArrayLike, mix_BK: Array) -> Array | None:
    unique = np.array(unique_BK, dtype=np.float64)
    if unique.shape != mix_BK.shape:
        raise ValueError(f"unique_BK has shape {unique.shape}, expected {mix_BK.shape}: NaN where not known")
    bad_BK = (unique <= 0) & (mix_BK > 0)
    if bad_BK.any():
        row, domain = np.argwhere(bad_BK)[0]
        raise ValueError(f"unique_BK[{row}, {domain}] = {unique[row, domain]:g}, of which a share was drawn")
    return None if np.isnan(unique).all() else np.where(unique > 0, unique, np.nan)


def _as_integers(value: ArrayLike, name: str, n: int, what: str) -> Ints:
    found = np.array(value)
    if found.shape != (n,) or not np.issubdtype(found.dtype, np.integer):
        raise ValueError(f"{name} must be {n} integers (one per {what}), got shape {found.shape}")
    return found.astype(np.int64)


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


def fresh(law: AnyLaw) -> AnyLaw:
    """An unfitted law with the same settings."""
    settings: Any = law  # every law is a dataclass of its settings
    copied: AnyLaw = replace(settings)
    return copied


def changed(law: Any, **learned: Any) -> Any:
    """A copy of a law with other learned values; what is not named is shared."""
    drawn = copy(law)
    for key, value in learned.items():
        setattr(drawn, key, value)
    return drawn


def saved(law: Any, learned: Sequence[str], **inside: Any) -> dict[str, Any]:
    """Plain JSON values of a law: its settings, the laws `inside` it, notes and what else it has learned."""
    settings = {f.name: plain(getattr(law, f.name)) for f in fields(law) if f.init and f.name not in inside}
    values = {key: plain(getattr(law, key)) for key in (*learned, "notes_")}
    return {"law": law.name, "settings": settings, **inside, "learned": values}


def restore(law: Any, data: dict[str, Any], learned: Sequence[str]) -> None:
    """Give a law what `saved` wrote of the values named, and its notes."""
    for key in learned:
        value = data["learned"][key]
        setattr(law, key, np.array(value) if isinstance(value, list) else value)
    law.notes_ = list(data["learned"]["notes_"])


def plain(value: Any) -> Any:
    """Arrays and tuples as lists, parts of a law as mappings, all the way in."""
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    if is_dataclass(value):
        return {key: plain(item) for key, item in vars(value).items()}
    return [plain(item) for item in value] if isinstance(value, tuple | list) else value
