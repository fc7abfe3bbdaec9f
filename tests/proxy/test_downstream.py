"""Downstream tasks of lm-evaluation-harness on our proxies; without the extra only what is refused."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from raymix.corpus import Corpus, shards
from raymix.corpus.tokenizer import Encoder, train_tokenizer
from raymix.proxy import resolve
from raymix.proxy.downstream import check_tasks, measure
from raymix.proxy.model import build
from raymix.proxy.train import train_proxy
from raymix.space import SearchSpace, SpaceError

CPU = torch.device("cpu")
CONTEXT = 16
QUESTIONS = [
    {"question": f"The {noun} of number {i}?", "choices": ["yes", f" {noun} again and again", "no"], "answer": i % 3}
    for i, noun in enumerate(["river", "cloud", "stone", "paper", "light", "tower", "glass"])
]
TASK = """
task: rivers
dataset_path: json
dataset_kwargs: {data_files: {test: FILE}}
test_split: test
output_type: multiple_choice
doc_to_text: "{{question}}"
doc_to_choice: "{{choices}}"
doc_to_target: answer
target_delimiter: " "
metric_list:
  - {metric: acc, aggregation: mean, higher_is_better: true}
  - {metric: brier_score, aggregation: brier_score, higher_is_better: false}
"""


def document() -> str:
    return " ".join(f"{item['question']} {item['choices'][0]}" for item in QUESTIONS)


@pytest.fixture
def text_corpus(tmp_path: Path) -> Corpus:
    """Domains a and b with a real tokenizer."""
    from raymix.corpus.records import Document

    encoder = train_tokenizer(300, [[Document(document(), "d")]])
    with shards.new_folder(tmp_path / "text") as folder:
        manifest: dict[str, Any] = {"train": {}, "eval": {}, "tokenizer": {"hash": "", "vocab": 300, "end_of_text": 0}}
        for kind, n in (("train", 4000), ("eval", 400)):
            for name in "ab":
                tokens = np.resize(encoder.encode([document()])[0], n).astype(np.uint16)
                entry = shards.write_tokens(folder / shards.file_name(kind, name), iter([tokens]), n, np.uint16)
                manifest[kind][name] = {**entry, "name": name, "documents": 1, "text_bytes": 3 * n}
        manifest["tokenizer"]["vocab"], manifest["tokenizer"]["end_of_text"] = encoder.vocab, encoder.end_of_text
        shards.write_manifest(folder, manifest, encoder.definition)
    return shards.open_corpus(tmp_path / "text")


@pytest.fixture
def own_tasks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder of tasks: seven questions with three answers each, from a local file."""
    harness = pytest.importorskip("raymix.proxy.harness", reason="needs the extra downstream")
    file = tmp_path / "questions.jsonl"
    file.write_text("".join(json.dumps(item) + "\n" for item in QUESTIONS))
    (tmp_path / "tasks").mkdir()
    (tmp_path / "tasks" / "rivers.yaml").write_text(TASK.replace("FILE", str(file)))
    monkeypatch.setenv(harness.TASKS, str(tmp_path / "tasks"))
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))


def space(*metrics: dict[str, Any], **recipe: Any) -> SearchSpace:
    return SearchSpace.parse(
        {
            "name": "small",
            "domains": [{"name": n, "source": {"files": "unused"}} for n in "ab"],
            "eval_domains": [{"name": n, "own": n} for n in "ab"],
            "metrics": metrics,
            "ladder": [{"n_params": 2e4, "n_tokens": 1024}],
            "target": {"n_params": 1e5, "n_tokens": 8192, "max_epochs": None},
            "recipe": {"context": CONTEXT, "batch": 4, "eval_tokens": 64, **recipe},
        }
    )


def check(wanted: SearchSpace) -> None:
    check_tasks(wanted, [resolve(wanted.recipe, 2e4, 1024, 300)])


def likelihood(model: Any, before: list[int], answer: list[int]) -> float:
    """Token by token, each after the last tokens that the context holds: one forward pass each, no batches."""
    whole, total = [*before, *answer], 0.0
    for at in range(len(before), len(whole)):
        inputs: Tensor = torch.tensor([whole[max(0, at - CONTEXT) : at]])
        total += torch.log_softmax(model(inputs).logits[0, -1].double(), -1)[whole[at]].item()
    return total


def test_likelihoods_are_those_of_the_model(text_corpus: Corpus) -> None:
    """Batched, padded and cut into pieces as one forward pass per token; an answer longer than the context too."""
    harness = pytest.importorskip("raymix.proxy.harness", reason="needs the extra downstream")
    from lm_eval.api.instance import Instance

    model: Any = build(resolve(space().recipe, 2e4, 1024, text_corpus.vocab), seed=0)
    encoder = Encoder((text_corpus.path / shards.TOKENIZER).read_text(), text_corpus.end_of_text)
    lm = harness.ProxyLM(model, encoder, CONTEXT, CPU, torch.float32)

    def asked(*pairs: tuple[str, ...]) -> list[Any]:
        return [Instance("loglikelihood", {}, pair, i) for i, pair in enumerate(pairs)]

    def ids(text: str) -> list[int]:
        return [int(token) for token in encoder.encode([text])[0][:-1]]

    pairs = [("The river of", " glass"), ("", "no"), (document(), " yes")]
    found = lm.loglikelihood(asked(*pairs))
    for (before, answer), (score, _) in zip(pairs, found, strict=True):
        start = ids(before) or [encoder.end_of_text]
        expected = likelihood(model, start[-(CONTEXT + 1 - len(ids(answer))) :], ids(answer))
        assert score == pytest.approx(expected, abs=2e-4)  # float32 against float64, a few tokens
    assert lm.loglikelihood(asked((" ", "no"))) == lm.loglikelihood(asked(("", " no")))  # the space is the answer's
    assert lm.loglikelihood(asked(("The riv", "er")))[0][0] < 0  # though "The river" has fewer tokens than "The riv"
    (whole,) = lm.loglikelihood_rolling(asked((document(),)))
    tokens = ids(document())
    assert len(tokens) > 3 * CONTEXT
    pieces = [([encoder.end_of_text, *tokens][max(0, e - CONTEXT) : s + 1], tokens[s:e]) for s, e in _windows(tokens)]
    assert whole == pytest.approx(sum(likelihood(model, before, piece) for before, piece in pieces), abs=2e-3)
    greedy_token = int(model(torch.tensor([ids("The river")])).logits[0, -1].argmax())
    assert lm._loglikelihood_tokens([(("", ""), ids("The river"), [greedy_token])])[0][1] is True
    with pytest.raises(SpaceError, match="writes no text"):
        lm.generate_until([])


def _windows(tokens: list[int]) -> list[tuple[int, int]]:
    return [(start, min(start + CONTEXT, len(tokens))) for start in range(0, len(tokens), CONTEXT)]


def test_a_trial_ends_with_its_metrics(text_corpus: Corpus, own_tasks: None) -> None:
    """Accuracy is of the likeliest answers, counted by hand, and Brier's score of all; in the last row alone."""
    wanted = space(
        {"name": "acc", "task": "rivers", "better": "high"},
        {"name": "few", "task": "rivers", "better": "high", "limit": 3},
        {"name": "brier", "task": "rivers", "measure": "brier_score"},
    )
    check(wanted)
    *earlier, last = train_proxy(text_corpus, wanted, np.array([0.5, 0.5]), 2e4, 1024, seed=0, device="cpu")
    assert len(earlier) == 2
    assert not any(key.startswith("metric/") for row in earlier for key in row)
    assert last["metric/acc"] * len(QUESTIONS) == pytest.approx(round(last["metric/acc"] * len(QUESTIONS)))
    model: Any = build(resolve(wanted.recipe, 2e4, 1024, text_corpus.vocab), seed=0)
    encoder = Encoder((text_corpus.path / shards.TOKENIZER).read_text(), text_corpus.end_of_text)
    score_QC = np.array([_scores(model, encoder, item) for item in QUESTIONS])
    truth_QC = np.eye(3)[[item["answer"] for item in QUESTIONS]]
    right_Q = score_QC.argmax(1) == truth_QC.argmax(1)
    chance_QC = np.exp(score_QC) / np.exp(score_QC).sum(1, keepdims=True)
    assert measure(wanted, text_corpus, model, CPU, torch.float32) == {
        "metric/acc": pytest.approx(right_Q.mean()),
        "metric/few": pytest.approx(right_Q[:3].mean()),
        "metric/brier": pytest.approx(((chance_QC - truth_QC) ** 2).sum(1).mean(), abs=1e-4),
    }


def _scores(model: Any, encoder: Encoder, item: dict[str, Any]) -> list[float]:
    before = encoder.encode([item["question"]])[0][:-1].tolist()
    wholes = [encoder.encode([f"{item['question']} {choice}"])[0][:-1].tolist() for choice in item["choices"]]
    answers = [whole[len(before) :] for whole in wholes]
    return [likelihood(model, before[-(CONTEXT + 1 - len(a)) :], a) for a in answers]


@pytest.mark.parametrize(
    ("metric", "recipe", "message"),
    [
        ({"name": "acc"}, {}, "name its task"),
        ({"name": "acc", "task": "arc_easy"}, {"family": "bert"}, "an encoder has not"),
    ],
)
def test_what_no_trial_could_measure_is_refused(metric: dict[str, Any], recipe: Any, message: str) -> None:
    with pytest.raises(SpaceError, match=message):
        check(space(metric, **recipe))


def test_a_missing_harness_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("raymix.proxy.downstream.find_spec", lambda name: None)
    with pytest.raises(SpaceError, match=r"pip install raymix\[downstream\]"):
        check(space({"name": "acc", "task": "arc_easy"}))


@pytest.mark.slow
def test_an_unknown_task_is_refused_before_the_first_trial(own_tasks: None) -> None:
    """Slow: the index of all tasks of the harness is read."""
    with pytest.raises(SpaceError, match="has no task 'river'"):
        check(space({"name": "acc", "task": "river"}))


def test_an_unknown_number_of_a_task_is_refused_before_the_first_trial(own_tasks: None) -> None:
    with pytest.raises(SpaceError, match="rivers measures acc, brier_score"):
        check(space({"name": "acc", "task": "rivers", "measure": "accuracy"}))
