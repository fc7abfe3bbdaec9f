"""Aioli (arXiv 2411.05735, algorithms 1 and 2): shares follow a mixing law measured again and again as the run goes on.

The law is linear: within a round, the loss of domain i falls by sum_j A_ij r_j. A round first measures A: a few steps
on each of K mixtures, every one mostly of one domain, and by how much the losses of all domains fell. Then shares
are proportional to exp(eta sum_i A_ij) for the rest of the round. The constants are those published for seven domains.

Losses are read on sequences that are set aside before the run.

Letters: K training domains.
"""

import numpy as np

from raymix.corpus.shards import Corpus
from raymix.proxy.online.session import Answer, Session, answer
from raymix.proxy.task import Example
from raymix.simplex import Array
from raymix.space import SearchSpace, SpaceError

STEP_SIZE = 1.0  # eta
MEMORY = 0.1  # of the A of earlier rounds
MOSTLY = 0.75  # the share of the one domain while A is measured
SWEEPS = 2  # over all domains, in each measurement
ROUNDS = 20  # at most
MEASURED = 0.3  # the part of a round that measures; as published 72 of 250 steps (3 domains) and 140 of 200 (7)
SET_ASIDE = (4, 16)  # sequences of each domain that losses are read on, as far as reading costs at most
READING = 0.5  # of what training does


def choose(corpus: Corpus, space: SearchSpace, n_params: float, n_tokens: float, seed: int) -> Answer:
    """One proxy run that starts even; mean of the shares (those of the measurements are not among them).

    Raises:
        SpaceError: the run has fewer steps than one measurement.
    """
    session = Session(corpus, space, n_params, n_tokens, seed)
    n_domains, n_steps = session.n_domains, session.shape.n_steps
    if n_steps < SWEEPS * n_domains:
        raise SpaceError(
            f"aioli measures {n_domains} domains {SWEEPS} times over, and a run of {n_tokens:g} tokens has only "
            f"{n_steps} steps: ask for a longer one"
        )
    rounds = min(ROUNDS, max(1, int(MEASURED * n_steps / (SWEEPS * n_domains))))
    each = max(1, int(MEASURED * n_steps / (rounds * SWEEPS * n_domains)))
    looks, trained = rounds * (SWEEPS * n_domains + 1), n_steps * session.shape.batch
    n_aside = int(np.clip(READING * trained * 3 / (looks * n_domains), *SET_ASIDE))  # a forward is a third of a pass
    aside = [session.task(tokens, 0) for tokens in session.set_aside(n_aside)]
    rng = np.random.default_rng([seed, n_domains])
    mixtures_KK, falls_KK = perturbed(n_domains), np.zeros((n_domains, n_domains))
    share_K = np.full(n_domains, 1 / n_domains)
    remembered_KK: Array | None = None
    path: list[Array] = []
    ends = np.linspace(0, n_steps, rounds + 1).round().astype(int)[1:]
    for end in ends:
        before_K = _losses(session, aside)
        falls_KK[:] = 0
        for j in np.concatenate([rng.permutation(n_domains) for _ in range(SWEEPS)]):
            for _ in range(each):
                session.plain_step(len(path), mixtures_KK[j])
                path.append(share_K)
            after_K = _losses(session, aside)
            falls_KK[:, j] += (before_K - after_K) / SWEEPS
            before_K = after_K
        law_KK = normalised(solved(mixtures_KK, falls_KK))
        remembered_KK = law_KK if remembered_KK is None else (1 - MEMORY) * law_KK + MEMORY * remembered_KK
        share_K = updated(remembered_KK)
        while len(path) < end:
            session.plain_step(len(path), share_K)
            path.append(share_K)
    sequences = trained + looks * n_domains * n_aside / 3
    return answer(session, path, session.shape.flops_per_token * session.shape.context * sequences)


def perturbed(n_domains: int) -> Array:
    """(K, K) mixtures, row j mostly of domain j and the rest even."""
    if n_domains == 1:
        return np.ones((1, 1))
    mixtures_KK = np.full((n_domains, n_domains), (1 - MOSTLY) / (n_domains - 1))
    np.fill_diagonal(mixtures_KK, MOSTLY)
    return mixtures_KK


def solved(mixtures_KK: Array, falls_KK: Array) -> Array:
    """A (K, K) with falls_ij = sum_k mixtures_jk A_ik: what one domain in place of a mixture would have brought."""
    return np.asarray(np.linalg.solve(mixtures_KK, falls_KK.T).T)


def normalised(law_KK: Array) -> Array:
    """A without negative entries (the least of them becomes 0) and with a sum of 1."""
    above_KK = law_KK - min(0.0, float(law_KK.min()))
    return above_KK / above_KK.sum() if above_KK.sum() > 0 else np.full_like(law_KK, 1 / law_KK.size)


def updated(law_KK: Array) -> Array:
    """(K,) shares proportional to exp(eta sum_i A_ij)."""
    grown_K = np.exp(STEP_SIZE * law_KK.sum(axis=0))
    return np.asarray(grown_K / grown_K.sum())


def _losses(session: Session, aside: list[Example]) -> Array:
    return np.array([float(session.losses(task).mean()) for task in aside])
