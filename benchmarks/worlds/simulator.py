"""Simulators of real runs: neural networks fitted on the 512 one-million-parameter runs of RegMix (arXiv 2407.01492).

The family is none of ours: no power of effective data, no Gaussian process. Ten networks of two hidden layers (64,
tanh) with a linear path beside them read log(share + e) at four offsets e and give the log losses of all 13 eval
domains; each is trained on four fifths of the runs (two rounds of five folds), AdamW with strong weight decay, full
batch. The surface is exp of their mean. Each run is predicted by the networks that have not seen it: that is the
accuracy stated.

The noise of a run is the covariance of those held-out errors over the quarter of the runs with the least mean loss (a
search spends its trials there, and runs far from it are noisier), with robust scales (1.4826 times the median absolute
error): an upper bound on the noise of the runs, since the networks' own errors are in it.

Where the runs have not been the networks know nothing, so shares are capped as those of the runs were (15 times the
prior, the published generator's setting), or tighter (4 times).
"""

import hashlib
import os
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.published import regmix
from benchmarks.worlds.base import SINGLE, World, kept_folder, space_of
from raymix.laws.select import rank_correlation
from raymix.simplex import Array

# Token shares of the 17 domains in the copyright-cleaned Pile, as RegMix's generator of mixtures has them.
PRIOR = {
    "arxiv": 0.113285, "freelaw": 0.079609, "nih_exporter": 0.003913, "pubmed_central": 0.185376,
    "wikipedia_en": 0.051081, "dm_mathematics": 0.015963, "github": 0.101751, "philpapers": 0.003708,
    "stackexchange": 0.066529, "enron_emails": 0.001751, "gutenberg_pg_19": 0.027085, "pile_cc": 0.236869,
    "ubuntu_irc": 0.011843, "europarl": 0.007930, "hackernews": 0.008033, "pubmed_abstracts": 0.038826,
    "uspto_backgrounds": 0.046447,
}  # fmt: skip
EVALS = (
    "arxiv", "freelaw", "pubmed_central", "wikipedia_en", "dm_mathematics", "github", "stackexchange",
    "gutenberg_pg_19", "pile_cc", "ubuntu_irc", "hackernews", "pubmed_abstracts", "uspto_backgrounds",
)  # fmt: skip
SCALE = (1e6, 1e9)
RUNS_CAP, TIGHT_CAP = 15.0, 4.0  # times the prior

OFFSETS = (0.0005, 0.004, 0.03, 0.2)  # of shares, inside the logarithm
HIDDEN, FOLDS, ROUNDS, STEPS = 64, 5, 2, 1500
LEARNING_RATE, DECAY, LINEAR_DECAY = 5e-3, 3.0, 0.1  # decay of the networks, and of the linear path


class Networks:
    """The fitted ensemble: weights (E, in, out), and what undoes the standardisation."""

    def __init__(self, parts: dict[str, Array]) -> None:
        self.parts = parts

    def log_losses(self, mix_BK: Array) -> Array:
        """Log losses of every network (E, B, M)."""
        p = self.parts
        z_BF = (features(mix_BK) - p["in_mean"]) / p["in_sd"]
        hidden_EBH = np.tanh(z_BF @ p["w1"] + p["b1"])
        hidden_EBH = np.tanh(hidden_EBH @ p["w2"] + p["b2"])
        out_EBM = hidden_EBH @ p["w3"] + p["b3"] + z_BF @ p["linear"]
        return np.asarray(out_EBM * p["out_sd"] + p["out_mean"])

    def surface(self, mix_BK: Array, scale_B2: Array) -> Array:
        """Losses (B, M); the scale is not read, there was only one."""
        return np.asarray(np.exp(self.log_losses(mix_BK).mean(axis=0)))


def features(mix_BK: Array) -> Array:
    """log(share + e) for every offset e, side by side."""
    return np.concatenate([np.log(mix_BK + offset) for offset in OFFSETS], axis=1)


def worlds(folder: Path) -> dict[str, Any]:
    """Makers of the simulators: two objectives, two caps; and every other loss alone."""
    singles = {f"{SINGLE}{e}": partial(world, folder, f"{SINGLE}{e}", e, RUNS_CAP) for e in EVALS if e != "pile_cc"}
    return {
        "regmix mean": lambda: world(folder, "regmix mean", None, RUNS_CAP),
        "regmix cc": lambda: world(folder, "regmix cc", "pile_cc", RUNS_CAP),
        "regmix mean, caps": lambda: world(folder, "regmix mean, caps", None, TIGHT_CAP),
        "regmix cc, caps": lambda: world(folder, "regmix cc, caps", "pile_cc", TIGHT_CAP),
        **singles,
    }


def world(folder: Path, name: str, only: str | None, cap: float) -> World:
    """A simulator with the mean of 13 losses as objective, or one of them."""
    networks, noise_MM, facts = simulator(folder)
    weights = None if only is None else {only: 1.0}
    space = space_of(name, PRIOR, {m: m for m in EVALS}, [SCALE], SCALE, weights, cap)
    what = f"mean of {len(EVALS)} losses" if only is None else f"loss on {only}"
    about = f"neural networks fitted on 512 runs of RegMix, {what}, shares up to {cap:g} times the prior"
    return World(name, space, networks.surface, noise_MM, about, facts=facts)


@lru_cache
def simulator(folder: Path) -> tuple[Networks, Array, dict[str, Any]]:
    """The networks, the noise and the held-out accuracy; fitted once and kept in a temporary folder."""
    data = regmix(folder)
    mix_BK = data.mix_BK / data.mix_BK.sum(axis=1, keepdims=True)
    log_BM = np.log(data.loss_BM)
    settings = (OFFSETS, HIDDEN, FOLDS, ROUNDS, STEPS, LEARNING_RATE, DECAY, LINEAR_DECAY)
    key = hashlib.sha256(mix_BK.tobytes() + log_BM.tobytes() + repr(settings).encode()).hexdigest()[:16]
    kept = kept_folder() / f"simulator-{key}.npz"
    if kept.is_file():
        with np.load(kept) as file:
            parts = {name: file[name] for name in file.files}
    else:
        parts = fit(mix_BK, log_BM)
        half = kept.with_suffix(f".{os.getpid()}.npz")
        np.savez(half, **parts)  # type: ignore[arg-type]
        half.replace(kept)
    held_out_BM = parts.pop("held_out")
    best = np.argsort(data.loss_BM.mean(axis=1))[: len(mix_BK) // 4]
    return Networks(parts), _noise((held_out_BM - log_BM)[best]), _facts(held_out_BM, data.loss_BM)


def fit(mix_BK: Array, log_BM: Array, seed: int = 0) -> dict[str, Array]:
    """Train all networks at once; `held_out` (B, M) are the predictions by those that have not seen a row."""
    import torch

    rng = np.random.default_rng(seed)
    seen_EB = np.ones((FOLDS * ROUNDS, len(mix_BK)))
    for turn in range(ROUNDS):
        order = rng.permutation(len(mix_BK))
        for fold in range(FOLDS):
            seen_EB[FOLDS * turn + fold, order[fold::FOLDS]] = 0.0
    raw_BF = features(mix_BK)
    parts = {"in_mean": raw_BF.mean(axis=0), "in_sd": raw_BF.std(axis=0)}
    parts |= {"out_mean": log_BM.mean(axis=0), "out_sd": log_BM.std(axis=0)}
    z_BF = (raw_BF - parts["in_mean"]) / parts["in_sd"]
    goal_BM = (log_BM - parts["out_mean"]) / parts["out_sd"]
    weights = _train(torch, z_BF, goal_BM, seen_EB, seed)
    parts |= {name: value.detach().numpy().astype(np.float64) for name, value in weights.items()}
    out_EBM = Networks(parts).log_losses(mix_BK)
    unseen_EB1 = (1 - seen_EB)[..., None]
    return parts | {"held_out": (out_EBM * unseen_EB1).sum(axis=0) / unseen_EB1.sum(axis=0)}


def _train(torch: Any, z_BF: Array, goal_BM: Array, seen_EB: Array, seed: int) -> dict[str, Any]:
    """AdamW on the squared error of the rows each network sees, the learning rate up and down once."""
    z, goal, seen = (torch.tensor(value, dtype=torch.float32) for value in (z_BF, goal_BM, seen_EB[..., None]))
    sizes = {"w1": (z.shape[1], HIDDEN), "w2": (HIDDEN, HIDDEN), "w3": (HIDDEN, goal.shape[1])}
    generator = torch.Generator().manual_seed(seed)
    n = len(seen)
    w = {k: torch.randn(n, a, b, generator=generator) / a**0.5 for k, (a, b) in sizes.items()}
    w |= {f"b{i}": torch.zeros(n, 1, sizes[f"w{i}"][1]) for i in (1, 2, 3)}
    w["linear"] = torch.zeros(n, z.shape[1], goal.shape[1])
    w = {name: value.requires_grad_() for name, value in w.items()}
    decays = {"w": DECAY, "b": 0.0, "l": LINEAR_DECAY}
    groups = [{"params": [value], "weight_decay": decays[name[0]]} for name, value in w.items()]
    optimizer = torch.optim.AdamW(groups, lr=LEARNING_RATE)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LEARNING_RATE, total_steps=STEPS)
    for _ in range(STEPS):
        hidden = torch.tanh(z @ w["w1"] + w["b1"])
        out = torch.tanh(hidden @ w["w2"] + w["b2"]) @ w["w3"] + w["b3"] + z @ w["linear"]
        loss = ((out - goal).square() * seen).sum(dim=(1, 2)) / (seen.sum(dim=(1, 2)) * goal.shape[1])
        optimizer.zero_grad()
        loss.sum().backward()
        optimizer.step()
        schedule.step()
    return w


def _noise(error_BM: Array) -> Array:
    """Covariance with robust scales: correlations of errors cut at three scales."""
    scale_M = 1.4826 * np.median(np.abs(error_BM - np.median(error_BM, axis=0)), axis=0)
    cut_BM = np.clip(error_BM / scale_M, -3, 3)
    return np.asarray(np.corrcoef(cut_BM.T) * np.outer(scale_M, scale_M))


def _facts(held_out_BM: Array, loss_BM: Array) -> dict[str, Any]:
    """Rank correlation and error (nats, and robustly) of held-out predictions."""
    found: dict[str, Any] = {}
    pred_BM = np.exp(held_out_BM)
    for name, weight_M in (("cc", np.eye(len(EVALS))[EVALS.index("pile_cc")]), ("mean", np.full(len(EVALS), 1 / 13))):
        error_B = (pred_BM - loss_BM) @ weight_M
        found[f"Spearman {name}"] = float(rank_correlation(pred_BM, loss_BM, weight_M))
        found[f"RMSE {name} (nats)"] = float(np.sqrt(np.mean(error_B**2)))
        found[f"robust sd {name} (nats)"] = float(1.4826 * np.median(np.abs(error_B - np.median(error_B))))
    return found
