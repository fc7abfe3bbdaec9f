"""How fast proxies train, beside HF Trainer and nanoGPT, and what raymix and Ray add to it. CPU only.

    python -m benchmarks.throughput [--rounds N] [--seconds S] [--rows peers,overhead,feeding,mixture] [--page FILE]

Peers: one process each with one thread, all alive at once, measured in turn in bursts of S CPU seconds: what else the
machine does hits all of them, and the ratios are paired within a round. Tokens per CPU second. `--page` writes
throughput.md. Needs `pip install -e '.[bench]'` (accelerate, for HF Trainer).
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from benchmarks.machine import machine
from raymix.proxy import WORKER_ENV, Batches
from raymix.proxy.plan import domain_order

ROOT = Path(__file__).parents[1]
VARIANTS = {  # name: environment, goal for raymix's tokens over its, words
    "raymix": (WORKER_ENV, None, "a trial's step, as raymix runs it"),
    "hf_trainer": ({}, 2.5, "HF Trainer as shipped: GPT-2 with its dropout"),
    "nanogpt": ({}, 2.0, "nanoGPT as shipped for a CPU: --compile=False"),
    "nanogpt_same": (WORKER_ENV, 0.95, "nanoGPT with our settings: allocator, fused AdamW, precision"),
}
TRIAL_SECONDS = 60.0
N_TOKENS = 2_000_000
ZIPF = 1.3


class Figure(NamedTuple):
    """A row of the page."""

    what: str
    found: str
    goal: str
    met: bool


def peers(rounds: int, seconds: float) -> list[Figure]:
    """Raymix's tokens per CPU second over each peer's: median of the paired rounds, and their range."""
    with tempfile.TemporaryDirectory() as folder:
        tokens = Path(folder) / "tokens.bin"
        drawn = np.random.default_rng(0).zipf(ZIPF, N_TOKENS).clip(1, 4096) - 1
        drawn.astype(np.uint16).tofile(tokens)
        children = {name: _child(name, tokens) for name in VARIANTS}
        rate: dict[str, list[float]] = {name: [] for name in VARIANTS}
        for _ in range(rounds):
            for name, child in children.items():
                rate[name].append(_burst(child, seconds))
        for child in children.values():
            assert child.stdin is not None
            child.stdin.close()
            child.wait()
    figures = [Figure("raymix, tokens per CPU second", f"{np.median(rate['raymix']):.0f}", "", True)]
    for name, (_, goal, words) in VARIANTS.items():
        if goal is None:
            continue
        ratio = np.asarray(rate["raymix"]) / np.asarray(rate[name])
        median = float(np.median(ratio))
        found = f"{median:.2f} ({ratio.min():.2f} to {ratio.max():.2f} in {rounds} rounds)"
        figures.append(Figure(f"over {words} ({np.median(rate[name]):.0f})", found, f">= {goal}", median >= goal))
    return figures


def _child(name: str, tokens: Path) -> subprocess.Popen[str]:
    plain = {key: value for key, value in os.environ.items() if not key.startswith("MALLOC_")}
    env = {**plain, "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false", **VARIANTS[name][0]}
    words = [sys.executable, "-m", "benchmarks.throughput_child", name, str(tokens)]
    return subprocess.Popen(words, cwd=ROOT, env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def _burst(child: subprocess.Popen[str], seconds: float) -> float:
    assert child.stdin is not None and child.stdout is not None
    child.stdin.write(f"{seconds}\n")
    child.stdin.flush()
    found = json.loads(child.stdout.readline())
    return float(found["tokens"] / found["seconds"])


def overhead() -> list[Figure]:
    """Seconds a trial on a warm worker takes beyond its training, evaluation and model building."""
    import ray
    from ray import tune

    from raymix.on_ray.kept import Kept
    from raymix.on_ray.shards import share
    from raymix.on_ray.trial import ProxyTrial

    class Clock(tune.Callback):  # type: ignore[misc]
        """When trials ended, and how long they worked."""

        def __init__(self) -> None:
            self.ended: list[float] = []
            self.worked: list[float] = []

        def on_trial_complete(self, iteration: int, trials: Any, trial: Any, **info: Any) -> None:
            self.ended.append(time.perf_counter())
            self.worked.append(trial.last_result["seconds"])

    os.environ["TUNE_DISABLE_AUTO_CALLBACK_LOGGERS"] = "1"
    os.environ["RAY_AIR_NEW_OUTPUT"] = "0"
    with tempfile.TemporaryDirectory() as folder:
        space, corpus = _small(Path(folder))
        ray.init(
            address="local", num_cpus=1, include_dashboard=False, log_to_driver=False,
            runtime_env={"env_vars": WORKER_ENV},
        )  # fmt: skip
        clock = Clock()
        trainable = tune.with_parameters(
            ProxyTrial,
            space_json=space.model_dump_json(),
            folder=folder,
            shards=share(corpus),
            kept=Kept(Path(folder) / "checkpoints"),
        )
        same = {"mixture": {"a": 0.5, "b": 0.5}, "seed": 0, "n_params": 1e5, "n_tokens": 1.5e5}
        tune.Tuner(
            tune.with_resources(trainable, {"cpu": 1}),
            param_space={"trial_id": tune.grid_search([f"t{i}" for i in range(6)]), **same},
            tune_config=tune.TuneConfig(max_concurrent_trials=1, reuse_actors=True),
            run_config=tune.RunConfig(
                storage_path=f"{folder}/tune",
                verbose=0,
                callbacks=[clock],
                checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
            ),
        ).fit()
        ray.shutdown()
    extra = np.diff(clock.ended)[1:] - np.asarray(clock.worked)[2:]
    median = float(np.median(extra))
    share_of_60 = median / TRIAL_SECONDS
    found = f"{median:.2f} s ({extra.min():.2f} to {extra.max():.2f}): {share_of_60:.1%} of {TRIAL_SECONDS:.0f} s"
    return [Figure("raymix and Ray around a trial on a warm worker", found, "<= 3%", share_of_60 <= 0.03)]


def _small(folder: Path) -> tuple[Any, Any]:
    """A space of two domains, and a corpus of random tokens for it."""
    from raymix.corpus import open_corpus, shards
    from raymix.space import SearchSpace

    rng = np.random.default_rng(0)

    def written(kind: str, name: str, n: int) -> dict[str, Any]:
        tokens = (rng.zipf(ZIPF, n).clip(1, 4096) - 1).astype(np.uint16)
        entry = shards.write_tokens(parts / shards.file_name(kind, name), iter([tokens]), n, np.uint16)
        return {**entry, "name": name, "documents": 1, "text_bytes": 3 * n}

    with shards.new_folder(folder / "corpus") as parts:
        manifest: dict[str, Any] = {
            "train": {name: written("train", name, 1_000_000) for name in "ab"},
            "eval": {name: written("eval", name, 10_000) for name in "ab"},
            "tokenizer": {"hash": "", "vocab": 4096, "end_of_text": 0},
        }
        shards.write_manifest(parts, manifest, "{}")
    space = SearchSpace.parse(
        {
            "name": "small",
            "domains": [{"name": name, "source": {"files": "none"}} for name in "ab"],
            "eval_domains": [{"name": name, "own": name} for name in "ab"],
            "ladder": [{"n_params": 1e5, "n_tokens": 1.5e5}],
            "target": {"n_params": 1e6, "n_tokens": 1e7, "max_epochs": None},
            "recipe": {"context": 256, "batch": 8, "eval_tokens": 4096},
        },
        folder=folder,
    )
    return space, open_corpus(folder / "corpus")


def feeding() -> list[Figure]:
    """The time to make a batch, as a share of the step that trains on it."""
    import torch

    from benchmarks.throughput_child import N_PARAMS, proxy_shape
    from raymix.proxy.loop import Run

    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        space, corpus = _small(Path(folder))
        shape = proxy_shape()
        batches = Batches.of(corpus, space, np.asarray([0.3, 0.7]), 0, shape)
        batches[0]  # the plan itself is made once per run
        run = Run(shape, 0, torch.device("cpu"), None)
        step = _cpu_seconds(lambda i: run.step(i, batches[i]), 6)
        batch = _cpu_seconds(lambda i: batches[i], 200)
    found = f"{1e3 * batch:.3f} of {1e3 * step:.0f} ms: {batch / step:.2%}"
    return [Figure(f"making a batch, share of the step (N = {N_PARAMS:.2g})", found, "<= 1%", batch / step <= 0.01)]


def _cpu_seconds(work: Callable[[int], Any], n: int) -> float:
    work(0)
    started = time.process_time()
    for i in range(1, n + 1):
        work(i)
    return (time.process_time() - started) / n


def mixture() -> list[Figure]:
    """The largest error of any domain, in sequences, over every prefix of runs of 1,000 sequences."""
    rng, worst = np.random.default_rng(0), 0.0
    for n_domains in (2, 7, 17, 22):
        for _ in range(50):
            mix_K = rng.dirichlet(np.full(n_domains, 0.5))
            count_BK = np.cumsum(domain_order(mix_K, 1000)[:, None] == np.arange(n_domains), axis=0)
            worst = max(worst, float(np.abs(count_BK - np.outer(np.arange(1, 1001), mix_K)).max()))
    found = f"{worst:.3f} sequences, worst prefix of 200 mixtures of 2 to 22 domains"
    return [Figure("mixture error of 1,000 sequences", found, "<= 1 per domain", worst <= 1)]


def page(figures: list[Figure], rounds: int, seconds: float) -> str:
    """throughput.md."""
    import torch

    bf16 = any(getattr(torch.cpu, probe)() for probe in ("_is_avx512_bf16_supported", "_is_amx_tile_supported"))
    rows = [f"| {f.what} | {f.found} | {f.goal} | {'yes' if f.met else 'no'} |" for f in figures if f.goal]
    rate = [f"{f.what}: {f.found}." for f in figures if not f.goal]
    return "\n".join(
        [
            "# Throughput",
            "",
            f"`python -m benchmarks.throughput --rounds {rounds} --seconds {seconds:g}`, {date.today()}, {machine()}, "
            f"one thread, {'bf16' if bf16 else 'float32: this CPU has no bf16'}; torch {torch.__version__}.",
            "1.35M parameters with embeddings (N = 0.79M: 4 layers, width 128), vocabulary 4096, 8 x 256 tokens.",
            *rate,
            "",
            "| what | found | goal | met |",
            "|---|---|---|---|",
            *rows,
            "",
            "Ratios are of tokens per CPU second, paired within rounds. Nothing here was measured on a GPU.",
            "",
        ]
    )


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="How fast proxies train, beside HF Trainer and nanoGPT.")
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=3.0, help="CPU seconds per burst")
    parser.add_argument("--rows", default="peers,overhead,feeding,mixture")
    parser.add_argument("--page", type=Path, help="write the page here")
    options = parser.parse_args()
    measures: dict[str, Callable[[], list[Figure]]] = {
        "peers": lambda: peers(options.rounds, options.seconds),
        "overhead": overhead,
        "feeding": feeding,
        "mixture": mixture,
    }
    figures = []
    for name in options.rows.split(","):
        for figure in measures[name]():
            print(f"{figure.what}: {figure.found}  {figure.goal and f'(goal {figure.goal})'}", flush=True)
            figures.append(figure)
    if options.page:
        options.page.write_text(page(figures, options.rounds, options.seconds))


if __name__ == "__main__":
    main()
