"""The search space: what is accepted, what is refused, and in which words."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from raymix.simplex import Polytope
from raymix.space import SearchSpace, SpaceError
from raymix.target.reading import epochs_of
from raymix.yaml12 import apply_settings, parse_yaml, write_yaml
from tests import worlds

TEXT = """
name: small
domains:
  - {name: web, available_tokens: 3e6}
  - {name: code, available_tokens: 1e6, max_share: 0.5}
  - {name: no, available_tokens: 5e4}
eval_domains: [{name: web, own: web}, {name: exams}]
ladder: [{n_params: 20e6, n_tokens: 1e9}]
target: {n_params: 7e9, n_tokens: 1e6, max_epochs: 4}
"""


def parse(*settings: str) -> SearchSpace:
    return SearchSpace.parse(apply_settings(parse_yaml(TEXT, "test"), settings))


def test_yaml_numbers_and_names_mean_what_they_say() -> None:
    space = parse()
    assert space.domain_names == ("web", "code", "no")
    assert space.ladder[0].n_params == 20e6
    assert space.domains[0].available_tokens == 3e6


@pytest.mark.parametrize(("text", "value"), [("010", 10), ("0o10", 8), ("0x10", 16), ("1:30", "1:30"), ("'08'", "08")])
def test_whole_numbers_are_as_written(text: str, value: Any) -> None:
    assert parse_yaml(text, "test") == value


@pytest.mark.parametrize("name", ["08", "1e3", "0o10", "-.5", "1:30", "no", "true", "~", "2026-01-01"])
def test_what_is_written_is_read_back(name: str) -> None:
    assert parse_yaml(write_yaml({name: [name, 1e-5, 3]}), "test") == {name: [name, 1e-5, 3]}


def test_epoch_caps_bound_shares_at_the_target() -> None:
    # 4 epochs of 5e4 tokens in 1e6 target tokens: at most 20%.
    np.testing.assert_allclose(parse().polytope().upper_K, [1.0, 0.5, 0.2])


def test_prior_is_proportional_unless_given() -> None:
    np.testing.assert_allclose(parse().prior_K(), np.asarray([3e6, 1e6, 5e4]) / 4.05e6)
    given_prior = [f"domains.{k}.prior={share}" for k, share in enumerate([2, 1, 1])]
    np.testing.assert_allclose(parse(*given_prior).prior_K(), [0.5, 0.25, 0.25])


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (["budget.trails=3"], "unknown key 'budget.trails': did you mean 'trials'?"),
        (["domains.0.max_shares=0.3"], "did you mean 'max_share'?"),
        (["targett=1"], "did you mean 'target'?"),
        (["budget.trials=many"], "budget.trials is 'many'"),
        (["domains.1.max_share=1.5"], "domains.1.max_share is 1.5"),
        (["target.n_tokens=.inf"], "target.n_tokens is inf: it must be a finite number"),
        (["objective.guardrails={web: .nan}"], "objective.guardrails.web is nan: it must be a finite number"),
        (["budget.hours=.nan"], "budget.hours is nan: it must be greater than 0"),
        (["domains.0.name=code"], "'code' is named twice"),
        (["domains.0.name="], "domains.0.name"),
        (["eval_domains.0.own=books"], "own 'books' is not a domain"),
        (["domains=[{name: web}]", "eval_domains=[{name: a}]"], "only one domain"),
        (["domains.0.max_share=0.2"], "largest allowed shares sum to 0.9"),
        (["domains.2.min_share=0.3"], "domain 'no': min_share 0.3 needs more than 4 epochs"),
        (["target.n_tokens=1e9"], "raise target.max_epochs or lower target.n_tokens"),
        (["constraints.groups=[{domains: [web, code], max: 0.1}]"], "no mixture satisfies these groups"),
        (["objective.weights={exam: 1}"], "'exam' is not an eval domain"),
        (["objective.weights={web: 0}"], "at least one weight must be above 0"),
        (["domains.0.source={files: a.txt}"], "'code' has no source"),
        (["domains.0.source={files: a.txt, builtin: python}"], "exactly one of files, dataset, builtin"),
        (["domains.0.prior=0.5"], "'code' has no prior"),
        (["ladder.7.n_params=1"], "not an item of a list of 1"),
        (
            ["ladder=[{n_params: 2e7, n_tokens: 1e9}, {n_params: 1, n_tokens: 2}, {n_params: 20e6, n_tokens: 1e9}]"],
            "n_params 2e+07 and n_tokens 1e+09 stands twice; keep one",
        ),
        (["budget"], "write it as key=value"),
        (["name=[1"], "not valid YAML"),
        (["name="], "name is empty: it must be text"),
        (["seed=3"], "unknown key 'seed': valid keys here"),
        (["recipe.family=Llama"], "recipe.family is 'Llama': it must be 'gpt2'"),
    ],
)
def test_mistakes_are_named(settings: list[str], words: str) -> None:
    with pytest.raises(SpaceError) as error:
        parse(*settings)
    assert words in str(error.value)
    assert "\n" not in str(error.value)


def test_duplicate_keys_and_missing_files_are_errors(tmp_path: Path) -> None:
    (tmp_path / "twice.yaml").write_text(TEXT + "name: again\n")
    with pytest.raises(SpaceError, match=r"twice.yaml.*'name' stands twice"):
        SearchSpace.load(tmp_path / "twice.yaml")
    with pytest.raises(SpaceError, match="there is no such file"):
        SearchSpace.load(tmp_path / "none.yaml")
    (tmp_path / "list.yaml").write_text("- 1\n")
    with pytest.raises(SpaceError, match="a search space is a mapping"):
        SearchSpace.load(tmp_path / "list.yaml")
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(SpaceError, match=r"cannot be read as text .* save it as UTF-8"):
        SearchSpace.load(tmp_path / "binary.yaml")
    (tmp_path / "tabs.yaml").write_text("name: a\ndomains:\n\t- b\n")
    with pytest.raises(SpaceError, match=r"tabs.yaml: not valid YAML: line 3: .*indent with spaces, not tabs"):
        SearchSpace.load(tmp_path / "tabs.yaml")
    with pytest.raises(SpaceError, match="this is a folder"):
        SearchSpace.load(tmp_path)


def test_hash_ignores_what_asks_for_no_new_trial() -> None:
    assert parse().hash() == parse("budget.trials=99", "objective.reduce=worst").hash()
    assert parse().hash() != parse("recipe.context=64").hash()
    assert parse().hash() == parse("recipe.precision=auto").hash() != parse("recipe.precision=float32").hash()


def test_what_stages_fix_counts_in_the_caps() -> None:
    """4 epochs of `no` are 2e5 of 1e7 tokens: half of that goes into the fixed quarter, so 1% of the rest is left."""
    fixed = "{tokens: 0.25, mixture: {web: 0.96, no: 0.04}}"
    space = parse(f"recipe.stages=[{{tokens: 0.75}}, {fixed}]", "target.n_tokens=1e7")
    assert space.polytope().upper_K[2] == pytest.approx((0.02 - 0.01) / 0.75)
    w_K = np.array([0.5, 0.5 - space.polytope().upper_K[2], space.polytope().upper_K[2]])
    assert space.seen_K(w_K).sum() == pytest.approx(1)
    assert space.seen_K(w_K)[2] * 1e7 == pytest.approx(4 * 5e4)
    assert epochs_of(space, w_K, 1e7)["no"] == pytest.approx(4)
    with pytest.raises(SpaceError, match="their fixed mixtures alone repeat 'no' 5 times at the target, more than 4"):
        parse("recipe.stages=[{tokens: 0.75}, {tokens: 0.25, mixture: {web: 0.9, no: 0.1}}]", "target.n_tokens=1e7")


def test_resolved_space_survives_a_round_trip() -> None:
    counted = {"web": 1.0, "code": 1.0, "no": 1.0}
    space = parse().with_available(counted)
    assert space.available_K.tolist() == [3e6, 1e6, 5e4]  # what the user wrote wins over what was counted
    assert SearchSpace.parse(space.plain()).hash() == space.hash()
    uncapped = parse("target.max_epochs=null")
    assert SearchSpace.parse(uncapped.plain()).target.max_epochs is None
    assert uncapped.with_available(counted).target.max_epochs is None
    endless = parse("target.max_epochs=.inf", "domains.2.available_tokens=.inf")
    again = SearchSpace.parse(parse_yaml(write_yaml(endless.plain()), "test"))
    assert again == endless and np.allclose(again.polytope().upper_K, [1, 0.5, 1])


@pytest.mark.parametrize("key", ["budget.hours", "budget.flops", "target.max_epochs", "domains.0.available_tokens"])
def test_a_limit_may_be_infinite_and_studies_that_say_so_are_read(key: str) -> None:
    space = parse(f"{key}=.inf")
    assert SearchSpace.parse(parse_yaml(write_yaml(space.plain()), "kept")) == space
    assert np.isfinite([*space.prior_K(), *space.budget.limits().values()]).all()
    assert space.polytope().contains(np.asarray([0.9, 0.1, 0.0])).all()


def test_mixtures_are_checked_at_the_edge() -> None:
    np.testing.assert_allclose(parse().mixture({"web": 0.6, "code": 0.4}), [0.6, 0.4, 0.0])
    with pytest.raises(ValueError, match="'books' is not a domain"):
        parse().mixture({"books": 1.0})


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(),
        lambda x: st.lists(x) | st.dictionaries(st.text(), x),
        max_leaves=8,
    )
)
def test_any_data_is_a_space_or_a_clear_error(raw: Any) -> None:
    base = parse_yaml(TEXT, "test")
    for key in base:
        try:
            SearchSpace.parse({**base, key: raw})
        except SpaceError as error:
            assert str(error)


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("target.n_params=7B", "target.n_params is '7B': it must be a number; write 7e+09"),
        ("domains.0.available_tokens=1.2T", "domains.0.available_tokens is '1.2T': it must be a number; write 1.2e+12"),
        ("domains.0.prior=70%", "domains.0.prior is '70%': it must be a number; write 0.7"),
        ("recipe.context=1k", "recipe.context is '1k': it must be a whole number; write 1000"),
        ("budget.trials=many", "budget.trials is 'many': it must be a whole number"),
        ("eval_domains=[3]", "eval_domains.0 is 3: it must be a mapping, {key: value, ...}"),
        (
            "ladder={n_params: 1, n_tokens: 2}",
            "ladder is {'n_params': 1, 'n_tokens': 2}: it must be a list, [..., ...]",
        ),
        ("ladder=[]", "ladder is []: it must have at least one item"),
    ],
)
def test_a_wrong_type_is_said_in_the_words_of_the_file(setting: str, words: str) -> None:
    with pytest.raises(SpaceError) as refused:
        parse(setting)
    assert str(refused.value) == words


def test_groups_that_bounds_imply_are_no_constraints_of_their_own() -> None:
    """Two constraints at one corner made the search for the optimum ten times slower."""

    def polytope(*groups: dict[str, Any]) -> Polytope:
        raw = worlds.space().model_dump(mode="json", exclude_none=True)
        raw["target"] = {"n_params": 4e6, "n_tokens": 1e6}
        raw["domains"][0]["max_share"] = 0.5
        return SearchSpace.parse(raw | {"constraints": {"groups": list(groups)}}).polytope()

    none = polytope({"domains": ["code", "books"], "max": 0.6, "min": 0.55}, {"domains": ["web"], "max": 0.8})
    assert (none.rows_GK.tolist(), none.limit_G.tolist()) == ([[0, 1, 1], [0, -1, -1]], [0.6, -0.55])
    without = polytope({"domains": ["books"], "max": 0.0})
    assert (without.upper_K.tolist(), len(without.limit_G)) == ([0.5, 1, 0], 0)
    whole = polytope({"domains": ["web"], "min": 0.5})
    assert (whole.lower_K.tolist(), len(whole.limit_G)) == ([0.5, 0, 0], 0)
    with pytest.raises(SpaceError, match="no mixture satisfies these groups"):
        polytope({"domains": ["web", "code"], "max": 0.2}, {"domains": ["code", "books"], "max": 0.2})
    for min_, max_ in ((0.6, 1.0), (0.5, 0.0), (0.5, 0.2)):
        with pytest.raises(SpaceError, match="no mixture satisfies these groups"):
            polytope({"domains": ["web"], "min": min_, "max": max_})


@given(st.integers(0, 2**32 - 1))
def test_a_mixture_is_allowed_just_where_bounds_and_groups_hold(seed: int) -> None:
    """Rows that the bounds imply are left out, and nothing else; the space is drawn around one mixture inside."""
    rng = np.random.default_rng(seed)
    inside_K, names = rng.dirichlet(np.ones(4)), ["a", "b", "c", "d"]
    low_K, high_K = inside_K * rng.uniform(0, 1, 4), np.minimum(inside_K + rng.uniform(0, 0.6, 4), 1.0)
    member_GK = rng.random((3, 4)) < 0.5
    sum_G = member_GK @ inside_K
    least_G, most_G = sum_G * rng.uniform(0.5, 1, 3), np.minimum(sum_G + rng.uniform(0, 0.4, 3), 1.0)
    groups = [
        {"domains": [name for name, chosen in zip(names, member_K, strict=True) if chosen], "min": low, "max": high}
        for member_K, low, high in zip(member_GK, least_G.tolist(), most_G.tolist(), strict=True)
    ]
    domains = [
        {"name": name, "min_share": low, "max_share": high}
        for name, low, high in zip(names, low_K.tolist(), high_K.tolist(), strict=True)
    ]
    space = SearchSpace.parse(parse_yaml(TEXT, "test") | {
        "domains": domains, "eval_domains": ["a"], "constraints": {"groups": groups}
    })  # fmt: skip
    mix_BK = inside_K + rng.random((200, 1)) * (rng.dirichlet(np.ones(4), 200) - inside_K)
    allowed_B = ((mix_BK >= low_K - 1e-9) & (mix_BK <= high_K + 1e-9)).all(axis=1)  # as `contains` has it
    sum_BG = mix_BK @ member_GK.T
    allowed_B &= ((sum_BG >= least_G - 1e-9) & (sum_BG <= most_G + 1e-9)).all(axis=1)
    assert space.polytope().contains(mix_BK).tolist() == allowed_B.tolist()


def test_bounds_may_leave_a_share_or_all_of_them_no_room() -> None:
    fixed = parse("domains.1.min_share=0.5", "domains.2.min_share=0.2").polytope()
    assert fixed.contains(np.array([[0.3, 0.5, 0.2], [0.4, 0.4, 0.2]])).tolist() == [True, False]
    alone = parse("domains.0.min_share=0.5", "domains.1.min_share=0.5").polytope()
    assert alone.contains(np.array([[0.5, 0.5, 0.0], [0.6, 0.4, 0.0]])).tolist() == [True, False]
