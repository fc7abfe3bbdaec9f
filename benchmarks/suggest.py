"""How long Tune's loop waits for a suggestion: 2,000 observations, 17 domains, 17 eval domains.

    python -m benchmarks.suggest [--observations 2000] [--domains 17] [--calls 64]

`suggest` runs inside Tune's controller: while it works, no other trial is started, read or stopped (Ray asks for less
than about 50 ms). Trials end one by one and each time Tune asks for another, as with 16 workers. The designer's fits
run in a thread beside that; what they take is printed too, and a call that finds no proposal ready says so at once.
"""

import argparse
import time
from collections.abc import Iterator

import numpy as np

from raymix.search import MixtureSearch
from raymix.simplex import Array
from raymix.space import SearchSpace
from raymix.study.ledger import Ledger

WORKERS = 16
SIZES = (1e6, 4e6)
N_TOKENS = 1e8


def space(n_domains: int, trials: int) -> SearchSpace:
    """As many domains as eval domains, two rungs."""
    names = [f"d{k}" for k in range(n_domains)]
    return SearchSpace.parse(
        {
            "name": "suggest",
            "domains": [{"name": name, "available_tokens": 1e10 * (k + 1)} for k, name in enumerate(names)],
            "eval_domains": [{"name": name, "own": name} for name in names],
            "ladder": [{"n_params": n, "n_tokens": N_TOKENS} for n in SIZES],
            "target": {"n_params": 1e9, "n_tokens": 1e11},
            "budget": {"trials": trials, "per_round": WORKERS, "stop_early": False},
        }
    )


def losses(mix_K: Array, n_params: float, n_tokens: float, rng: np.random.Generator) -> dict[str, float]:
    """A power law in effective data with 1% of noise."""
    exposure_K = (np.eye(len(mix_K)) + 0.1) @ (mix_K + 0.01) ** 0.7
    loss_K = 1.5 + (n_params / 1e6) ** -0.2 + 2 * (n_tokens / N_TOKENS * exposure_K) ** -0.2
    loss_K = loss_K * np.exp(0.01 * rng.normal(size=len(mix_K)))
    return {f"loss/d{k}": float(value) for k, value in enumerate(loss_K)}


def reports(config: dict[str, object], rng: np.random.Generator) -> Iterator[dict[str, float]]:
    """Two checkpoints of a trial."""
    mix_K = np.asarray(list(config["mixture"].values()))  # type: ignore[attr-defined]
    for n_tokens in (N_TOKENS / 2, N_TOKENS):
        yield losses(mix_K, float(config["n_params"]), n_tokens, rng) | {"n_tokens": n_tokens}  # type: ignore[arg-type]


def told(n_domains: int, observations: int, rng: np.random.Generator) -> Ledger:
    """A ledger with that many rows, two per trial, of mixtures drawn at random."""
    from raymix.design import Proposal
    from raymix.space import Scale

    ledger = Ledger(space(n_domains, trials=10**6))
    for trial in range(observations // 2):
        mix_K = rng.dirichlet(np.ones(n_domains))
        [asked] = ledger.propose([Proposal(mix_K, Scale(SIZES[trial % 2], N_TOKENS), 0)])
        for status, row in zip(("checkpoint", "done"), reports(asked.to_json(), rng), strict=True):
            ledger.observe(asked.trial_id, row | {"status": status})
    return ledger


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--observations", type=int, default=2000)
    parser.add_argument("--domains", type=int, default=17)
    parser.add_argument("--calls", type=int, default=64)
    args = parser.parse_args()
    rng = np.random.default_rng(0)
    ledger = told(args.domains, args.observations, rng)
    started = time.perf_counter()
    ledger.ask(WORKERS)
    print(f"designer alone, {WORKERS} proposals: {time.perf_counter() - started:.2f} s")
    search = MixtureSearch(ledger=ledger)
    running = {f"t{i}": search.suggest(f"t{i}") for i in range(WORKERS)}
    ready: list[float] = []
    waiting: list[float] = []
    ended: list[float] = []
    worked: list[float] = []
    asked = WORKERS
    while len(ready) < args.calls:
        name = next(iter(running))
        config = running.pop(name)
        assert isinstance(config, dict)
        for row in reports(config, rng):
            started = time.perf_counter()
            search.on_trial_result(name, row)
            ended.append(time.perf_counter() - started)
        search.on_trial_complete(name, row)
        while True:
            started, busy = time.perf_counter(), time.thread_time()
            found = search.suggest(f"t{asked}")
            took, cpu = time.perf_counter() - started, time.thread_time() - busy
            worked.append(cpu)
            (waiting if found is None else ready).append(took)
            if found is not None:
                break
            time.sleep(0.1)  # Tune comes back on its next turn
        running[f"t{asked}"], asked = found, asked + 1
    for what, seconds in (
        ("suggest, a proposal", ready),
        ("suggest, not ready yet", waiting),
        ("a result", ended),
        ("CPU of the loop in suggest", worked),
    ):
        if seconds:
            ms = 1e3 * np.asarray(seconds)
            print(f"{what}: {len(ms)} calls, median {np.median(ms):.1f} ms, "
                  f"95% {np.quantile(ms, 0.95):.1f} ms, largest {ms.max():.1f} ms")  # fmt: skip


if __name__ == "__main__":
    main()
