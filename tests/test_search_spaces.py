"""The spaces that ship: each is valid and sane, is in the table, and has a tiny twin that runs offline."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from raymix.corpus import prepare
from raymix.space import SearchSpace, Source

FOLDER = Path(__file__).parents[1] / "search_spaces"
NAMES = sorted(path.stem for path in FOLDER.glob("*.yaml"))
HUB = sorted(set(NAMES) - {"quickstart"})


def load(name: str) -> SearchSpace:
    return SearchSpace.load(FOLDER / f"{name}.yaml")


def twin(name: str) -> SearchSpace:
    return SearchSpace.load(FOLDER / "tiny" / f"{name}.yaml")


def sources(space: SearchSpace) -> list[Source]:
    given = [*(d.source for d in space.domains), *(e.source for e in space.eval_domains)]
    return [source for source in given if source is not None]


def repositories(space: SearchSpace) -> set[str]:
    """The hub repositories a space reads."""
    found = set()
    for source in sources(space):
        files = (source.files,) if isinstance(source.files, str) else source.files or ()
        found |= {"/".join(url.removeprefix("hf://datasets/").split("/")[:2]) for url in files}
        found |= {source.dataset} if source.dataset is not None else set()
    return found


def test_the_settings_that_people_compare_with_are_all_here() -> None:
    assert {"slimpajama", "pile17", "pile22", "web_code_math", "autoscale_gpt2", "autoscale_bert"} <= set(HUB)
    assert {"pile_to_python", "redpajama_to_pile", "quickstart"} <= set(NAMES)
    assert [len(load(name).domains) for name in ("slimpajama", "pile17", "pile22", "autoscale_bert")] == [7, 17, 22, 5]
    assert load("autoscale_bert").recipe.family == "bert"
    assert load("pile_to_python").recipe.init_from is not None
    assert all(eval_domain.own is None for eval_domain in load("redpajama_to_pile").eval_domains)


@pytest.mark.parametrize("name", HUB)
def test_shares_and_tokens_are_stated_and_possible(name: str) -> None:
    space = load(name)
    written = [domain.prior for domain in space.domains]
    assert all(prior is not None and prior > 0 for prior in written)
    assert sum(prior or 0 for prior in written) == pytest.approx(1, abs=2e-3)  # four decimals each
    assert all(domain.available_tokens for domain in space.domains)
    prior_K = space.prior_K()
    assert space.polytope().contains(prior_K[None, :]).all()  # within the caps on epochs at the target, and the groups


@pytest.mark.parametrize("name", HUB)
def test_ladder_leads_to_the_target(name: str) -> None:
    space = load(name)
    scales = [(rung.n_params, rung.n_tokens) for rung in space.ladder]
    assert scales == sorted(scales)
    assert len(set(scales)) == len(scales) >= 2
    assert all(n <= space.target.n_params and d < space.target.n_tokens for n, d in scales)
    assert (space.budget.trials or 0) >= 1.5 * len(space.domains)


@pytest.mark.parametrize("name", HUB)
def test_a_proxy_never_lacks_text_that_the_target_would_have(name: str) -> None:
    space = load(name)
    longest = max(rung.n_tokens for rung in space.ladder)
    for domain in space.domains:
        assert domain.source is not None
        assert domain.available_tokens is not None
        assert domain.source.max_tokens is not None
        unique = min(longest, domain.available_tokens * longest / space.target.n_tokens)
        held_out = 16 * space.recipe.eval_tokens  # what a large domain holds out, see corpus/split.py
        assert domain.source.max_tokens >= unique + held_out, domain.name


@pytest.mark.parametrize("name", NAMES)
def test_table_names_the_space_and_the_licence_of_all_it_reads(name: str) -> None:
    readme = (FOLDER / "README.md").read_text(encoding="utf-8")
    assert f"`{name}.yaml`" in readme
    for repository in repositories(load(name)):
        row = re.search(rf"^\| `{re.escape(repository)}` \|([^|]+)\|([^|]+)\|", readme, re.MULTILINE)
        assert row is not None, repository
        assert all(cell.strip() for cell in row.groups())


@pytest.mark.parametrize("name", HUB)
def test_twin_has_the_same_shape_and_needs_nothing(name: str) -> None:
    space, small = load(name), twin(name)
    assert small.domain_names == space.domain_names
    assert small.eval_names == space.eval_names
    assert [e.own for e in small.eval_domains] == [e.own for e in space.eval_domains]
    assert (small.objective, small.constraints) == (space.objective, space.constraints)
    assert len(small.ladder) == len(space.ladder)
    assert space.recipe.init_from or small.recipe.family == space.recipe.family
    assert all(source.builtin is not None for source in sources(small))
    assert max(rung.n_tokens for rung in small.ladder) < 1e5


@pytest.mark.parametrize("name", HUB)
def test_twin_is_prepared(name: str, tmp_path: Path) -> None:
    space = twin(name)
    corpus = prepare(space, tmp_path)
    context = space.recipe.context
    assert min(corpus.tokens.values()) > 10 * context
    assert min(corpus.eval_tokens.values()) > 4 * context


@pytest.mark.slow
@pytest.mark.parametrize("name", ["web_code_math", pytest.param("autoscale_bert", marks=pytest.mark.exhaustive)])
def test_twin_runs_to_a_recommendation(name: str, tmp_path: Path) -> None:
    words = [sys.executable, "-m", "raymix", "run", str(FOLDER / "tiny" / f"{name}.yaml"), "--json"]
    environment = {**os.environ, "RAYMIX_CACHE": str(tmp_path / "cache"), "RAYMIX_MALLOC": "default"}
    words += ["--study", str(tmp_path / "study"), "--set", "budget.trials=4"]
    done = subprocess.run(words, env=environment, capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stderr
    finished = json.loads(done.stdout.splitlines()[-1])
    assert set(finished["mixture"]) == set(twin(name).domain_names)
