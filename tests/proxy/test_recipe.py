"""One dial: shapes, rates and checkpoints from `n_params`."""

from __future__ import annotations

import pytest

from raymix.proxy import model as models
from raymix.proxy.recipe import resolve
from raymix.space import Recipe


@pytest.mark.parametrize(("n_params", "shape"), [(0.1e6, (2, 64)), (0.34e6, (3, 96)), (1.2e6, (4, 160))])
def test_small_shapes_are_those_measured(n_params: float, shape: tuple[int, int]) -> None:
    found = resolve(Recipe(), n_params, 1e6, 4096)
    assert (found.n_layers, found.width) == shape
    assert found.n_params == pytest.approx(n_params, rel=0.04)


@pytest.mark.parametrize("family", ["gpt2", "llama"])
@pytest.mark.parametrize("n_params", [2.5e4, 0.1e6, 1e6, 3.4e6, 2e7, 6e7, 1.5e8, 1e9, 3e9, 7e9])
def test_shapes_are_sensible_at_every_size(family: str, n_params: float) -> None:
    shape = resolve(Recipe.model_validate({"family": family}), n_params, 1e9, 32000)
    assert shape.n_params == pytest.approx(n_params, rel=0.15)
    assert shape.width % shape.n_heads == 0
    assert shape.width // shape.n_heads in (16, 32, 64, 128)
    assert 16 <= shape.width / shape.n_layers <= 160
    assert 3e-4 <= shape.learning_rate <= 1.2e-2


def test_size_grows_with_the_dial() -> None:
    sizes = [resolve(Recipe(), 1e4 * 1.3**i, 1e6, 4096).n_params for i in range(50)]
    assert sizes == sorted(sizes)


@pytest.mark.parametrize("family", ["gpt2", "llama"])
@pytest.mark.parametrize("n_params", [2e4, 0.34e6, 1.2e6])
def test_count_is_the_models_own(family: str, n_params: float) -> None:
    shape = resolve(Recipe.model_validate({"family": family}), n_params, 1e6, 500)
    assert models.count(models.build(shape, 0)) == shape.n_params


def test_checkpoints_are_even_in_log_tokens_and_end_at_the_end() -> None:
    shape = resolve(Recipe(), 0.1e6, 8 * 128 * 400, 4096)
    assert shape.checkpoint_steps == (100, 200, 400)
    assert shape.checkpoints == (102400, 204800, 409600)
    assert shape.n_tokens == 409600
    many = resolve(Recipe(checkpoints=9), 0.1e6, 8 * 128 * 1600, 4096).checkpoint_steps
    assert many[0] == 100
    assert many[-1] == 1600
    assert len(many) == 9


def test_a_run_of_one_step_has_one_checkpoint() -> None:
    shape = resolve(Recipe(), 0.1e6, 1, 4096)
    assert (shape.n_steps, shape.checkpoint_steps, shape.warmup) == (1, (1,), 1)


def test_flops_count_body_head_and_attention() -> None:
    shape = resolve(Recipe(), 0.1e6, 1e6, 4096)
    assert shape.flops_per_token == 6 * (shape.n_params + 64 * 4096) + 12 * 2 * 64 * 128


def test_learning_rate_given_is_taken() -> None:
    assert resolve(Recipe(learning_rate=1e-3), 0.1e6, 1e6, 4096).learning_rate == 1e-3
    assert resolve(Recipe(), 0.1e6, 1e6, 4096).learning_rate == 6e-3
