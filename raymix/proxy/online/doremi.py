"""DoReMi (arXiv 2305.10429, algorithm 1): shares follow the excess loss over a reference model.

A reference proxy is trained on the prior. A second proxy then sees all domains equally often; where its tokens
are still worse than the reference's, the domain gains share, and the loss it is trained on is weighted by the shares.

Letters: K training domains.
"""

import numpy as np

from raymix.corpus.shards import Corpus
from raymix.proxy.online.session import Answer, Session, answer
from raymix.simplex import Array
from raymix.space import SearchSpace

STEP_SIZE = 1.0  # eta of algorithm 1
SMOOTHING = 1e-3  # c of algorithm 1, towards uniform


def choose(corpus: Corpus, space: SearchSpace, n_params: float, n_tokens: float, seed: int) -> Answer:
    """Reference run, proxy run, mean of the shares."""
    reference = _reference(corpus, space, n_params, n_tokens, seed)
    session = Session(corpus, space, n_params, n_tokens, seed)
    share_K = np.full(session.n_domains, 1 / session.n_domains)
    path: list[Array] = []
    for step in range(session.shape.n_steps):
        tasks = [session.task(tokens, step) for tokens in session.draw_each()]
        excess = [session.losses(task) - session.losses(task, reference.run) for task in tasks]
        share_K = updated(share_K, np.array([float(tokens.clamp(min=0).mean()) for tokens in excess]))
        path.append(share_K)
        parts = ((float(share), *session.gradient(task)) for share, task in zip(share_K, tasks, strict=True))
        session.weighted_step(step, parts)
    # forward of the reference and a second one of the proxy: two thirds of a training pass
    return answer(session, path, reference.flops() + session.flops(5 / 3))


def updated(share_K: Array, excess_K: Array) -> Array:
    """Exponentiated gradient ascent on the excess losses (K,), smoothed towards uniform."""
    log_K = np.log(share_K) + STEP_SIZE * excess_K
    grown_K = np.exp(log_K - log_K.max())
    return np.asarray((1 - SMOOTHING) * grown_K / grown_K.sum() + SMOOTHING / len(share_K))


def _reference(corpus: Corpus, space: SearchSpace, n_params: float, n_tokens: float, seed: int) -> Session:
    """A proxy trained on the prior."""
    session = Session(corpus, space, n_params, n_tokens, seed)
    prior_K = space.prior_K()
    for step in range(session.shape.n_steps):
        session.plain_step(step, prior_K)
    return session
