"""Continual pre-training: how much of the original data must stay.

A trained model goes on with a mixture of its original data and a new domain. The *critical share* is the smallest
share of original data at which the loss on the original eval domain is not worse than before (arXiv 2403.16952).
The law per checkpoint is that paper's for two domains,

    L(r) = c + k exp(t r),  k >= 0, t < 0,  r the share of original data,

falling and convex, so the critical share log((L0 - c) / k) / t is unique. Where we differ: the fit is exact in c and
k for every t (raymix/target/falling.py), so it needs no random starts, and the interval is a bootstrap over runs.

Letters: B rows, R runs, S draws.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from raymix.laws.robust import tamed_row
from raymix.laws.rows import SAME_SCALE, distinct
from raymix.observations import Observations
from raymix.simplex import Array
from raymix.target.falling import Exponential, fit_exponential

N_PARAMETERS = 3  # c, k, t
LEVEL = 0.9  # of the interval
SAME_MODEL = 0.01  # between losses of one model: other machines, other rounding
FEW_SPARE = 3  # runs beyond the parameters: the 90% interval of 4 runs alone holds 84%, three times as wide as of 12

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class AtTokens:
    """The critical share after `n_tokens` of continual training."""

    n_tokens: float
    share: float
    low: float
    high: float
    """90% interval; NaN without a noise level (three shares, none left over to show a misfit)."""
    law: tuple[float, float, float]
    """c, k (nats) and t."""


@dataclass(frozen=True)
class CriticalShare:
    """The smallest share of original data that keeps its loss; inf where no share does."""

    share: float
    low: float
    high: float
    n_tokens: float
    noise: float
    """sd of one loss around the law, nats; NaN if neither measured nor given."""
    steps: tuple[AtTokens, ...]
    notes: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """Plain values; null where a share is inf (none is enough) or not known."""

        def plain(found: CriticalShare | AtTokens) -> dict[str, float | None]:
            numbers = {name: getattr(found, name) for name in ("n_tokens", "share", "low", "high")}
            return {name: value if np.isfinite(value) else None for name, value in numbers.items()}

        noise = self.noise if np.isfinite(self.noise) else None
        return {**plain(self), "noise": noise, "steps": [plain(at) for at in self.steps], "notes": list(self.notes)}


def critical_share(
    share_B: ArrayLike,
    loss_B: ArrayLike,
    base_loss: float,
    run_B: ArrayLike | None = None,
    n_tokens_B: ArrayLike | None = None,
    *,
    noise: float | None = None,
    n_draws: int = 400,
    seed: int = 0,
) -> CriticalShare:
    """The critical share at the last checkpoint, and at every other one.

    `share_B` is the share of original data, `loss_B` the loss on the original eval domain in nats, `base_loss` that
    before continual training. Rows of one `run_B` are checkpoints of one run; without `n_tokens_B` all rows count
    as one checkpoint, and tokens of several runs within 1% are those of one. The interval refits
    `n_draws` times with a new error per run, the same at all its checkpoints, drawn from the runs' residuals at all
    checkpoints (or normal with sd `noise`, nats, if given).

    Raises:
        ValueError: a number is out of range, or no checkpoint has three different shares with falling losses.
    """
    share, loss, run, n_tokens = _as_rows(share_B, loss_B, base_loss, run_B, n_tokens_B)
    fits, notes = _fit_steps(share, loss, n_tokens)
    if not fits:
        raise ValueError("no checkpoint can be fitted: " + ("; ".join(notes) or "there are no rows with losses"))
    if noise is not None and not (np.isfinite(noise) and noise >= 0):
        raise ValueError(f"the noise is {noise:g}: the sd of one loss in nats, at least 0")
    pool_E = tamed_row(np.concatenate([_residuals(law, share[rows], loss[rows]) for rows, law in fits.values()]))
    sd = float(np.sqrt(np.mean(pool_E**2))) if len(pool_E) else float("nan")
    sd = sd if noise is None else float(noise)
    rng, shape = np.random.default_rng(seed), (n_draws, int(run.max()) + 1)
    error_SR = np.full(shape, np.nan)
    if np.isfinite(sd):
        error_SR = _own_errors(pool_E, fits, rng, shape) if noise is None else rng.normal(0, sd, shape)
    steps = [_at_tokens(at, law, share[r], base_loss, error_SR[:, run[r]]) for at, (r, law) in fits.items()]
    last = steps[-1]
    notes += _remarks(last, share[fits[last.n_tokens][0]], noise is None)
    return CriticalShare(last.share, last.low, last.high, last.n_tokens, sd, tuple(steps), tuple(notes))


def critical_share_of(
    observations: Observations,
    domain: str,
    base_loss_M: ArrayLike | None,
    weights_M: ArrayLike,
    noise: float | None = None,
) -> CriticalShare:
    """The same from an observation table whose mixtures and tokens are those of the continual stage alone.

    `domain` holds the original data; the original loss is the mean over eval domains by `weights_M`, and
    `base_loss_M` are the losses before; None where the table has them in its rows `start`, as that of a study with
    `recipe.init_from`. Sizes within 1% are one. `stages.this_stage` takes the base model's tokens out of cumulative
    rows.

    Raises:
        ValueError: an unknown domain, several model sizes, no losses before, or as `critical_share`.
    """
    if domain not in observations.domains:
        raise ValueError(f"unknown domain {domain!r}; the table has {', '.join(observations.domains)}")
    rows = observations.usable()
    if len(rows) and len(distinct(rows.scale_B2[:, 0])) > 1:
        raise ValueError("a critical share belongs to one model size: select the rows of one n_params")
    before_M = losses_before(observations) if base_loss_M is None else np.asarray(base_loss_M, float)
    weight, M = np.asarray(weights_M, float), len(observations.eval_domains)
    if not weight.shape == before_M.shape == (M,):
        raise ValueError(f"{weight.shape} weights and {before_M.shape} losses before for {M} eval domains: one of each")
    if not ((weight >= 0).all() and 0 < weight.sum() < np.inf):
        raise ValueError("weights are numbers of at least 0, not all 0")
    weight = weight / weight.sum()
    used = weight > 0
    if none := [name for name, m in zip(observations.eval_domains, used & np.isnan(before_M), strict=True) if m]:
        raise ValueError(f"{none[0]!r} has no loss before, which the weights ask for")
    loss_B = rows.loss_BM[:, used] @ weight[used]
    base_loss = float(before_M[used] @ weight[used])
    whole = np.isfinite(loss_B)
    share_B = rows.mix_BK[:, observations.domains.index(domain)]
    return critical_share(
        share_B[whole], loss_B[whole], base_loss, rows.run_B[whole], rows.scale_B2[whole, 1], noise=noise
    )


def losses_before(observations: Observations) -> Array:
    """Losses (M,) of the model that all runs go on from, before its first token: those of the rows `start`.

    NaN of an eval domain that no run measured then.

    Raises:
        ValueError: no run has such a row, or they are of different models.
    """
    loss_BM = observations.select(observations.status_B == "start").loss_BM
    if not len(loss_BM):
        raise ValueError("no row has status start, so the losses before must be given (--before FILE)")
    known_BM = np.ma.masked_invalid(loss_BM)
    low_M, high_M = (np.ma.filled(of(axis=0), np.nan) for of in (known_BM.min, known_BM.max))
    if (high_M > low_M * (1 + SAME_MODEL)).any():
        i = int(np.nanargmax(high_M / low_M))
        name = observations.eval_domains[i]
        raise ValueError(f"the rows start have losses from {low_M[i]:.4g} to {high_M[i]:.4g} on {name!r}: two models")
    return np.asarray(np.ma.filled(known_BM.mean(axis=0), np.nan))


def _as_rows(
    share_B: ArrayLike, loss_B: ArrayLike, base_loss: float, run_B: ArrayLike | None, n_tokens_B: ArrayLike | None
) -> tuple[Array, Array, Ints, Array]:
    """Checked columns, runs numbered from 0; without `run_B`, rows of one share are one run."""
    share, loss = np.array(share_B, dtype=np.float64), np.array(loss_B, dtype=np.float64)
    run = np.unique(share if run_B is None else np.asarray(run_B), return_inverse=True)[1].astype(np.int64)
    n_tokens = np.zeros(len(share)) if n_tokens_B is None else np.array(n_tokens_B, dtype=np.float64)
    if not share.shape == loss.shape == run.shape == n_tokens.shape or share.ndim != 1:
        raise ValueError(f"shares {share.shape}, losses {loss.shape}, runs and tokens must be columns of one length")
    if not ((share >= 0) & (share <= 1)).all():
        raise ValueError("a share of original data is a number from 0 to 1")
    if not (np.isfinite(loss).all() and (loss > 0).all() and np.isfinite(base_loss) and base_loss > 0):
        raise ValueError("losses (nats per token), before and after, are finite and above 0")
    if not np.isfinite(n_tokens).all():
        raise ValueError("n_tokens must be finite")
    return share, loss, run, _checkpoints(n_tokens, run)


def _checkpoints(n_tokens_B: Array, run_B: Ints) -> Array:
    """Tokens (B,), equal where they are of one checkpoint: runs end a batch apart, and none has two rows at one."""
    order, found_B = np.argsort(n_tokens_B, kind="stable"), n_tokens_B.copy()
    start, seen = 0, dict[int, float]()
    for i, b in enumerate(order):
        at, run = float(n_tokens_B[b]), int(run_B[b])
        if at > n_tokens_B[order[start]] * (1 + SAME_SCALE) or seen.get(run, at) != at:
            start, seen = i, {}
        seen[run] = at
        found_B[order[start : i + 1]] = np.median(n_tokens_B[order[start : i + 1]])
    return found_B


def _fit_steps(
    share_B: Array, loss_B: Array, n_tokens_B: Array
) -> tuple[dict[float, tuple[Ints, Exponential]], list[str]]:
    """Rows and law per checkpoint with at least three shares and a falling loss; a note on each left out."""
    fits: dict[float, tuple[Ints, Exponential]] = {}
    notes = []
    for at in np.unique(n_tokens_B):
        rows = np.flatnonzero(n_tokens_B == at).astype(np.int64)
        n_shares = len(np.unique(share_B[rows]))
        if n_shares < N_PARAMETERS:
            notes.append(f"n_tokens {at:.4g}: {n_shares} different shares, {N_PARAMETERS} are needed")
            continue
        law = fit_exponential(share_B[rows], loss_B[None, rows])
        if law.scale[0] > 0:
            fits[float(at)] = (rows, law)
        else:
            notes.append(f"n_tokens {at:.4g}: the loss does not fall with the share of original data")
    return fits, notes


def _residuals(law: Exponential, share_B: Array, loss_B: Array) -> Array:
    """Residuals scaled by sqrt(B / (B - 3)) to the size of errors; none where three rows leave none over."""
    if len(loss_B) <= N_PARAMETERS:
        return np.zeros(0)
    return np.asarray((loss_B - law.losses(share_B)[0]) * np.sqrt(len(loss_B) / (len(loss_B) - N_PARAMETERS)))


def _own_errors(
    pool_E: Array, fits: dict[float, tuple[Ints, Exponential]], rng: np.random.Generator, shape: tuple[int, int]
) -> Array:
    """Errors (S, R) from the residuals of the runs, each draw with an sd that so few residuals leave possible.

    Of n left over, sd^2 n / chi^2_n: what makes Student's t of a normal. A run has one error, however many checkpoints.
    """
    n = max(len(rows) for rows, _ in fits.values()) - N_PARAMETERS
    drawn_SR = np.asarray(rng.choice(np.r_[pool_E, -pool_E], shape), dtype=np.float64)
    return np.asarray(drawn_SR * np.sqrt(n / rng.chisquare(n, (shape[0], 1))))


def _at_tokens(n_tokens: float, law: Exponential, share_B: Array, base_loss: float, error_SB: Array) -> AtTokens:
    """The critical share with the interval that refits under new errors give."""
    low = high = float("nan")
    if np.isfinite(error_SB).all():
        share_S = np.sort(fit_exponential(share_B, law.losses(share_B) + error_SB).share_for(base_loss))
        tail = (1 - LEVEL) / 2
        low, high = (float(np.quantile(share_S, q, method="nearest")) for q in (tail, 1 - tail))  # inf is a value here
    theta = (float(law.floor[0]), float(law.scale[0]), float(law.rate[0]))
    return AtTokens(n_tokens, float(law.share_for(base_loss)[0]), low, high, theta)


def _remarks(last: AtTokens, share_B: Array, own_noise: bool) -> list[str]:
    """What a reader of the headline share must know."""
    notes = []
    if np.isinf(last.share):
        notes.append("no share of original data keeps the loss: even all of it is predicted to be worse than before")
    elif not share_B.min() <= last.share <= share_B.max():
        notes.append(
            f"the share {last.share:.3g} lies outside the shares trained ({share_B.min():g} to {share_B.max():g})"
        )
    if np.isnan(last.low):
        notes.append("no interval: train a fourth share or a second seed, or give the noise")
    elif own_noise and len(share_B) < N_PARAMETERS + FEW_SPARE:
        notes.append(
            f"{len(share_B)} runs for {N_PARAMETERS} parameters: the interval is rough; give the noise of a run"
        )
    return notes
