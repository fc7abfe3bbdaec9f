"""One dial: shapes, rates and checkpoints from `n_params`."""

from itertools import pairwise

import pytest

from raymix.proxy import families
from raymix.proxy import model as models
from raymix.proxy.rates import batch_tokens, course, peak_rate
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


@pytest.mark.parametrize("family", ["gpt2", "llama", "bert"])
@pytest.mark.parametrize("n_params", [2e4, 0.34e6, 1.2e6])
def test_count_is_the_models_own(family: str, n_params: float) -> None:
    shape = resolve(Recipe.model_validate({"family": family}), n_params, 1e6, 500)
    assert families.count(models.build(shape, 0)) == shape.n_params


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


def test_warmup_follows_the_size_and_not_the_length() -> None:
    """A fifth of N in tokens, so that a run is the beginning of a longer one; a tenth of a run at most."""
    tokens_per_step = 8 * 128
    found = [resolve(Recipe(), 0.1e6, steps * tokens_per_step, 4096).warmup for steps in (100, 400, 4000)]
    assert found == [10, 20, 20]  # .1e6 / 5 / 1024 = 19.5
    assert resolve(Recipe(), 0.4e6, 4000 * tokens_per_step, 4096).warmup == 78


def test_flops_count_body_head_and_attention() -> None:
    shape = resolve(Recipe(), 0.1e6, 1e6, 4096)
    assert shape.flops_per_token == 6 * (shape.n_params + 64 * 4096) + 12 * 2 * 64 * 128


def test_learning_rate_given_is_taken() -> None:
    assert resolve(Recipe(learning_rate=1e-3), 0.1e6, 1e6, 4096).learning_rate == 1e-3
    assert resolve(Recipe(), 0.1e6, 1e6, 4096).learning_rate == 6e-3


def test_rates_and_batches_by_hand() -> None:
    # 1e8 parameters, 1e10 tokens: 1.79 / 508159.4 x 1174.9, and .58 x 513031
    assert peak_rate("step-law", 1e8, 1e10, 768) == pytest.approx(1.79 * 10 ** (-5.704 + 3.07))
    assert batch_tokens("step-law", 1e8, 1e10) == pytest.approx(0.58 * 10**5.71)
    # C = 6e18
    assert peak_rate("deepseek", 1e8, 1e10, 768) == pytest.approx(0.3118 * 6e18**-0.125)
    assert batch_tokens("deepseek", 1e8, 1e10) == pytest.approx(0.2920 * 6e18**0.3271)
    assert peak_rate("width", 1e8, 1e10, 768) == 5e-4
    with pytest.raises(ValueError, match="says nothing about the batch"):
        batch_tokens("width", 1e8, 1e10)


def test_an_automatic_batch_is_a_power_of_two_near_the_rule() -> None:
    found = resolve(Recipe(rates="step-law", batch="auto", context=1024), 1e8, 1e10, 32000)
    assert found.batch == 256  # .58 x 10^5.71 / 1024 = 290
    assert found.learning_rate == pytest.approx(peak_rate("step-law", 1e8, 1e10, 768))
    with pytest.raises(ValueError, match="batch: auto needs a rule"):
        Recipe(batch="auto")


def test_schedules_by_hand() -> None:
    ends = (100, 200, 400)
    assert [course("constant", step, 10, ends) for step in (0, 4, 9, 399)] == [0.1, 0.5, 1, 1]
    wsd = [course("wsd", step, 10, ends) for step in range(400)]
    assert wsd[9:90] == [1.0] * 81  # 10 steps of decay before 100
    assert wsd[99] == wsd[199] == wsd[399] == pytest.approx(0.1)
    assert wsd[94] == pytest.approx(0.55)
    assert wsd[100] == 1  # up again
    cosine = [course("cosine", step, 10, ends) for step in range(400)]
    assert cosine[9] == 1
    assert cosine[204] == pytest.approx(0.55)  # half way from 10 to 400
    assert cosine[399] == pytest.approx(0.1)
    assert all(high >= low for high, low in pairwise(cosine[9:]))


def test_a_cosine_is_looked_at_where_it_ends() -> None:
    assert resolve(Recipe(schedule="cosine"), 0.1e6, 8 * 128 * 400, 4096).checkpoint_steps == (400,)
    assert resolve(Recipe(schedule="wsd"), 0.1e6, 8 * 128 * 400, 4096).checkpoint_steps == (100, 200, 400)


def test_stages_that_leave_nothing_to_search_are_refused() -> None:
    with pytest.raises(ValueError, match=r"sum to 0\.9"):
        Recipe.model_validate({"stages": [{"tokens": 0.9}]})
    with pytest.raises(ValueError, match="nothing to search"):
        Recipe.model_validate({"stages": [{"tokens": 1, "mixture": {"a": 1}}]})
