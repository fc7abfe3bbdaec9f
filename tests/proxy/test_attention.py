"""Attention in blocks of rows: the numbers of transformers' own, and weights that anybody can read."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from raymix.corpus import Corpus
from raymix.proxy import attention, resolve
from raymix.proxy import model as models
from raymix.space import SearchSpace


@pytest.mark.parametrize("family", ["gpt2", "llama"])
@pytest.mark.parametrize("context", [32, 200, 256])  # less than a block, not a whole number of them, two
def test_blocks_give_the_hidden_states_and_gradients_of_eager(
    corpus: Corpus, make_space: Callable[..., SearchSpace], family: str, context: int
) -> None:
    shape = resolve(make_space(family=family, context=context).recipe, 2e4, 2048, corpus.vocab)
    tokens = torch.randint(0, corpus.vocab, (2, context), generator=torch.Generator().manual_seed(0))
    eager, blocks = (models.build(shape, 0, name) for name in ("eager", attention.NAME))
    found, expected = (models.hidden_states(model, tokens) for model in (blocks, eager))
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)
    for hidden in (found, expected):
        hidden.square().sum().backward()
    for mine, theirs in zip(blocks.parameters(), eager.parameters(), strict=True):
        torch.testing.assert_close(mine.grad, theirs.grad, atol=1e-3, rtol=1e-3)  # sums over 400 places


def test_no_place_sees_a_later_one(corpus: Corpus, make_space: Callable[..., SearchSpace]) -> None:
    shape = resolve(make_space(context=256).recipe, 2e4, 2048, corpus.vocab)
    model = models.build(shape, 0, attention.NAME)
    tokens = torch.zeros((1, 256), dtype=torch.long)
    changed = tokens.clone()
    changed[0, 130:] = 7
    before, after = (models.hidden_states(model, t)[0] for t in (tokens, changed))
    assert torch.equal(before[:130], after[:130]) and not torch.equal(before[130:], after[130:])


def test_a_saved_model_does_not_name_it(corpus: Corpus, make_space: Callable[..., SearchSpace], tmp_path: Path) -> None:
    model: Any = models.build(resolve(make_space().recipe, 2e4, 2048, corpus.vocab), 0, attention.NAME)
    model.save_pretrained(tmp_path)
    assert attention.NAME not in json.dumps(json.loads((tmp_path / "config.json").read_text()))
