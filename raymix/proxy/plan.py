"""The exact mixture plan: which sequence of which domain is trained on at which step.

Every prefix of a run (of a stage, where the mixture changes) is within one sequence of its mixture, and the i-th
sequence drawn from a domain depends on (seed, domain name, i) alone. So two mixtures with the same seed read the
same text as far as they can (common random numbers), and a run can be taken up at any step. A longer run that goes on
from a shorter one (`after`) begins with that one's batches.

Simulated epoching: a proxy is given only as many unique tokens of a domain as make it repeat them as often as the
target would, U_k = available_k x D_proxy / D_target (the data constraint of Muennighoff et al., arXiv 2305.16264,
carried over to the proxy).

Letters: K training domains.
"""

import hashlib
import heapq
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from raymix.corpus.shards import Corpus
from raymix.proxy.shape import ProxyShape
from raymix.simplex import Array
from raymix.space import SearchSpace
from raymix.stages import Stage

Ints = NDArray[np.int64]
SUBSET = -1  # stands where an epoch number would, for the draw of the unique sequences


@dataclass(frozen=True)
class Batches:
    """The batches of one run, by step: nothing is drawn before it is asked for."""

    shards: tuple[NDArray[Any], ...]
    """Token array of each domain."""
    names: tuple[str, ...]
    stages: tuple[Stage, ...]
    """One, unless the mixture changes on the way."""
    seed: int
    shape: ProxyShape
    unique_K: Ints
    """Sequences each domain may draw from."""
    before: "Batches | None" = None
    """The shorter run that this one goes on from."""

    @classmethod
    def of(
        cls,
        corpus: Corpus,
        space: SearchSpace,
        mixture_K: Array,
        seed: int,
        shape: ProxyShape,
        stages: Sequence[Stage] | None = None,
    ) -> "Batches":
        """The plan of a run on the training shards of `corpus`; in stages if given, else as the recipe has it."""
        stages = stages or recipe_stages(space, mixture_K, shape.n_tokens)
        shards = tuple(corpus.train(name) for name in space.domain_names)
        unique = [
            unique_sequences(
                len(shard),
                shape.context,
                shape.n_tokens,
                space.target.n_tokens,
                (domain.available_tokens or len(shard)) if space.recipe.simulated_epochs else None,
            )
            for shard, domain in zip(shards, space.domains, strict=True)
        ]
        return cls(shards, space.domain_names, tuple(stages), seed, shape, np.asarray(unique, dtype=np.int64))

    def after(self, before: "Batches", shape: ProxyShape) -> "Batches":
        """This run as one that goes on from `before`, of the same mixture and seed; `shape` as `going_on` has it."""
        return replace(self, before=before, shape=shape)

    def __len__(self) -> int:
        return self.shape.n_steps

    def __getitem__(self, step: int) -> Ints:
        """Tokens (batch, context + 1) of step 0, 1, ...: inputs and, one further on, targets."""
        n, context = self.shape.batch, self.shape.context
        rows = slice(step * n, (step + 1) * n)
        tokens = np.empty((n, context + 1), dtype=np.int64)
        for row, (k, start) in enumerate(zip(self._domain_of[rows], self._start_of[rows], strict=True)):
            tokens[row] = self.shards[k][start : start + context + 1]
        return tokens

    def sequences(self, k: int, first: int, n: int) -> Ints:
        """Tokens (n, context + 1) of the sequences `first`, `first + 1`, ... drawn from domain k, in any mixture."""
        starts = [self._place(k, i) * self.shape.context for i in range(first, first + n)]
        return np.stack([self.shards[k][start : start + self.shape.context + 1] for start in starts]).astype(np.int64)

    def _place(self, k: int, i: int) -> int:
        """Which sequence of its shard the i-th one drawn from domain k is."""
        epoch, at = divmod(i, int(self.unique_K[k]))
        known = self._epochs.get(k)
        if known is None or known[0] != epoch:
            name, unique = self.names[k], int(self.unique_K[k])
            subset = _permutation(self.seed, name, SUBSET, shard_sequences(len(self.shards[k]), self.shape.context))
            known = self._epochs[k] = epoch, subset[_permutation(self.seed, name, epoch, unique)]
        return int(known[1][at])

    @cached_property
    def _epochs(self) -> dict[int, tuple[int, Ints]]:
        """The epoch that was last drawn from, and its order, by domain: an order of a whole shard is dear to make."""
        return {}

    def drawn_K(self, n_steps: int) -> Ints:
        """Tokens drawn from each domain in the first `n_steps` steps."""
        drawn = np.bincount(self._domain_of[: n_steps * self.shape.batch], minlength=len(self.names))
        return np.asarray(drawn * self.shape.context, dtype=np.int64)

    @cached_property
    def _domain_of(self) -> Ints:
        ends = np.cumsum([stage.n_tokens for stage in self.stages])
        end_sequences = np.round(ends / ends[-1] * self.shape.n_steps * self.shape.batch).astype(int)
        lengths = np.diff(end_sequences, prepend=0)
        return np.concatenate(
            [domain_order(stage.mixture_K, int(n)) for stage, n in zip(self.stages, lengths, strict=True)]
        )

    @cached_property
    def _start_of(self) -> Ints:
        start = np.empty(len(self._domain_of), dtype=np.int64)
        for k, (name, shard) in enumerate(zip(self.names, self.shards, strict=True)):
            places = np.flatnonzero(self._domain_of == k)
            subset = _permutation(self.seed, name, SUBSET, shard_sequences(len(shard), self.shape.context))
            start[places] = subset[self._chosen(k, len(places))] * self.shape.context
        return start

    def _chosen(self, k: int, n_draws: int) -> Ints:
        """Which of a domain's sequences each draw takes; after a shorter run those read least often come first, so that
        each is read as often in the end as in a run of this length from the start.
        """
        name, unique = self.names[k], int(self.unique_K[k])
        if self.before is None:
            return sequence_order(self.seed, name, unique, n_draws)
        drawn = int(np.count_nonzero(self.before._domain_of == k))
        chosen = self.before._chosen(k, min(n_draws, drawn))
        read, epoch = np.bincount(chosen, minlength=unique), 0
        while len(chosen) < n_draws:
            order = _permutation(self.seed, f"{name}, after {drawn}", epoch, unique)
            least = order[read[order] == read.min()]
            read[least] += 1
            chosen, epoch = np.concatenate([chosen, least]), epoch + 1
        return chosen[:n_draws]


def recipe_stages(space: SearchSpace, mixture_K: Array, n_tokens: float) -> list[Stage]:
    """The stages of a run on `mixture_K`: that of the recipe, where it has none of its own."""
    return [
        Stage(mixture_K if part.mixture is None else space.mixture(part.mixture), part.tokens * n_tokens)
        for part in space.recipe.stages
    ] or [Stage(mixture_K, n_tokens)]


def domain_order(mixture_K: Array, n_sequences: int) -> Ints:
    """The domain of each of `n_sequences` sequences; in every prefix each domain is within one of its share.

    Tijdeman's solution of the chairman assignment problem (Discrete Mathematics 32, 1980): the i-th sequence of a
    domain is released at (i + d) / share and due at (i + 1 - d) / share with d = 1 / (2 K - 2); of those released
    the first due goes next. The error stays at or below 1 - d. Zero shares are never drawn.
    """
    shares = [(k, float(share)) for k, share in enumerate(mixture_K) if share > 0]
    if len(shares) == 1:
        return np.full(n_sequences, shares[0][0], dtype=np.int64)
    slack = 1 / (2 * len(shares) - 2)
    waiting = [(slack / share, k, share, 0) for k, share in shares]
    heapq.heapify(waiting)
    due: list[tuple[float, int, float, int]] = []
    order = np.empty(n_sequences, dtype=np.int64)
    for place in range(n_sequences):
        while waiting and (waiting[0][0] <= place + 1 + 1e-9 or not due):
            _, k, share, i = heapq.heappop(waiting)
            heapq.heappush(due, ((i + 1 - slack) / share, k, share, i))
        _, k, share, i = heapq.heappop(due)
        order[place] = k
        heapq.heappush(waiting, ((i + 1 + slack) / share, k, share, i + 1))
    return order


def sequence_order(seed: int, domain_name: str, n_unique: int, n_draws: int) -> Ints:
    """Which of `n_unique` sequences each draw takes: a fresh permutation per epoch, the same for every mixture."""
    epochs = [_permutation(seed, domain_name, epoch, n_unique) for epoch in range(-(-n_draws // n_unique))]
    return np.concatenate([*epochs, np.empty(0, dtype=np.int64)])[:n_draws]


def unique_sequences(
    shard_tokens: int, context: int, n_tokens_proxy: float, n_tokens_target: float, available_at_target: float | None
) -> int:
    """Sequences a proxy may draw from: simulated epoching, at least one, at most what the shard holds.

    `available_at_target` is None where epochs are not simulated.
    """
    held = shard_sequences(shard_tokens, context)
    if available_at_target is None:
        return held
    return max(1, int(min(held, available_at_target * n_tokens_proxy / n_tokens_target / context)))


def shard_sequences(shard_tokens: int, context: int) -> int:
    """Whole sequences in a shard; a sequence needs one token more, for its last target.

    Raises:
        ValueError: the shard holds less than one sequence.
    """
    if shard_tokens <= context:
        raise ValueError(
            f"a training shard of {shard_tokens} tokens holds no sequence of {context} + 1: give more text"
        )
    return (shard_tokens - 1) // context


def _permutation(seed: int, name: str, epoch: int, n: int) -> Ints:
    digest = hashlib.sha256(f"{seed}/{epoch}/{name}".encode()).digest()
    return np.random.default_rng(list(digest)).permutation(n)
