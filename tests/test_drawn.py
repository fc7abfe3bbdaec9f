"""What was really trained on: tokens drawn that miss the proposal, and changes of a space, in words."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from raymix import Study
from raymix.cli import app
from raymix.space import SearchSpace, SpaceError
from tests import worlds
from tests.test_study import train

UNIFORM = dict.fromkeys(worlds.DOMAINS, 1e5)


def test_a_law_sees_the_mixture_that_was_drawn(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A trainer that draws other shares than proposed must not teach the law that those proposed gave its losses."""
    study = Study.create(worlds.space(), tmp_path / "s")
    prior, *_, other = study.ask(4)
    study.tell(prior.trial_id, train(prior), tokens_seen={n: 5e5 * s + 100 for n, s in prior.mixture.items()})
    assert not caplog.records, "rounding is no other mixture"
    study.tell(other.trial_id, train(other), n_tokens=3e5, tokens_seen=UNIFORM)
    assert "its mixture counts as drawn" in caplog.text
    table = Study.open(tmp_path / "s").table()
    assert table.mix_BK[0].tolist() == list(prior.mixture.values())
    assert table.mix_BK[1] == pytest.approx(np.full(3, 1 / 3))
    assert len(study.ask(4)) == 4


def test_tokens_drawn_say_the_length_where_nobody_else_does(tmp_path: Path) -> None:
    study = Study.create(worlds.space(), tmp_path / "s")
    one, two, three = study.ask(3)
    study.tell(one.trial_id, train(one), tokens_seen=UNIFORM)
    study.tell(two.trial_id, train(two), tokens_seen={"web": 1e5})
    study.tell(three.trial_id, train(three), n_tokens=5e5, tokens_seen=UNIFORM)
    assert study.table().scale_B2[:, 1].tolist() == [3e5, 5e5, 5e5], "of some domains alone it is not known"
    assert study.table().mix_BK[2].tolist() == list(three.mixture.values()), "nor where they do not sum to it"


@pytest.mark.parametrize(
    ("told", "words"),
    [
        ({"tokens_seen": {"wiki": 1e5}}, "tokens/wiki is not a domain of this study"),
        ({"tokens_seen": 3e5}, "tokens_seen is 300000.0, it must be tokens by domain"),
    ],
)
def test_tokens_of_no_domain_are_refused(tmp_path: Path, told: dict[str, Any], words: str) -> None:
    study = Study.create(worlds.space(), tmp_path / "s")
    (trial,) = study.ask(1)
    with pytest.raises(ValueError, match=words):
        study.tell(trial.trial_id, train(trial), **told)
    row = {"trial_id": trial.trial_id, **{f"loss/{name}": loss for name, loss in train(trial).items()}}
    with pytest.raises(ValueError, match="row 1: mixture/wiki is not a domain of this study"):
        study.tell_rows([row | {"mixture/wiki": 0.5}])
    assert not len(study.table())


def test_what_changed_of_a_space_is_named_by_domain(tmp_path: Path) -> None:
    Study.create(worlds.space(), tmp_path / "s")
    raw = worlds.space().model_dump(mode="json", exclude_none=True)

    def refused(**changes: Any) -> str:
        with pytest.raises(SpaceError) as caught:
            Study.resume(SearchSpace.parse(raw | changes), tmp_path / "s")
        return str(caught.value)

    domains = raw["domains"]
    wiki = {"name": "wiki", "available_tokens": 1e6}
    assert "(domains: with 'wiki')" in refused(domains=[*domains, wiki], budget={"trials": 99})
    less = refused(domains=[domains[0], wiki, domains[2]], eval_domains=[{"name": "web"}])
    assert "domains: without 'code'; domains: with 'wiki'; eval_domains: without 'code', 'books'" in less
    assert "(domains: in another order)" in refused(domains=domains[::-1])
    smaller = [domains[0] | {"max_share": 0.5}, *domains[1:]]
    assert "(domains.web.max_share: 1.0 -> 0.5)" in refused(domains=smaller)


def test_ask_with_another_space_is_wrong_usage(tmp_path: Path) -> None:
    Study.create(worlds.space(), tmp_path / "s")
    other = tmp_path / "space.yaml"
    other.write_text("name: x\ndomains: [a, b]\neval_domains: [a]\ntarget: {n_params: 1e9, n_tokens: 1e10}\n")
    asked = CliRunner().invoke(app, ["ask", str(tmp_path / "s"), "--space", str(other)], standalone_mode=False)
    assert isinstance(asked.exception, SpaceError)
    assert "without 'web', 'code', 'books'" in str(asked.exception)
