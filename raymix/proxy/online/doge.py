"""DoGE (arXiv 2310.15393, algorithm 1): shares follow how well a domain's gradient helps all the others.

Every step takes the gradient of each domain; a domain gains share by the inner product of its gradient with the
sum of all. Needs K gradients in memory at once: K x parameters x 4 bytes.

Letters: K training domains.
"""

import numpy as np
import torch
from torch import Tensor

from raymix.corpus.shards import Corpus
from raymix.proxy.online.session import Answer, Session, answer
from raymix.simplex import Array
from raymix.space import SearchSpace

TEMPERATURE = 0.1  # mu, the strength of the Bregman term


def choose(corpus: Corpus, space: SearchSpace, n_params: float, n_tokens: float, seed: int) -> Answer:
    """One proxy run; mean of the shares."""
    session = Session(corpus, space, n_params, n_tokens, seed)
    share_K = np.full(session.n_domains, 1 / session.n_domains)
    path: list[Array] = []
    for step in range(session.shape.n_steps):
        found = [session.gradient(session.task(tokens, step)) for tokens in session.draw_each()]
        share_K = updated(share_K, alignment([gradient for _, gradient in found]), session.shape.rate(step))
        path.append(share_K)
        session.weighted_step(step, ((float(share), *part) for share, part in zip(share_K, found, strict=True)))
    return answer(session, path, session.flops())


def alignment(gradients: list[list[Tensor]]) -> Array:
    """(K,) inner products of each domain's gradient with the sum of all."""
    total = [torch.stack(parts).sum(0) for parts in zip(*gradients, strict=True)]
    pairs = ((gradient, total) for gradient in gradients)
    return np.array([sum(float((a * b).sum()) for a, b in zip(*pair, strict=True)) for pair in pairs])


def updated(share_K: Array, alignment_K: Array, rate: float) -> Array:
    """softmax(log share + rate x alignment / mu), equation 5 of the paper."""
    log_K = np.log(share_K) + rate * alignment_K / TEMPERATURE
    grown_K = np.maximum(np.exp(log_K - log_K.max()), 1e-12)
    return np.asarray(grown_K / grown_K.sum())
