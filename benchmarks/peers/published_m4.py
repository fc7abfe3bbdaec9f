"""The mixing law as its authors fit it (arXiv 2403.16952, section 3.2 and the public code's settings).

L(r) = exp(log c) + exp(log k + sum_j t_j r_j) for one eval domain, by LBFGS on the summed Huber loss of the
residuals in nats, delta .02, from many random starts; the best start is kept. LBFGS: strong Wolfe line search,
lr .01, history 10, 20 inner iterations, 20 outer steps, float32. Written from that description; torch is imported
where it is used.
"""

from typing import Any

import numpy as np

DELTA = 0.02  # nats
N_STARTS = 20
OUTER_STEPS, INNER_STEPS, HISTORY, LEARNING_RATE = 20, 20, 10, 0.01
LOG_FLOOR, LOG_LEVEL = (-2.0, 1.5), (-10.0, 1.0)  # ranges of the starts of log c and log k; t starts in (-1, 1)


def objective(theta_MP: Any, mix_BK: Any, loss_BM: Any) -> Any:
    """Summed Huber loss (M,) of theta = (log c, log k, t_1..K)."""
    theta = np.asarray(theta_MP, dtype=np.float64)
    pred_BM = np.exp(theta[:, 0]) + np.exp(theta[:, 1] + mix_BK @ theta[:, 2:].T)
    return huber(pred_BM - loss_BM).sum(axis=0)


def huber(error: Any) -> Any:
    """error^2 / 2 up to DELTA, linear beyond."""
    size = np.abs(error)
    return np.where(size <= DELTA, 0.5 * size**2, DELTA * (size - 0.5 * DELTA))


def fit(mix_BK: Any, loss_BM: Any, seed: int = 0, n_starts: int = N_STARTS) -> Any:
    """theta (M, K + 2), every eval domain from its own random starts."""
    rng = np.random.default_rng(seed)
    return np.stack([_best(mix_BK, loss_B, starts(rng, mix_BK.shape[1], n_starts)) for loss_B in loss_BM.T])


def starts(rng: np.random.Generator, n_domains: int, n_starts: int) -> Any:
    """Random starts (n_starts, K + 2)."""
    low = [LOG_FLOOR[0], LOG_LEVEL[0], *[-1.0] * n_domains]
    high = [LOG_FLOOR[1], LOG_LEVEL[1], *[1.0] * n_domains]
    return rng.uniform(low, high, size=(n_starts, n_domains + 2))


def _best(mix_BK: Any, loss_B: Any, start_SP: Any) -> Any:
    tried = [_descend(mix_BK, loss_B, start_P) for start_P in start_SP]
    return min(tried, key=lambda found: found[0])[1]


def _descend(mix_BK: Any, loss_B: Any, start_P: Any) -> tuple[float, Any]:
    """The least objective on the way from one start, and theta there."""
    import torch

    mix, loss = (torch.tensor(value, dtype=torch.float32) for value in (mix_BK, loss_B))
    theta = torch.nn.Parameter(torch.tensor(start_P, dtype=torch.float32))
    lbfgs = torch.optim.LBFGS(
        [theta], lr=LEARNING_RATE, history_size=HISTORY, max_iter=INNER_STEPS, line_search_fn="strong_wolfe"
    )

    def cost() -> Any:
        pred = torch.exp(theta[0]) + torch.exp(theta[1] + mix @ theta[2:])
        return torch.nn.functional.huber_loss(pred, loss, delta=DELTA, reduction="sum")

    def closure() -> Any:
        lbfgs.zero_grad()
        value = cost()
        value.backward()
        return value

    least, best = np.inf, start_P
    for _ in range(OUTER_STEPS):
        lbfgs.step(closure)
        with torch.no_grad():
            value = float(cost())
        if value <= least:
            least, best = value, theta.detach().numpy().astype(np.float64)
    return least, best.copy()
