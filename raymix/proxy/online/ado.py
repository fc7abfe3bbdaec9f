"""ADO (arXiv 2410.11820): shares follow how fast a scaling law says each domain's loss will still fall.

During the run each domain's training loss is fitted as L(n) = e + b n^-a. A domain's preference is its prior share,
times its recent share to the power s (credit for what was trained on), times its learning speed -dL/dn = a (L - e) / n.
Shares are mostly the average of the preferences so far, and no domain falls below a floor.

Letters: K training domains.
"""

from collections.abc import Iterator

import numpy as np
from scipy.optimize import least_squares
from torch import Tensor

from raymix.corpus.shards import Corpus
from raymix.proxy.online.session import Answer, Session, answer
from raymix.simplex import Array
from raymix.space import SearchSpace

CREDIT_POWER = 0.5  # s
CREDIT_MEMORY = 0.1  # gamma 1, of the recent shares
SHARE_MEMORY = 0.1  # gamma 2, of the preference against the average of the preferences so far
FLOOR = 0.01  # delta min
FIRST_FIT = 0.1  # of the run; the paper ignores 500 steps of 60,000 and refits every 1,000
N_FITS = 20  # over the run


def choose(corpus: Corpus, space: SearchSpace, n_params: float, n_tokens: float, seed: int) -> Answer:
    """One proxy run that starts at the prior; mean of the shares."""
    session = Session(corpus, space, n_params, n_tokens, seed)
    n_steps = session.shape.n_steps
    prior_K = floored(space.prior_K())
    share_K = average_K = recent_K = prior_K
    speed_K: Array | None = None
    history: list[list[tuple[int, float]]] = [[] for _ in prior_K]
    path: list[Array] = []
    for step in range(n_steps):
        if step >= FIRST_FIT * n_steps and step % max(1, n_steps // N_FITS) == 0:
            speed_K = np.array([learning_speed(seen, step + 1) for seen in history])
        if speed_K is not None:
            share_K, average_K = smoothed(preferred(prior_K, recent_K, speed_K), average_K, step)
        recent_K = CREDIT_MEMORY * share_K + (1 - CREDIT_MEMORY) * recent_K
        path.append(share_K)
        _step(session, step, share_K, history)
    return answer(session, path, session.flops())


def preferred(prior_K: Array, recent_K: Array, speed_K: Array) -> Array:
    """(K,) preference: prior x recent share^s x learning speed, normalised."""
    preference_K = prior_K * recent_K**CREDIT_POWER * speed_K
    return preference_K / preference_K.sum() if preference_K.sum() > 0 else prior_K


def smoothed(preference_K: Array, average_K: Array, step: int) -> tuple[Array, Array]:
    """Shares (K,) of a step, and the average (K,) of preferences up to it, which are the prior before the first fit.

    The average is of preferences, not of shares (the authors' code, github.com/yidingjiang/ado): shares that were
    averages of shares would leave the prior only as the number of steps to the power -.1.
    """
    share_K = floored(SHARE_MEMORY * preference_K + (1 - SHARE_MEMORY) * average_K)
    return share_K, average_K + (preference_K - average_K) / (step + 1)


def learning_speed(seen: list[tuple[int, float]], now: int) -> float:
    """-dL/dn at step `now` of L(n) = e + b n^-a fitted to (step, loss); 0 with fewer than four, or one not finite."""
    n, loss = np.array(seen, float).reshape(-1, 2).T
    if len(n) < 4 or not np.isfinite(loss).all():
        return 0.0
    lowest, first = float(loss.min()), float(loss[0])

    def residuals(p: Array) -> Array:
        return np.asarray(np.log(p[0] + p[1] * n ** -p[2]) - np.log(loss))

    start = [0.5 * lowest, max(first - 0.5 * lowest, 1e-3), 0.3]
    bounds = ([0.0, 1e-6, 0.01], [lowest, 10 * first + 1, 0.8])
    fit = least_squares(residuals, np.clip(start, *bounds), bounds=bounds, loss="soft_l1", f_scale=0.05)
    _, b, a = fit.x
    return float(a * b * now ** (-a - 1))


def floored(share_K: Array) -> Array:
    """No share below the floor (or half of an even share, where there are many domains)."""
    floor = min(FLOOR, 0.5 / len(share_K))
    free_K = np.maximum(share_K / share_K.sum() - floor, 0)
    return np.asarray(floor + (1 - floor * len(share_K)) * free_K / max(free_K.sum(), 1e-300))


def _step(session: Session, step: int, share_K: Array, history: list[list[tuple[int, float]]]) -> None:
    """An ordinary step on a batch drawn at these shares; every domain's loss is noted on the way."""

    def parts() -> Iterator[tuple[float, float, list[Tensor]]]:
        for k, tokens in session.draw(share_K).items():
            loss, gradient = session.gradient(session.task(tokens, step))
            history[k].append((step + 1, loss))
            yield len(tokens) / session.shape.batch, loss, gradient

    session.weighted_step(step, parts())
