"""Online baselines: what they do with losses and gradients, and that they run and answer with a mixture."""

from collections.abc import Callable

import numpy as np
import pytest
import torch

from raymix.corpus import Corpus
from raymix.proxy import resolve
from raymix.proxy.loop import Diverged, Run
from raymix.proxy.online import METHODS, ado, aioli, choose_online, doge, doremi
from raymix.proxy.online.session import Session
from raymix.proxy.plan import Batches
from raymix.proxy.task import Example
from raymix.simplex import Array
from raymix.space import SearchSpace, SpaceError

Make = Callable[..., SearchSpace]


@pytest.mark.parametrize("method", METHODS)
def test_every_method_answers_with_a_mixture_and_the_same_one_again(
    method: str, corpus: Corpus, make_space: Make
) -> None:
    first, again = (choose_online(method, corpus, make_space(), 2e4, 4096, seed=1) for _ in range(2))
    assert first.mixture_K.sum() == pytest.approx(1) and (first.mixture_K > 0).all()
    assert first.path_TK.shape == (4096 // (4 * 32), 2)
    assert np.abs(first.path_TK - first.path_TK[0]).max() > 1e-6, "the shares never moved"
    np.testing.assert_array_equal(first.path_TK, again.path_TK)
    assert first.flops > 0


def test_flops_are_those_of_the_sequences_drawn(corpus: Corpus, make_space: Make) -> None:
    space, n_steps = make_space(batch=3), 10  # one sequence of each of two domains a step, and three in a plain one
    shape = resolve(space.recipe, 2e4, n_steps * 3 * 32, corpus.vocab)
    a_sequence = shape.flops_per_token * 32
    for method, sequences in {"doge": 2, "ado": 3, "doremi": 3 + 2 * 5 / 3}.items():
        found = choose_online(method, corpus, space, 2e4, shape.n_tokens)
        assert found.flops == pytest.approx(n_steps * sequences * a_sequence)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("n_steps", [12, 60])
def test_a_run_that_diverges_answers_with_no_mixture(
    method: str, n_steps: int, corpus: Corpus, make_space: Make
) -> None:
    with pytest.raises(Diverged, match="training loss is"):
        choose_online(method, corpus, make_space(learning_rate=1e6), 2e4, n_steps * 4 * 32)


def test_an_unknown_method_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match="doremi, doge, ado, aioli"):
        choose_online("dorme", None, None, 1, 1)


def test_draws_follow_the_shares_and_are_those_of_the_plan(corpus: Corpus, make_space: Make) -> None:
    session = Session(corpus, make_space(), 2e4, 4096, seed=3)
    share_K, drawn = np.array([0.3, 0.7]), [[], []]
    for _ in range(10):
        for k, tokens in session.draw(share_K).items():
            drawn[k].extend(tokens)
    assert abs(len(drawn[0]) - 12) <= 1
    plan = Batches.of(corpus, make_space(), share_K, 3, session.shape)
    planned = np.concatenate([plan[step] for step in range(10)])
    order = [np.flatnonzero((planned >= 100).mean(1) > 0.5), np.flatnonzero((planned >= 100).mean(1) < 0.5)]
    theirs = {0: planned[order[1]], 1: planned[order[0]]}
    for k in range(2):
        n = min(len(drawn[k]), len(theirs[k]))
        np.testing.assert_array_equal(np.stack(drawn[k][:n]), theirs[k][:n])


def test_a_gradient_of_parts_is_the_gradient_of_the_whole(corpus: Corpus, make_space: Make) -> None:
    session = Session(corpus, make_space(precision="float32"), 2e4, 4096, seed=0)
    tokens = np.concatenate(list(session.draw(np.array([0.5, 0.5])).values()))
    loss, whole = session.gradient(session.task(tokens, 0))
    assert loss == pytest.approx(float(session.losses(session.task(tokens, 0)).mean()), abs=1e-5)
    halves = [session.gradient(session.task(half, 0))[1] for half in np.split(tokens, 2)]
    for together, a, b in zip(whole, *halves, strict=True):
        torch.testing.assert_close(together, (a + b) / 2, atol=1e-6, rtol=1e-4)


def test_doremi_moves_to_the_domain_of_excess_loss_and_keeps_all() -> None:
    share_K = np.full(3, 1 / 3)
    for _ in range(200):
        share_K = doremi.updated(share_K, np.array([0.5, 0.0, 0.1]))
    assert share_K.argmax() == 0 and share_K.sum() == pytest.approx(1)
    assert share_K.min() >= doremi.SMOOTHING / 3


def test_doremi_takes_the_step_of_its_algorithm() -> None:
    """2305.10429, algorithm 1: shares x exp(excess), normalised, then a thousandth of the even mixture."""
    found_K = doremi.updated(np.array([0.5, 0.3, 0.2]), np.log([2.0, 1.0, 3.0]))
    np.testing.assert_allclose(found_K, 0.999 * np.array([1.0, 0.3, 0.6]) / 1.9 + 0.001 / 3, rtol=1e-12)


def test_doremi_counts_only_tokens_that_are_worse_than_the_reference(
    corpus: Corpus, make_space: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Tokens on which the proxy is better make up for none on which it is worse."""
    told, losses = [], Session.losses

    def noted(share_K: Array, excess_K: Array) -> Array:
        told.append(excess_K)
        return share_K

    def half(self: Session, task: Example, run: Run | None = None) -> torch.Tensor:
        found = losses(self, task, run)
        apart = torch.where(torch.arange(len(found)) % 2 == 0, 1.0, -3.0)
        return 5.0 + (torch.zeros_like(found) if run is not None else apart)

    monkeypatch.setattr(doremi, "updated", noted)
    monkeypatch.setattr(Session, "losses", half)
    choose_online("doremi", corpus, make_space(), 2e4, 2 * 128)
    np.testing.assert_allclose(told, 0.5)


def test_doge_takes_the_step_of_its_algorithm() -> None:
    """2310.15393, equation 5: shares x exp(rate x alignment / mu), normalised; mu = .1."""
    found_K = doge.updated(np.array([0.5, 0.3, 0.2]), np.array([1.0, 0.0, -1.0]), 0.05)
    grown_K = np.array([0.5, 0.3, 0.2]) * np.exp([0.5, 0.0, -0.5])
    np.testing.assert_allclose(found_K, grown_K / grown_K.sum(), rtol=1e-12)


def test_doge_prefers_the_gradient_that_helps_all() -> None:
    towards = [[torch.tensor([1.0, 0.0])], [torch.tensor([0.9, 0.1])], [torch.tensor([-0.5, 0.0])]]
    alignment_K = doge.alignment(towards)
    np.testing.assert_allclose(alignment_K, [1.4, 1.4 * 0.9 + 0.01, -0.7], rtol=1e-6)
    assert doge.updated(np.full(3, 1 / 3), alignment_K, 0.01).argmax() == 0


def test_ado_finds_the_speed_of_a_power_law_and_keeps_its_floor() -> None:
    steps = np.arange(1, 400)
    seen = [(int(n), 2.0 + 3.0 * n**-0.4) for n in steps]
    assert ado.learning_speed(seen, 400) == pytest.approx(3.0 * 0.4 * 400**-1.4, rel=0.02)
    assert ado.learning_speed(seen[:3], 400) == 0
    found_K = ado.floored(np.array([1.0, 0.0, 0.0]))
    assert found_K.sum() == pytest.approx(1) and found_K.min() == pytest.approx(ado.FLOOR)
    even_K = np.full(2, 0.5)
    assert ado.preferred(even_K, even_K, np.array([2.0, 1.0])) == pytest.approx([2 / 3, 1 / 3])
    assert ado.preferred(even_K, even_K, np.zeros(2)) == pytest.approx(even_K)
    skewed_K = ado.preferred(np.array([0.2, 0.8]), np.array([0.36, 0.64]), np.array([4.0, 1.0]))
    assert skewed_K == pytest.approx([0.2 * 0.6 * 4 / 1.12, 0.8 * 0.8 / 1.12]), "prior, root of recent share, speed"


def test_ado_stays_at_the_prior_until_it_has_seen_a_tenth_of_the_run(corpus: Corpus, make_space: Make) -> None:
    found = choose_online("ado", corpus, make_space(), 2e4, 80 * 128)
    np.testing.assert_array_equal(found.path_TK[:8], np.tile(ado.floored(make_space().prior_K()), (8, 1)))
    assert (found.path_TK[8] != found.path_TK[0]).any()


def test_ado_goes_where_the_preferences_are() -> None:
    prior_K, wanted_K = np.array([0.5, 0.5]), np.array([0.9, 0.1])
    average_K, n_steps = prior_K, 1000
    for step in range(n_steps // 10, n_steps):
        share_K, average_K = ado.smoothed(wanted_K, average_K, step)
    np.testing.assert_allclose(average_K, 0.1 * prior_K + 0.9 * wanted_K, rtol=1e-9)  # a tenth was before the first fit
    np.testing.assert_allclose(share_K, 0.09 * prior_K + 0.91 * wanted_K, atol=2e-4)


def test_aioli_finds_the_law_behind_what_mixtures_brought() -> None:
    law_KK = np.array([[0.5, 0.1, 0.0], [0.2, 0.3, 0.0], [0.3, 0.0, 0.1]])
    mixtures_KK = aioli.perturbed(3)
    np.testing.assert_allclose(mixtures_KK, 0.125 + 0.625 * np.eye(3))  # three quarters of one domain
    falls_KK = np.array([[law_KK[i] @ mixtures_KK[j] for j in range(3)] for i in range(3)])
    np.testing.assert_allclose(aioli.solved(mixtures_KK, falls_KK), law_KK, atol=1e-12)
    share_K = aioli.updated(aioli.normalised(law_KK))
    np.testing.assert_allclose(np.log(share_K / share_K[2]), np.array([0.9, 0.3, 0.0]) / 1.5, atol=1e-12)
    below_KK = aioli.normalised(law_KK - 0.2)
    assert below_KK.min() == 0 and below_KK.sum() == pytest.approx(1)
    np.testing.assert_allclose(aioli.updated(aioli.normalised(np.zeros((3, 3)))), 1 / 3)
    np.testing.assert_allclose(aioli.perturbed(1), 1)


def test_aioli_says_that_a_run_is_too_short_to_measure(corpus: Corpus, make_space: Make) -> None:
    with pytest.raises(SpaceError, match="only 3 steps"):
        choose_online("aioli", corpus, make_space(), 2e4, 3 * 4 * 32)


def test_what_is_set_aside_is_not_drawn_again(corpus: Corpus, make_space: Make) -> None:
    session = Session(corpus, make_space(), 2e4, 4096, seed=3)
    aside = {tuple(row) for tokens in session.set_aside(4) for row in tokens}
    drawn = [tuple(row) for _ in range(5) for tokens in session.draw(np.array([0.5, 0.5])).values() for row in tokens]
    assert not aside & set(drawn)
