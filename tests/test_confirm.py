"""Confirmation: the proposal and baselines on the same seeds, predicted beside confirmed."""

import json
import zlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from raymix import Study
from raymix.cli import app
from raymix.design import Proposal, SpaceFilling, cost, rungs
from raymix.design.stock import losses as at_scale
from raymix.design.stock import unique_at
from raymix.laws.repetition import stocked
from raymix.results import results
from raymix.space import Rung, Scale, SearchSpace, SpaceError
from raymix.space_study import Confirm
from raymix.store import Store
from raymix.study.affordable import affordable, largest_affordable
from raymix.study.agenda import expected_trials, next_trials, over
from raymix.study.budget import spent
from raymix.study.confirm import (
    FIRST_SEED,
    Confirmation,
    confirmation,
    confirmed_mixture,
    due,
    plan_confirmation,
    proposal,
)
from raymix.study.gain import Gain, Guard, guard_words
from raymix.study.ledger import Ledger
from raymix.study.trial import Trial
from raymix.study.weighed import weighed
from raymix.target.reading import Interval
from raymix.target.recommend import BROKEN, Recommendation, fit_law
from tests import worlds

SMALL, LARGE = rungs(worlds.space())
PRIOR = worlds.space().prior_K()
SHARED_NOISE, OWN_NOISE = 0.05, 0.002


def losses(trial: Trial) -> dict[str, float]:
    """Runs of one seed share most of their noise, as runs that read the same text do."""
    mix_K = np.asarray([trial.mixture[name] for name in worlds.DOMAINS])
    shared = np.random.default_rng(trial.seed).normal() * (SHARED_NOISE if trial.purpose == "confirm" else 0.0)
    own = np.random.default_rng(zlib.crc32(trial.trial_id.encode())).normal(size=len(mix_K)) * OWN_NOISE
    values = worlds.losses(mix_K, trial.n_params, trial.n_tokens) * np.exp(shared + own)
    return dict(zip(worlds.DOMAINS, values.tolist(), strict=True))


def ledger(store: Store | None = None, **changes: Any) -> Ledger:
    space = worlds.space(
        **({"budget": {"trials": 16, "per_round": 5}, "confirm": {"baselines": ["prior", "uniform"]}} | changes)
    )
    return Ledger(space, seed=0, store=store, designer=SpaceFilling(space))


def play(book: Ledger) -> None:
    while trials := next_trials(book, 5):
        for trial in trials:
            book.observe(trial.trial_id, {f"loss/{name}": value for name, value in losses(trial).items()})


@pytest.fixture(scope="module")
def played() -> Ledger:
    """16 trials: 7 of the search, then 3 seeds of 3 mixtures."""
    book = ledger()
    play(book)
    return book


def test_confirmation_is_the_last_part_of_the_budget(played: Ledger) -> None:
    purposes = [trial.purpose for trial in played.trials.values()]
    assert purposes == ["search"] * 7 + ["confirm"] * 9
    assert "budget.trials: 7 of 7 spent, confirmation set aside" in str(over(played))
    runs = [trial for trial in played.trials.values() if trial.purpose == "confirm"]
    assert {trial.seed for trial in runs} == {FIRST_SEED, FIRST_SEED + 1, FIRST_SEED + 2}  # no part in the choice
    assert {(trial.n_params, trial.n_tokens) for trial in runs} == {LARGE}


def test_confirmed_gains_are_paired_and_near_the_truth(played: Ledger) -> None:
    found = confirmation(played)
    assert found is not None
    space = played.space
    truth = {arm: space.weights_M @ worlds.losses(space.mixture(mix), *LARGE) for arm, mix in found.mixtures.items()}
    for name, gain in found.gains.items():
        true_gain = truth[name] - truth["proposal"]
        assert gain.pairs == 3
        assert gain.mean is not None and gain.standard_error is not None and gain.low is not None
        # Own noise of .2% of about 5 nats, three domains, two runs, three pairs: about .005. Unpaired it would be .2.
        assert gain.standard_error < 0.03
        assert abs(gain.mean - true_gain) < 5 * 0.005 + 0.06 * abs(true_gain)  # what is shared is a factor of losses
        assert gain.predicted.low <= gain.predicted.mean <= gain.predicted.high
        assert set(gain.by_eval) == set(worlds.DOMAINS)
    assert "confirmed" in found.words[0] and "standard error" in found.words[0]


@pytest.mark.parametrize(
    ("factor", "allowed", "predicted", "broken"),
    [(1.05, 0.02, 0.03, True), (1.0, 0.02, 0.0, False), (1.05, 0.5, 0.0, False), (1.05, 0.02, 0.16, False)],
)
def test_a_guardrail_that_confirmation_saw_broken_is_no_use_it(
    played: Ledger, factor: float, allowed: float, predicted: float, broken: bool
) -> None:
    """Losses at the proposal are good but for code, which the guardrail is about: at the target, where a law that
    foresees what is seen here may well keep it."""
    book = ledger(objective={"weights": {"web": 0.5, "books": 0.5}, "guardrails": {"code": allowed}})
    plan = played.confirmations[-1] | {"objective": book.space.objective.model_dump(mode="json")}
    assert played.confirmations[-1]["guards"] == {}
    plan["guards"] = {"code": predicted}
    book.note("confirm", plan)
    for trial in due(book, 9):
        ours = trial.mixture == pytest.approx(plan["mixtures"]["proposal"], abs=1e-9)
        rng = np.random.default_rng(zlib.crc32(trial.trial_id.encode()))
        row = {f"loss/{name}": 3.0 - 0.1 * ours + 0.002 * rng.normal() for name in ("web", "books")}
        book.observe(trial.trial_id, row | {"loss/code": 3.0 * (factor if ours else 1.0) + 0.002 * rng.normal()})
    found = confirmation(book)
    assert found is not None and set(found.guardrails) == {"code"}
    at = Interval(2.9, 2.8, 3.0)
    said = Recommendation(plan["mixtures"]["proposal"], plan["scale"], {}, at, {}, {}, {}, {"notes": []}, {},
                          {"answer": "use it", "reason": "predicted"}, {})  # fmt: skip
    verdict = weighed(said, found).verdict
    assert found.gains["prior"].low is not None and found.gains["prior"].low > 0
    assert verdict["answer"] == ("keep the baseline: guardrail broken" if broken else "use it")
    assert ("code is 0.15" in verdict["reason"] and "0.02 worse is allowed" in verdict["reason"]) == broken
    assert any("code is 0.15" in sentence for sentence in found.words) == (factor > 1)
    assert json.loads(json.dumps(found.to_json()))["guardrails"]["code"]["allowed"] == allowed
    mixtures = {name: mixture for name, mixture in plan["mixtures"].items() if name != "prior"}
    book.note("confirm", plan | {"mixtures": mixtures})
    without = confirmation(book)
    assert without is not None and not without.guardrails and "guardrails are not checked" in without.words[-1]


def test_the_prediction_is_older_than_the_runs_and_survives_a_restart(tmp_path: Path) -> None:
    store = Store(tmp_path)
    with store.locked():
        book = ledger(store)
        while not any(trial.purpose == "confirm" for trial in book.pending()):
            for trial in next_trials(book, 5):
                if trial.purpose == "search":
                    book.observe(trial.trial_id, {f"loss/{name}": value for name, value in losses(trial).items()})
    assert book.count("done") == 7
    store = Store(tmp_path)
    with store.locked():
        again = ledger(store)
        assert again.confirmations == book.confirmations
        for trial in again.pending():
            again.observe(trial.trial_id, {f"loss/{name}": value for name, value in losses(trial).items()})
        play(again)
    assert len(again.trials) == 16
    assert again.confirmations == book.confirmations
    found = confirmation(again)
    assert found is not None and found.done == 9


def test_another_objective_is_not_confirmed_by_runs_of_the_first(tmp_path: Path) -> None:
    """Predicted and confirmed gains stay those of one objective; what is proposed now is to be confirmed anew."""
    store = Store(tmp_path)
    with store.locked():
        play(ledger(store))
    before = confirmation(ledger(Store(tmp_path)))
    web = {"objective": {"weights": {"web": 1.0}}}
    other = ledger(Store(tmp_path), **web)
    after = confirmation(other)
    assert before is not None and after is not None
    assert after.gains == before.gains
    assert after.outdated and "the objective has changed" in after.words[-1] and not before.outdated
    assert confirmed_mixture(other) is None and confirmed_mixture(ledger(Store(tmp_path))) is not None
    larger = ledger(Store(tmp_path), **web, budget={"trials": 25, "per_round": 5})
    play(larger)
    again = confirmation(larger)
    assert again is not None and not again.outdated
    assert again.mixtures["proposal"]["web"] > after.mixtures["proposal"]["web"] + 0.1


def test_a_mixture_that_constraints_forbid_now_is_not_confirmed_any_more(tmp_path: Path) -> None:
    """What is proposed now is confirmed in its place, where the budget pays for it."""
    store = Store(tmp_path)
    with store.locked():
        play(ledger(store))
    before = confirmation(ledger(Store(tmp_path)))
    assert before is not None and not before.outdated
    name, share = max(before.mixtures["proposal"].items(), key=lambda item: item[1])
    tighter = {"constraints": {"groups": [{"domains": [name], "max": share - 0.05}]}}
    larger = ledger(Store(tmp_path), **tighter, budget={"trials": 25, "per_round": 5})
    after = confirmation(larger)
    assert after is not None and after.outdated and "forbid it now" in after.words[-1]
    assert confirmed_mixture(larger) is None
    play(larger)
    again = confirmation(larger)
    assert again is not None and not again.outdated and again.mixtures["proposal"][name] <= share - 0.05 + 1e-9
    assert confirmed_mixture(larger) is not None


def test_the_prediction_counts_the_repeats_of_the_runs() -> None:
    book = ledger(confirm=None, objective={"guardrails": {"web": 0.5}})
    unique_K = unique_at(book.space, np.asarray([SMALL]))[0]
    for trial in book.ask(8):
        row = {f"loss/{name}": value for name, value in losses(trial).items()}
        row |= {f"unique/{name}": float(n) for name, n in zip(worlds.DOMAINS, unique_K, strict=True)}
        book.observe(trial.trial_id, row)
    plan_confirmation(book, Confirm(seeds=1, scale=Rung(n_params=SMALL.n_params, n_tokens=SMALL.n_tokens)))
    plan, law = book.confirmations[-1], fit_law(book.space, book.table())
    mix_2K = np.stack([book.space.mixture(plan["mixtures"][arm]) for arm in ("proposal", "prior")])
    scale_22 = np.tile(np.asarray(SMALL, float), (2, 1))
    proposal, prior = at_scale(book.space, law, mix_2K, scale_22) @ book.space.weights_M
    assert plan["predicted"]["prior"]["mean"] == pytest.approx(prior - proposal, rel=1e-9)
    losses_2M = at_scale(book.space, law, mix_2K, scale_22)
    assert plan["guards"] == {"web": pytest.approx(losses_2M[0, 0] - losses_2M[1, 0], rel=1e-9)}
    proposal, prior = stocked(law, book.space.available_K).predict(mix_2K, scale_22) @ book.space.weights_M
    assert plan["predicted"]["prior"]["mean"] != pytest.approx(prior - proposal, rel=0.01)  # nothing is repeated


def test_a_failed_run_takes_its_pairs_with_it(played: Ledger) -> None:
    book = ledger()
    for plan in played.confirmations:
        book.note("confirm", plan)
    for trial in (trial for trial in played.trials.values() if trial.purpose == "confirm"):
        book._apply("proposed", trial.to_json())
    failed = next(
        t for t in played.trials.values() if t.mixture == pytest.approx(played.space.shares(PRIOR)) and t.seed >= 1000
    )
    for trial in book.pending():
        if trial == failed:
            book.fail(trial.trial_id, "diverged")
        else:
            book.observe(trial.trial_id, {f"loss/{name}": value for name, value in losses(trial).items()})
    found = confirmation(book)
    assert found is not None
    assert (found.done, found.failed, found.pending) == (8, 1, 0)
    assert (found.gains["prior"].pairs, found.gains["uniform"].pairs) == (2, 3)
    assert "(2 pairs of runs), while 1 of its runs failed" in found.words[0]  # a mixture that diverges is not better


def test_a_confirmation_that_failed_is_said_beside_the_law(played: Ledger) -> None:
    at, one = {"n_params": 1e6, "n_tokens": 1e8}, Interval(2.0, 1.9, 2.1)
    law = {"answer": "use it", "reason": "by the law"}
    said = Recommendation({"web": 1.0}, at, {}, one, {}, {}, {}, {"notes": []}, {}, law, {})
    nothing = Gain(Interval(0.1, 0.05, 0.15), None, None, None, None, 0, {})
    for pending in (0, 2):
        confirmed = Confirmation(at, [1000], {"proposal": {"web": 1.0}}, {}, 0, pending, 4, {"prior": nothing}, ["so"])
        found = weighed(said, confirmed)
        assert ("4 of its runs failed" in found.verdict["reason"]) == (found.law["notes"] == ["so"]) == (pending == 0)


def test_the_largest_scale_that_the_rest_pays_for() -> None:
    book = ledger()
    target = book.space.target.scale
    assert largest_affordable(book, 0.9 * cost(SMALL)) is None
    assert largest_affordable(book, 1.1 * cost(SMALL)) == SMALL
    assert largest_affordable(book, float("inf")) == LARGE  # a budget in trials: as large as the ladder goes
    assert largest_affordable(book, 2 * cost(target)) == target
    between = largest_affordable(book, 10 * cost(LARGE))
    assert between is not None
    assert cost(between) == pytest.approx(10 * cost(LARGE), rel=1e-6)
    assert LARGE.n_params < between.n_params < target.n_params
    assert LARGE.n_tokens < between.n_tokens < target.n_tokens


def test_a_budget_in_flops_keeps_a_share_and_is_not_exceeded() -> None:
    total = 20 * cost(SMALL)
    book = ledger(budget={"flops": total, "per_round": 5, "stop_early": False}, confirm={"seeds": 2, "share": 0.5})
    play(book)
    assert spent(book, "search").flops <= 0.5 * total * (1 + 1e-9)
    assert spent(book).flops <= total * (1 + 1e-9)
    found = confirmation(book)
    assert found is not None and found.done == 4


def test_no_run_of_a_confirmation_is_longer_than_the_hours_left() -> None:
    """Sixteen trials of five hours side by side: what is left pays for 2.7 of them a run, which would take 13 hours."""
    budget = {"hours": 10.0, "per_round": 16, "stop_early": False}
    book = ledger(ladder=[SMALL._asdict()], budget=budget, confirm={"seeds": 3, "share": 0.5})
    for trial in book.ask(16):
        row = {f"loss/{name}": value for name, value in losses(trial).items()}
        book.observe(trial.trial_id, row | {"seconds": 5 * 3600.0})
    book.hours = 5.0
    seeds, scale = affordable(book, Confirm(seeds=3), True, 2)
    assert seeds == 3 and scale is not None
    assert book.flops_of(scale) == pytest.approx(cost(SMALL))


@pytest.mark.parametrize(("left", "paid"), [(5.0, (0, None)), (6.0, (3, SMALL))])
def test_a_run_of_a_confirmation_has_the_gpus_of_its_own_rung(left: float, paid: tuple[int, Scale | None]) -> None:
    """A run of the small rung takes six hours on its one GPU; the four GPUs are the large rung's."""
    ladder = [{**SMALL._asdict(), "resources": {"gpu": 1}}, {**LARGE._asdict(), "resources": {"gpu": 4}}]
    book = ledger(ladder=ladder, budget={"hours": 11.0, "per_round": 16}, confirm={"seeds": 3, "share": 0.5})
    for trial in book.propose([Proposal(PRIOR, SMALL, seed) for seed in range(16)]):
        row = {f"loss/{name}": value for name, value in losses(trial).items()}
        book.observe(trial.trial_id, row | {"seconds": 6 * 3600.0})
    book.hours = 11.0 - left
    assert affordable(book, Confirm(seeds=3), True, 2) == paid


def test_too_little_for_confirmation_is_said_and_ends_the_study() -> None:
    book = ledger(budget={"flops": 6 * cost(SMALL), "per_round": 5, "stop_early": False}, confirm={"share": 0.1})
    play(book)
    assert confirmation(book) is None
    assert over(book) is not None
    assert "does not pay for one pair" in book.confirmations[-1]["why"]
    with pytest.raises(SpaceError, match="confirm takes 6 of the 8 trials"):
        worlds.space(budget={"trials": 8}, confirm=True)


@pytest.mark.parametrize("runs", [0, 2, 5, 6])
def test_a_scale_that_was_named_is_paid_from_the_budget_too(runs: int) -> None:
    dear = Scale(4e6, 1e7)
    share = cost(dear) * runs / (cost(dear) * runs + 10 * cost(SMALL)) or 0.01
    wanted = {"seeds": 3, "share": share, "scale": {"n_params": dear.n_params, "n_tokens": dear.n_tokens}}
    total = 10 * cost(SMALL) / (1 - share)
    book = ledger(budget={"flops": total, "per_round": 5, "stop_early": False}, confirm=wanted)
    play(book)
    assert len(book.confirmations[-1]["seeds"]) == runs // 2
    assert spent(book).flops <= total * (1 + 1e-9)
    if not runs:
        assert "does not pay for one pair of runs at 4M parameters, 10M tokens" in book.confirmations[-1]["why"]
        plan_confirmation(book, Confirm.model_validate(wanted))  # asked for beside the budget
        assert len(book.confirmations[-1]["seeds"]) == 3


@pytest.mark.slow  # fits the law some 100 times: about 6 s
def test_ask_and_tell_to_a_confirmed_recommendation(tmp_path: Path) -> None:
    study = Study.create(worlds.space(budget={"trials": 14, "per_round": 8}, confirm=True), tmp_path / "s")
    while trials := study.ask(8):
        for trial in trials:
            study.tell(trial.trial_id, losses(trial))
    assert study.finished
    found = results(study)
    written = json.loads((tmp_path / "s" / "confirmation.json").read_text())
    assert written["mixtures"]["proposal"] == pytest.approx(
        found.mixture, abs=1e-12
    )  # what is recommended is what was trained
    assert written["done"] == 6
    kept = confirmed_mixture(study.ledger)
    assert kept is not None
    # The prior has no code or books to speak of: a gain that three pairs of runs see.
    assert found.verdict["answer"] == "use it"
    assert "confirmed" in found.verdict["reason"]
    assert found.evidence["trials"] == 14
    state = CliRunner().invoke(app, ["status", str(tmp_path / "s"), "--json"])
    assert json.loads(state.stdout)["confirmation"]["gains"]["prior"]["pairs"] == 3


@pytest.mark.slow  # fits the law some 100 times: about 6 s
def test_confirm_from_the_shell_plans_and_ask_hands_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    study = Study.create(worlds.space(budget={}), tmp_path / "s")
    for trial in study.ask(8):
        study.tell(trial.trial_id, losses(trial))
    words = ["confirm", str(tmp_path / "s"), "--seeds", "2", "--baselines", "prior,uniform", "--scale", "2e5", "4e5"]
    done = CliRunner().invoke(app, [*words, "--json"])
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["pending"] == 6
    other = CliRunner().invoke(app, ["confirm", str(tmp_path / "s"), "--seeds", "1", "--json"])
    assert json.loads(other.stdout)["pending"] == 6
    assert "6 runs of the confirmation planned before are still to end" in caplog.text
    assert "--seeds, --baselines, --mixture and --scale were not used" in caplog.text
    study = Study.open(tmp_path / "s")
    runs = study.ask(9)
    assert (len(runs) == 9 and [t.purpose for t in runs].count("confirm") == 6) or len(runs) == 6
    for trial in runs:
        study.tell(trial.trial_id, losses(trial))
    again = CliRunner().invoke(app, ["report", str(tmp_path / "s")])
    assert again.exit_code == 0, again.output
    assert json.loads((tmp_path / "s" / "confirmation.json").read_text())["done"] == 6
    wrong = CliRunner().invoke(app, ["confirm", str(tmp_path / "s"), "--baselines", "natural"])
    assert isinstance(wrong.exception, SpaceError)
    assert "'natural'" in str(wrong.exception)
    first = (tmp_path / "s" / "confirmation.json").read_text()
    assert json.loads(CliRunner().invoke(app, [*words, "--json"]).stdout)["pending"] == 0  # and trains nothing twice
    assert "these runs were trained before" in caplog.text
    assert (tmp_path / "s" / "confirmation.json").read_text() == first
    words[3] = "3"
    more = json.loads(CliRunner().invoke(app, [*words, "--json"]).stdout)
    assert (more["done"], more["pending"]) == (6, 3)  # of the mixture that is recommended


def test_a_baseline_that_the_caps_make_the_proposal_is_not_confirmed(
    played: Ledger, monkeypatch: Any, caplog: pytest.LogCaptureFixture
) -> None:
    best_K = proposal(played, fit_law(played.space, played.table()))
    near = {"prior": best_K, "uniform": np.ones(3) / 3}
    monkeypatch.setattr("raymix.study.arms.baseline_mixtures", lambda *_: near)
    recorded: list[dict[str, Any]] = []
    monkeypatch.setattr(played, "note", lambda kind, body: recorded.append(body))
    plan_confirmation(played, Confirm(seeds=4, baselines=("prior", "uniform")))
    assert set(recorded[0]["mixtures"]) == {"proposal", "uniform"}
    assert "within the caps prior is the proposal itself: it is no run of its own" in caplog.text
    plan_confirmation(played, Confirm(baselines=("prior",)), automatic=True)
    assert recorded[1]["why"] == "within the caps prior is the proposal itself"
    with pytest.raises(SpaceError, match="nothing to confirm: within the caps prior is the proposal itself"):
        plan_confirmation(played, Confirm(baselines=("prior",)))


NAMES = [{"name": name} for name in worlds.DOMAINS]
CAPPED = [{"name": name, "max_share": 0.6} for name in worlds.DOMAINS]


OURS = {"code": 0.75, "books": 0.25}


def test_a_mixture_of_ones_own_is_a_baseline_beside_the_prior() -> None:
    wanted = {"seeds": 2, "mixtures": {"ours": OURS}}
    book = ledger(confirm=wanted, budget={"trials": 14, "per_round": 5})
    assert expected_trials(book) == 14
    play(book)
    assert [trial.purpose for trial in book.trials.values()] == ["search"] * 8 + ["confirm"] * 6
    found = confirmation(book)
    assert found is not None
    assert found.mixtures["ours"] == pytest.approx({"web": 0.0, **OURS})
    assert all(book.trials[name].mixture == pytest.approx(found.mixtures["ours"]) for name in found.trials["ours"])
    assert found.gains["ours"].pairs == found.gains["prior"].pairs == 2


@pytest.mark.parametrize(
    ("mixtures", "words"),
    [
        ({"ours": {"code": 0.5}}, "confirm.mixtures: 'ours': .* sum"),
        ({"ours": {"cod": 1.0}}, "confirm.mixtures: 'ours': 'cod' is not a domain"),
        ({"unimax": OURS}, "confirm.mixtures: 'unimax' is the name of another"),
        ({"proposal": OURS}, "confirm.mixtures: 'proposal' is the name of another"),
    ],
)
def test_a_mixture_of_ones_own_that_is_none_is_named(mixtures: dict[str, Any], words: str) -> None:
    with pytest.raises(SpaceError, match=words):
        worlds.space(confirm={"mixtures": mixtures})


def test_a_mixture_in_a_file_is_confirmed_inside_the_caps(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    study = Study.create(worlds.space(budget={}, domains=CAPPED), tmp_path / "s")
    for trial in study.ask(8):
        study.tell(trial.trial_id, losses(trial))
    (tmp_path / "doremi.json").write_text(json.dumps({"train_domain_weights": {"code": 3.0, "books": 1.0}}))
    words = ["confirm", str(tmp_path / "s"), "--seeds", "1", "--json", "--mixture"]
    done = CliRunner().invoke(app, [*words, f"doremi={tmp_path / 'doremi.json'}"])
    assert done.exit_code == 0, done.output
    # 0.75 of code is 0.15 too much, which the projection gives to the others in equal parts.
    assert json.loads(done.stdout)["mixtures"]["doremi"] == pytest.approx({"web": 0.075, "code": 0.6, "books": 0.325})
    assert "the mixture 'doremi' is outside the caps: it is trained as moved inside them" in caplog.text
    for wrong, said in (("doremi.json", "write NAME=FILE"), ("ours=none.json", "--mixture ours=none.json: none.json")):
        failed = CliRunner().invoke(app, [*words, wrong])
        assert isinstance(failed.exception, SpaceError) and said in str(failed.exception)


def test_proxies_that_nobody_named_are_confirmed_at_the_largest_scale_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    names, target = list(worlds.DOMAINS), {"n_params": 4e6, "n_tokens": 1e7}
    raw = {"name": "own", "domains": names, "eval_domains": names, "target": target, "confirm": {"seeds": 1}}
    space = SearchSpace.parse(raw | {"budget": {"trials": 10}})
    study = Study.create(space, tmp_path / "s", designer=SpaceFilling(space))
    for n, trial in enumerate(study.ask(8)):
        at = LARGE if n == 3 else SMALL
        study.tell(trial.trial_id, losses(replace(trial, **at._asdict())), **at._asdict())
    runs = study.ask(8)
    assert {(trial.purpose, trial.scale) for trial in runs} == {("confirm", LARGE)}
    assert not caplog.records
    study.tell(runs[0].trial_id, losses(runs[0]), n_params=SMALL.n_params)
    assert "n_params is 1e+05, but 4e+05 was proposed" in caplog.text


def test_two_names_of_one_mixture_are_one_run_and_no_trial_is_kept_for_the_second() -> None:
    """Where nobody says what is used today the prior mixture is the uniform one."""
    confirm, budget = {"seeds": 2, "baselines": ["uniform", "prior"]}, {"trials": 14, "per_round": 5}
    book = ledger(domains=NAMES, confirm=confirm, budget=budget)
    assert expected_trials(book) == 14
    play(book)
    assert [trial.purpose for trial in book.trials.values()] == ["search"] * 10 + ["confirm"] * 4
    found = confirmation(book)
    assert found is not None and found.done == 4
    assert found.trials["prior"] == found.trials["uniform"]
    assert found.gains["prior"].pairs == 2 and found.gains["prior"].mean == found.gains["uniform"].mean


def test_the_prior_under_another_name_is_the_prior() -> None:
    """Its verdict is by what was confirmed, and guardrails are checked."""
    changes = {"confirm": {"seeds": 2, "baselines": ["uniform"]}, "objective": {"guardrails": {"code": 0.5}}}
    book = ledger(domains=NAMES, budget={"trials": 12, "per_round": 5}, **changes)
    assert expected_trials(book) == 12
    play(book)
    assert [trial.purpose for trial in book.trials.values()] == ["search"] * 8 + ["confirm"] * 4
    found = confirmation(book)
    assert found is not None and set(found.gains) == {"uniform", "prior"} and set(found.guardrails) == {"code"}
    assert found.gains["prior"].pairs == 2 and found.gains["prior"].mean == found.gains["uniform"].mean
    parts = {key: dict(book.confirmations[-1][key]) for key in ("mixtures", "predicted")}
    for part in parts.values():
        del part["prior"]
    book.note("confirm", book.confirmations[-1] | parts | {"guards": {}})  # as an earlier version recorded it
    earlier = confirmation(book)
    assert earlier is not None and set(earlier.guardrails) == {"code"}
    one, other = earlier.gains["prior"], found.gains["prior"]
    assert replace(one, predicted=other.predicted) == other
    assert vars(one.predicted) == pytest.approx(vars(other.predicted), rel=1e-9)
    apart = ledger(budget={"trials": 12, "per_round": 5}, **changes)  # here it is a mixture of its own
    play(apart)
    assert set(apart.confirmations[-1]["mixtures"]) == {"proposal", "uniform"}


def test_what_is_left_pays_for_mixtures_and_not_for_names() -> None:
    """FLOPs for two seeds of two mixtures are two seeds, however many names the second mixture has."""
    confirm = {"seeds": 2, "baselines": ["prior", "uniform"], "share": 0.25}
    changes = {"confirm": confirm, "budget": {"flops": 16 * cost(SMALL), "per_round": 5, "stop_early": False}}
    book = ledger(domains=NAMES, ladder=[SMALL._asdict()], **changes)
    play(book)
    assert book.confirmations[-1]["seeds"] == [FIRST_SEED, FIRST_SEED + 1]
    assert spent(book).flops <= 16 * cost(SMALL) * (1 + 1e-9)


def seen(*gains: float, high: float | None = None) -> Gain:
    """A gain of which one pair was seen, or several with this interval around it."""
    mean = float(np.mean(gains))
    if len(gains) == 1:
        return Gain(Interval(0.1, 0.05, 0.15), mean, None, None, None, 1, {})
    half = (high or 0.0) - mean
    return Gain(Interval(0.1, 0.05, 0.15), mean, half / 2, mean - half, mean + half, len(gains), {})


def test_a_gain_confirmed_at_the_scale_of_all_runs_is_no_word_on_one_far_beyond() -> None:
    """No run said what size does to the gain, and these do not either."""
    at, one = {"n_params": 1e6, "n_tokens": 1e8}, Interval(2.0, 1.9, 2.1)
    law = {"answer": "confirm first: far from the runs", "baseline": "prior", "reason": "no run says what size does"}
    said = Recommendation({"web": 1.0}, at, {}, one, {}, {}, {}, {"notes": []}, {}, law, {})
    for gain, answer in ((seen(0.1, 0.1, high=0.12), "confirm first"), (seen(0.1, 0.1, high=0.3), "keep the baseline")):
        confirmed = Confirmation(at, [1000], {"proposal": {"web": 1.0}}, {}, 2, 0, 0, {"prior": gain}, [])
        verdict = weighed(said, confirmed).verdict
        assert verdict["answer"].startswith(answer) and "confirmed 0.1000" in verdict["reason"]
        assert ("no run says what size does" in verdict["reason"]) == (answer == "confirm first")


def test_runs_still_to_end_are_named_beside_what_pairs_saw() -> None:
    at, one = {"n_params": 1e6, "n_tokens": 1e8}, Interval(2.0, 1.9, 2.1)
    law = {"answer": "use it", "reason": "by the law"}
    said = Recommendation({"web": 1.0}, at, {}, one, {}, {}, {}, {"notes": []}, {}, law, {})
    for gains in ({"prior": seen(-0.1)}, {"prior": seen(0.1, 0.1, high=0.12)}, {"uniform": seen(-1, -1, high=-0.5)}):
        confirmed = Confirmation(at, [1000], {"proposal": {"web": 1.0}}, {}, 2, 4, 0, gains, [])
        assert "4 of its runs are still to end" in weighed(said, confirmed).verdict["reason"]


def test_a_guardrail_that_no_mixture_keeps_at_the_target_is_not_made_good_by_a_confirmed_gain() -> None:
    at, one = {"n_params": 1e5, "n_tokens": 1e6}, Interval(2.9, 2.8, 3.0)
    law = {"answer": BROKEN, "baseline": "prior", "reason": "by the law"}
    said = Recommendation({"web": 1.0}, at, {}, one, {}, {}, {}, {"notes": []}, {}, law, {})
    gains = {"prior": seen(0.1, 0.1, high=0.12)}
    confirmed = Confirmation(at, [1000], {"proposal": {"web": 1.0}}, {}, 2, 0, 0, gains, [])
    assert weighed(said, confirmed).verdict == law


@pytest.mark.parametrize(("mean", "said"), [(0.08, "worse"), (-0.08, "better")])
def test_what_was_foreseen_of_a_guardrail_is_worse_or_better_and_never_both(mean: float, said: str) -> None:
    words = guard_words("code", Guard(0.02, mean / 2, mean, mean - 0.01, mean + 0.01))
    assert f"0.0800 {said} than at the prior (90% interval 0.0700 to 0.0900)" in words
    assert f"(0.0400 {said} was predicted at this scale)" in words and "-" not in words


@pytest.mark.parametrize(
    ("gains", "answer", "baseline", "why"),
    [
        ({"prior": seen(0.1, 0.1, high=0.12)}, "use it", None, "confirmed 0.1000"),
        ({"prior": seen(0.1, 0.1, high=0.3)}, "keep the baseline: gain within noise", "prior", "includes 0"),
        ({"prior": seen(-0.1, -0.1, high=-0.05)}, "keep the baseline: seen to be better", "prior", "is below 0"),
        (
            {"prior": seen(0.1, 0.1, high=0.12), "uniform": seen(-0.1, -0.1, high=-0.05)},
            "keep the baseline: seen to be better",
            "uniform",
            "gain over uniform",
        ),
        ({"uniform": seen(-0.1, -0.1, high=0.05)}, "use it", None, "by the law"),
        ({"prior": seen(0.1)}, "use it", None, "by the law"),
        ({"prior": seen(-0.1)}, "keep the baseline: gain within noise", "prior", "that pair saw no gain"),
    ],
)
def test_what_pairs_saw_outweighs_the_law(gains: dict[str, Gain], answer: str, baseline: str | None, why: str) -> None:
    at, one = {"n_params": 1e6, "n_tokens": 1e8}, Interval(2.0, 1.9, 2.1)
    law = {"answer": "use it", "reason": "by the law"}
    said = Recommendation({"web": 1.0}, at, {}, one, {}, {}, {}, {"notes": []}, {}, law, {})
    confirmed = Confirmation(at, [1000], {"proposal": {"web": 1.0}}, {}, 2, 0, 0, gains, [])
    verdict = weighed(said, confirmed).verdict
    assert (verdict["answer"], verdict.get("baseline")) == (answer, baseline)
    assert why in verdict["reason"]


@pytest.mark.parametrize(("rise", "baseline"), [(0.005, "uniform"), (0.08, None)])
def test_a_better_baseline_that_breaks_a_guardrail_is_not_the_one_to_keep(rise: float, baseline: str | None) -> None:
    at, one = {"n_params": 1e6, "n_tokens": 1e8}, Interval(2.0, 1.9, 2.1)
    said = Recommendation({"web": 1.0}, at, {}, one, {}, {}, {}, {"notes": []}, {}, {"answer": "use it"}, {})
    gains = {
        "prior": replace(seen(0.1, 0.1, high=0.12), by_eval={"books": 0.003}),
        "uniform": replace(seen(-0.1, -0.1, high=-0.05), by_eval={"books": 0.003 + rise}),
    }
    guard = {"books": Guard(0.01, None, -0.003, -0.004, -0.002)}
    confirmed = Confirmation(at, [1000, 1001], {"proposal": {"web": 1.0}}, {}, 6, 0, 0, gains, [], guardrails=guard)
    assert weighed(said, confirmed).verdict.get("baseline") == baseline
