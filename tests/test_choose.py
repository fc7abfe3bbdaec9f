"""The law is chosen by what it predicts of what it has not seen; the default stays where nothing is clearly better."""

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from raymix.laws import make_law
from raymix.laws.base import as_table
from raymix.laws.rows import last_rows
from raymix.observations import Observations
from raymix.space import Scale
from raymix.tables.choose import MAX_MIXTURES, _choose, choose_law, own_domains
from raymix.tables.scores import HeldOutLosses, same_scale, standard_error
from raymix.testing import SyntheticRuns, synthetic_runs

DATA = Path(os.environ.get("RAYMIX_DATA") or Path(__file__).parents[2] / "shared" / "data")


def table_of(runs: SyntheticRuns) -> Observations:
    domains = [f"d{k}" for k in range(runs.mix_BK.shape[1])]
    evals = [f"e{i}" for i in range(runs.loss_BM.shape[1])]
    rows = [
        {"trial_id": f"t{run}", "n_params": scale[0], "n_tokens": scale[1]}
        | {f"mixture/{name}": share for name, share in zip(domains, mix, strict=True)}
        | {f"loss/{name}": loss for name, loss in zip(evals, losses, strict=True)}
        for run, mix, scale, losses in zip(runs.run_B, runs.mix_BK, runs.scale_B2, runs.loss_BM, strict=True)
    ]
    return Observations.from_rows(rows, domains, evals)


RUNS = table_of(synthetic_runs(n_mixtures=12))
OWN_M = np.array([0, 1, 2])


def test_own_domains_go_by_name_whatever_case_and_separators() -> None:
    own_M = own_domains(["Pile-CC", "github", "a_b", "A B"], ["pile_cc", "GitHub", "A B", "a-b", "exams"])
    assert own_M.tolist() == [0, 1, 3, -1, -1]  # "a-b" could be two


def test_the_default_is_chosen_and_fitted_on_all_rows() -> None:
    choice = choose_law(RUNS, OWN_M, candidates=["residual_gp", "log_feature_joint"])
    assert choice.name == choice.law.name == "residual_gp"
    assert {score.held_out for score in choice.scores} == {"mixtures"}
    best = choice.scores[0]
    assert best.folds == 5
    assert 0 < best.weighted_error < best.error < 0.02
    assert best.rank_correlation_within_size > 0.9
    assert best.contrast_r2 > 0.9
    assert 0.001 < best.noise < 0.02
    again = make_law("residual_gp").fit(RUNS.mix_BK, RUNS.scale_B2, RUNS.loss_BM, RUNS.run_B, OWN_M)
    want_BM, got_BM = (law.predict(RUNS.mix_BK, RUNS.scale_B2) for law in (again, choice.law))
    np.testing.assert_allclose(got_BM, want_BM, rtol=1e-12)


def test_a_clearly_better_law_wins_wherever_it_stands() -> None:
    """Chinchilla does not know the mixture, so it cannot tell one held out from another."""
    choice = choose_law(RUNS, OWN_M, candidates=["chinchilla", "union"])
    assert choice.name == "union"
    assert "best" in choice.why


@pytest.mark.parametrize(("spread", "name"), [(0.2, "one"), (0.02, "other")])
def test_better_by_less_than_a_standard_error_is_not_better(spread: float, name: str) -> None:
    """`other` is better by .05 over five folds, give or take `spread`: standard errors of .09 and .009."""
    off = np.exp(0.1 + np.array([-1, -1, 0, 1, 1]) * spread * 0.5)
    loss = np.array([1.0, 1.2, 1.4, 1.6, 1.8])
    one, other = (held(list(pred), list(loss), [0, 1, 2, 3, 4]) for pred in (loss * off, loss * np.exp(0.075)))
    chosen, scores, why = _choose(("one", "other"), [{"one": one, "other": other}])
    assert chosen == name
    assert len(scores) == 2
    assert ("within one standard error" in why) == (name == "one")


def test_same_seed_same_choice() -> None:
    one, two = (choose_law(RUNS, OWN_M, candidates=["union", "joint"], seed=3) for _ in range(2))
    assert [score.to_json() for score in one.scores] == [score.to_json() for score in two.scores]
    assert one.why == two.why


def test_sizes_are_held_out_where_the_target_is_larger() -> None:
    beyond, inside = (choose_law(RUNS, OWN_M, Scale(n, 1e9), ["union"]) for n in (2e9, 1e8))
    assert [score.held_out for score in beyond.scores] == ["mixtures", "sizes"]
    assert [score.held_out for score in inside.scores] == ["mixtures"]
    two_sizes = RUNS.select(RUNS.scale_B2[:, 0] < 1e8)
    assert len(choose_law(two_sizes, OWN_M, Scale(2e9, 1e9), ["union"]).scores) == 1  # one size is no rehearsal


def test_laws_without_scale_are_no_candidates_for_another_scale() -> None:
    one = table_of(synthetic_runs(n_mixtures=10, sizes=(6e7,), tokens=(1e9,)))
    here, elsewhere = (choose_law(one, OWN_M, target) for target in (None, Scale(6e8, 1e9)))
    assert {"effective_data", "log_feature", "m4"} < {score.name for score in here.scores}
    assert {score.name for score in elsewhere.scores} == {"residual_gp", "union"}


def test_losses_exponential_in_the_shares_are_given_the_law_of_that_shape() -> None:
    """c + k exp(t.r) (arXiv 2403.16952): the default's power laws bend otherwise, and err twice as much."""
    rng = np.random.default_rng(0)
    mix_BK, slope_MK = rng.dirichlet(np.ones(3), 32), np.array([[2.0, 0.5, 0.8], [0.4, 2.5, 0.6], [0.7, 0.3, 2.2]])
    truth_BM = 1.5 + 1.5 * np.exp(-mix_BK @ slope_MK.T)
    scale_B2, noise_BM = np.tile([1e8, 1e9], (32, 1)), np.exp(0.001 * rng.normal(size=truth_BM.shape))
    runs = SyntheticRuns(mix_BK, scale_B2, truth_BM * noise_BM, np.arange(32), OWN_M, truth_BM)
    choice = choose_law(table_of(runs).select(np.arange(32) < 12), None)
    error, default = (
        np.abs(np.log(law.predict(mix_BK, scale_B2)[12:] / truth_BM[12:])).mean()
        for law in (choice.law, make_law("residual_gp").fit(mix_BK[:12], scale_B2[:12], runs.loss_BM[:12]))
    )
    assert choice.name == "m4"
    assert error < 0.5 * default


def test_many_mixtures_may_tell_a_power_of_every_domain() -> None:
    """1 / sum C r^g with a g of each domain (arXiv 2507.09404): the default has one power for all of them."""
    rng = np.random.default_rng(0)
    mix_BK, weight_MK = rng.dirichlet(np.ones(3), 180), np.array([[1.2, 0.1, 0.2], [0.1, 1.4, 0.2], [0.2, 0.1, 1.1]])
    powers_K = np.array([0.05, 0.4, 0.95])
    truth_BM = 1.5 + 0.7 / ((mix_BK**powers_K) @ weight_MK.T)
    scale_B2, noise_BM = np.tile([1e8, 1e9], (180, 1)), np.exp(0.002 * rng.normal(size=truth_BM.shape))
    runs = table_of(SyntheticRuns(mix_BK, scale_B2, truth_BM * noise_BM, np.arange(180), OWN_M, truth_BM))
    few, many = (choose_law(runs.select(np.arange(180) < n), OWN_M) for n in (40, 60))
    assert "apple_joint" not in {score.name for score in few.scores}
    assert many.name == "apple_joint"
    assert many.elsewhere is not None  # its effect of size is prior only, and untried there
    assert many.elsewhere.name == "residual_gp"
    default = make_law("residual_gp").fit(mix_BK[:60], scale_B2[:60], runs.loss_BM[:60], None, OWN_M)
    error, of_default = (
        np.abs(np.log(law.predict(mix_BK[60:], scale_B2[60:]) / truth_BM[60:])).mean() for law in (many.law, default)
    )
    assert error < 0.8 * of_default


def test_a_law_that_passes_through_all_of_few_mixtures_is_not_tried() -> None:
    """Eight runs of seven domains: at times log_feature seemed best, and then erred twice as much as the default."""
    rng = np.random.default_rng(302)
    slope_MK = rng.normal(0.3, 0.5, (7, 7)) + 2 * np.eye(7)
    mix_BK = np.concatenate([rng.dirichlet(np.full(7, 0.8), 12), rng.dirichlet(np.full(7, 0.8), 60)])
    truth_BM, scale_B2 = 1.8 + 1.2 * np.exp(-mix_BK @ slope_MK.T), np.tile([1e8, 1e9], (72, 1))
    loss_BM = truth_BM * np.exp(0.004 * rng.normal(size=truth_BM.shape))
    runs = table_of(SyntheticRuns(mix_BK, scale_B2, loss_BM, np.arange(72), np.arange(7), truth_BM))
    few, more = (choose_law(runs.select(np.arange(72) < n), None) for n in (8, 12))
    assert "log_feature" not in {score.name for score in few.scores}
    assert "log_feature" in {score.name for score in more.scores}
    default = make_law("residual_gp").fit(mix_BK[:8], scale_B2[:8], loss_BM[:8])
    error, of_default = (
        np.abs(np.log(law.predict(mix_BK[12:], scale_B2[12:]) / truth_BM[12:])).mean() for law in (few.law, default)
    )
    assert error < 1.2 * of_default


def test_a_law_that_cannot_be_fitted_is_left_out() -> None:
    choice = choose_law(RUNS, OWN_M, candidates=["dcpt", "union"])  # dcpt is of two domains
    assert choice.name == "union"
    with pytest.raises(ValueError, match="dcpt cannot be fitted"):
        choose_law(RUNS, OWN_M, candidates=["dcpt"])


def test_progress_goes_from_stage_to_stage_and_never_back() -> None:
    said: list[tuple[str, float]] = []
    choose_law(RUNS, OWN_M, candidates=["dcpt", "union"], progress=lambda *stage: said.append(stage))  # dcpt: left out
    stages = list(dict.fromkeys(stage for stage, _ in said))
    assert stages == ["judging laws, mixtures held out", "fitting union"]
    fractions = [fraction for stage, fraction in said if stage == stages[0]]
    assert fractions == sorted(fractions) and fractions[0] == 0 and fractions[-1] < 1


def test_too_few_mixtures_are_said() -> None:
    choice = choose_law(table_of(synthetic_runs(n_mixtures=3)), OWN_M, candidates=["union", "joint"])
    assert (choice.name, choice.scores) == ("union", [])
    assert "too few mixtures (3)" in choice.why


def test_one_trial_id_for_runs_of_several_sizes_loses_none_of_them() -> None:
    """A table may number mixtures: the short runs of the small size are no warm-up of the long ones of the large."""
    runs = synthetic_runs(n_mixtures=8, sizes=(6e7, 6e8), tokens=(1e10,))
    scale_B2 = np.where(runs.scale_B2[:, :1] < 1e8, [6e7, 5e8], [6e8, 1e10])
    own, shared = (
        choose_law(table_of(replace(runs, scale_B2=scale_B2, run_B=run_B)), OWN_M, candidates=["union"])
        for run_B in (np.arange(16), np.unique(runs.mix_BK, axis=0, return_inverse=True)[1].ravel())
    )
    got_BM, want_BM = (choice.law.predict(runs.mix_BK, scale_B2) for choice in (shared, own))
    np.testing.assert_allclose(got_BM, want_BM, rtol=1e-9)
    assert not shared.law.notes_


def test_nonsense_is_refused() -> None:
    with pytest.raises(ValueError, match=r"unknown law 'unoin'.*union"):
        choose_law(RUNS, OWN_M, candidates=["unoin"])
    with pytest.raises(ValueError, match="no row has a loss"):
        choose_law(RUNS.select(np.zeros(len(RUNS), dtype=bool)), OWN_M)
    table = RUNS.table.set_column(RUNS.table.column_names.index("loss/e1"), "loss/e1", [np.full(len(RUNS), np.nan)])
    with pytest.raises(ValueError, match="'e1' has no loss in any row: drop the column loss/e1, or fit the others"):
        choose_law(replace(RUNS, table=table), OWN_M)


def test_at_most_so_many_mixtures_choose_and_all_are_fitted() -> None:
    runs = synthetic_runs(n_domains=3, n_eval=1, n_mixtures=MAX_MIXTURES + 40, sizes=(6e7,), tokens=(1e9,))
    choice = choose_law(table_of(runs), None, candidates=["effective_data"])
    fresh = make_law("effective_data").fit(runs.mix_BK, runs.scale_B2, runs.loss_BM)
    np.testing.assert_allclose(
        choice.law.predict(runs.mix_BK, runs.scale_B2), fresh.predict(runs.mix_BK, runs.scale_B2), rtol=1e-6
    )


def held(pred: list[float], loss: list[float], folds: list[int]) -> HeldOutLosses:
    """One eval domain; row i is of mixture i."""
    mix_BK = np.column_stack([np.linspace(0.1, 0.9, len(loss)), np.linspace(0.9, 0.1, len(loss))])
    table = as_table(mix_BK, [1e8, 1e9], np.array(loss)[:, None], None, None)
    return HeldOutLosses("x", "mixtures", table, np.ones(1), np.array(folds), np.array(pred)[:, None])


def test_scores_by_hand() -> None:
    """Errors of log loss .1, -.1, .1, -.1 count twice (per domain and weighted); noise has one degree less."""
    loss = np.array([1.0, 1.2, 1.5, 2.0])
    found = held(list(loss * np.exp([0.1, -0.1, 0.1, -0.1])), list(loss), [0, 0, 1, 1])
    score = found.score()
    np.testing.assert_allclose(found.error_Q(), 0.2)
    assert score.error == pytest.approx(0.1)
    assert score.weighted_error == pytest.approx(0.1)
    assert score.total == pytest.approx(0.2)
    assert score.rank_correlation == pytest.approx(0.8)  # 1.105, 1.086, 1.658, 1.810: the first two change places
    assert score.noise == pytest.approx(0.1 * np.sqrt(4 / 3))
    log_off = np.log(loss) - np.log(loss).mean()
    assert score.contrast_r2 == pytest.approx(1 - 0.04 / (log_off**2).sum())


@pytest.mark.parametrize("factor", [1.5, 4.0])
def test_laws_are_not_judged_by_a_run_that_diverged(factor: float) -> None:
    """Else one of 24 chooses another law, and makes noise of half a nat."""
    runs = synthetic_runs(n_mixtures=24, sizes=(6e7,), tokens=(1e9,), noise=0.01, seed=0)
    clean = choose_law(table_of(runs), runs.own_M)
    runs.loss_BM[7] *= factor
    hurt = choose_law(table_of(runs), runs.own_M)
    assert hurt.name == clean.name
    before, after = clean.scores[0], hurt.scores[0]
    assert before.name == after.name == clean.name
    assert after.noise == pytest.approx(before.noise, rel=0.3)  # of 23 runs and of 24
    assert after.total == pytest.approx(before.total, rel=0.3)


def test_a_law_of_which_few_were_held_out_has_no_rank_within_sizes() -> None:
    """Two mixtures at three sizes, until it was dropped: one pair in the right order is not a rank of 1."""
    runs = synthetic_runs(n_mixtures=6, tokens=(1e9,), noise=0.0)
    table = as_table(runs.mix_BK, runs.scale_B2, runs.loss_BM[:, :1], runs.run_B, None)
    for n, known in ((2, False), (6, True)):
        pred_BM = np.where(np.arange(18)[:, None] < 3 * n, table.loss_BM, np.nan)
        score = HeldOutLosses("x", "mixtures", table, np.ones(1), np.arange(18) // 3, pred_BM).score()
        assert np.isfinite(score.rank_correlation_within_size) == known


def test_standard_error_by_hand() -> None:
    """Differences .2 + [0, .2, .4] over three folds: sd .2, over sqrt(3); over one fold the sd itself."""
    exact = held([1.0, 1.0, 1.0], [1.0, 1.0, 1.0], [0, 1, 2])
    other = held(list(np.exp([0.1, 0.2, 0.3])), [1.0, 1.0, 1.0], [0, 1, 2])
    assert standard_error(other, exact) == pytest.approx(0.2 / np.sqrt(3))
    one_fold = held(list(np.exp([0.1, 0.2, 0.3])), [1.0, 1.0, 1.0], [0, 0, 0])
    assert standard_error(one_fold, held([1.0] * 3, [1.0] * 3, [0] * 3)) == pytest.approx(0.2)


def test_last_rows_and_scales() -> None:
    table = as_table(np.full((4, 2), 0.5), [[1e8, 1e9], [1e8, 3e9], [1e8, 2e9], [1e8, 1.001e9]],
                     np.full((4, 1), 2.0), [0, 0, 0, 1], None)  # fmt: skip
    assert sorted(last_rows(table).tolist()) == [1, 3]
    assert same_scale(np.array([[1e8, 1e9], [1.2e8, 1e9], [1.03e8, 1e9], [1e8, 2e9]])).tolist() == [0, 2, 0, 1]


@pytest.mark.data
@pytest.mark.skipif(not DATA.is_dir(), reason=f"no published runs in {DATA}; set RAYMIX_DATA to their folder")
def test_auto_is_no_worse_than_the_default_on_published_runs() -> None:
    """RegMix, 32 runs in and the others out: mean error at most 3% above the default's (it was at most .2% above)."""
    from raymix.formats import import_runs

    runs = import_runs("regmix", DATA / "regmix")
    own_M = own_domains(runs.domains, runs.eval_domains)
    assert (own_M >= 0).all()
    order = np.random.default_rng(0).permutation(len(runs))
    train, test = runs.select(order[:32]), runs.select(order[32:])
    default = make_law("residual_gp").fit(train.mix_BK, train.scale_B2, train.loss_BM, train.run_B, own_M)
    errors = [
        np.abs(np.log(law.predict(test.mix_BK, test.scale_B2) / test.loss_BM)).mean()
        for law in (choose_law(train, own_M).law, default)
    ]
    assert errors[0] < 1.03 * errors[1]


@pytest.mark.data
@pytest.mark.skipif(not DATA.is_dir(), reason=f"no published runs in {DATA}; set RAYMIX_DATA to their folder")
def test_auto_errs_less_than_the_default_on_many_published_runs() -> None:
    """RegMix, 300 runs in and 212 out: 14 to 17% less, by a power of every domain."""
    from raymix.formats import import_runs

    runs = import_runs("regmix", DATA / "regmix")
    own_M = own_domains(runs.domains, runs.eval_domains)
    order = np.random.default_rng(0).permutation(len(runs))
    train, test = runs.select(order[:300]), runs.select(order[300:])
    default = make_law("residual_gp").fit(train.mix_BK, train.scale_B2, train.loss_BM, train.run_B, own_M)
    errors = [
        np.abs(np.log(law.predict(test.mix_BK, test.scale_B2) / test.loss_BM)).mean()
        for law in (choose_law(train, own_M).law, default)
    ]
    assert errors[0] < 0.9 * errors[1]
