"""A proxy as lm-evaluation-harness sees a model: text and answers in, log likelihoods out.

The only module that needs the extra `downstream`; imported where a space has a metric with a task.

Letters: B pieces scored together, T places.
"""

import logging
import os
from collections.abc import Callable, Iterator, Sequence
from functools import cache, partial
from typing import Any, NamedTuple

import torch
from lm_eval import evaluate
from lm_eval.api.model import TemplateLM
from lm_eval.tasks import TaskManager

from raymix.corpus.tokenizer import Encoder
from raymix.proxy.evaluate import CPU_TOKENS, GPU_TOKENS
from raymix.proxy.model import autocast, before_head, head_weight
from raymix.space import SpaceError

TASKS = "RAYMIX_TASKS"
SEED = 1234  # of the solved examples shown; the harness's own


class Piece(NamedTuple):
    """Some tokens to predict, and what stands before each of them."""

    request: int
    inputs: Sequence[int]
    targets: Sequence[int]


class ProxyLM(TemplateLM):  # type: ignore[misc]
    """A decoder of ours with its tokenizer.

    Args:
        model: as trained, in the weights to be judged.
        encoder: the tokenizer of its text.
        context: the most tokens it reads at once.
        device: where it lies.
        dtype: of its matrix products.
        alive: called after every batch.
    """

    def __init__(
        self,
        model: Any,
        encoder: Encoder,
        context: int,
        device: torch.device,
        dtype: torch.dtype,
        alive: Callable[[], None] = lambda: None,
    ) -> None:
        super().__init__()
        self.model, self.encoder, self.context, self.dtype, self.alive = model, encoder, context, dtype, alive
        self._device = device

    @property
    def eot_token_id(self) -> int:
        """Stands before a text that has no context."""
        return self.encoder.end_of_text

    def tok_encode(self, string: str, add_special_tokens: bool | None = None, **_: Any) -> list[int]:
        """Tokens of a text, without an end."""
        return [int(token) for token in self.encoder.encode([string])[0][:-1]]

    def loglikelihood(self, requests: Any, disable_tqdm: bool = True) -> list[tuple[float, bool]]:
        """Of each (context, answer): the answer's log likelihood, and whether it is what the model would write."""
        found: list[tuple[float, bool]] = super().loglikelihood(requests, disable_tqdm=True)
        return found

    def loglikelihood_rolling(self, requests: Any, disable_tqdm: bool = True) -> list[float]:
        """Of whole texts, each token once, after as many tokens before it as fit."""
        texts = [request.args[0] for request in requests]
        asked = [(("", text), [self.eot_token_id], self.tok_encode(text)) for text in texts]
        return [score for score, _ in self._loglikelihood_tokens(asked)]

    def generate_until(self, requests: Any, disable_tqdm: bool = True) -> list[str]:
        """Not for proxies.

        Raises:
            SpaceError: always.
        """
        raise SpaceError(
            "a proxy is scored, it writes no text: name a task of likelihoods (multiple choice, perplexity)"
        )

    def _loglikelihood_tokens(self, requests: Any, **_: Any) -> list[tuple[float, bool]]:
        scores = [(0.0, True)] * len(requests)
        pieces: list[Piece] = []
        for i, ((_, text), before, answer) in enumerate(requests):  # either is empty where a token is of both texts
            pieces += cut(i, before or [self.eot_token_id], answer or self.tok_encode(text), self.context)
        for batch in _batches(pieces, CPU_TOKENS if self.device.type == "cpu" else GPU_TOKENS):
            for piece, (score, greedy) in zip(batch, self._scored(batch), strict=True):
                before, always = scores[piece.request]
                scores[piece.request] = before + score, always and greedy
            self.alive()
        return scores

    @torch.no_grad()
    def _scored(self, batch: Sequence[Piece]) -> list[tuple[float, bool]]:
        """Log likelihood of each piece, and whether each of its tokens is the likeliest."""
        longest = max(len(piece.inputs) for piece in batch)
        padded_BT = [[*piece.inputs, *[self.eot_token_id] * (longest - len(piece.inputs))] for piece in batch]
        with autocast(self.device, self.dtype):
            hidden = before_head(self.model, torch.tensor(padded_BT, device=self.device), None)
        ends = [row * longest + len(piece.inputs) for row, piece in enumerate(batch)]
        places = [p for end, piece in zip(ends, batch, strict=True) for p in range(end - len(piece.targets), end)]
        targets = torch.tensor([token for piece in batch for token in piece.targets], device=self.device)
        weight = head_weight(self.model).to(self.dtype)
        logits = torch.mm(hidden[places].to(self.dtype), weight.t()).float()
        scores = torch.log_softmax(logits, -1).gather(1, targets[:, None])[:, 0]
        greedy = logits.argmax(-1) == targets
        lengths = [len(piece.targets) for piece in batch]
        of_pieces = zip(torch.split(scores, lengths), torch.split(greedy, lengths), strict=True)
        return [(float(score.sum()), bool(right.all())) for score, right in of_pieces]


def cut(request: int, before: Sequence[int], answer: Sequence[int], context: int) -> Iterator[Piece]:
    """An answer in pieces of at most `context` tokens, each after as many tokens as fit before its last."""
    whole, start = [*before, *answer], len(before)
    while start < len(whole):
        end = min(start + context, len(whole))
        yield Piece(request, whole[max(0, end - 1 - context) : end - 1], whole[start:end])
        start = end


def _batches(pieces: Sequence[Piece], tokens: int) -> Iterator[list[Piece]]:
    """Pieces of like length together, longest first; the order decides no result but rounding."""
    batch: list[Piece] = []
    for piece in sorted(pieces, key=lambda piece: -len(piece.inputs)):
        if batch and (len(batch) + 1) * len(batch[0].inputs) > tokens:
            yield batch
            batch = []
        batch.append(piece)
    if batch:
        yield batch


def load(task: str) -> Any:
    """The task as the harness has it: `tasks`, `groups`; None where it is unknown."""
    folder = os.environ.get(TASKS)
    managers = ([partial(_manager, folder, False)] if folder else []) + [partial(_manager, None, True)]
    found = next((manager() for manager in managers if task in manager().all_tasks), None)
    return None if found is None else found.load([task])


@cache
def _manager(folder: str | None, defaults: bool) -> Any:
    """The index of a folder, or of the harness's own ten thousand files, which takes seconds."""
    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    return TaskManager(include_path=folder, include_defaults=defaults)


def numbers_of(lm: ProxyLM, task: str, shots: int | None, limit: int | None) -> dict[str, float]:
    """What the harness measures by a task, by its names: `acc`, `acc_norm`, ..."""
    loaded = load(task)
    for each in loaded["tasks"].values():
        if shots is not None or each.get_config("num_fewshot") is None:
            each.set_config(key="num_fewshot", value=shots or 0)
        each.set_fewshot_seed(seed=SEED)
    found = evaluate(lm, loaded, limit=limit, bootstrap_iters=0, log_samples=False)
    numbers: dict[str, float] = {}
    for key, value in found["results"][task].items():
        name, _, _ = key.partition(",")  # "acc,none": the number and the filter before it
        if isinstance(value, int | float) and not isinstance(value, bool):
            numbers.setdefault(name, float(value))
    return numbers
