"""A record passes a filter or does not; fields are found by dotted names."""

from typing import Any

import pytest

from raymix.corpus.records import document, field, passes
from raymix.space import Source, SpaceError

RECORD = {
    "text": "one",
    "language": "en",
    "score": 3,
    "clean": True,
    "labels": ["math", "code"],
    "meta": {"set": "ArXiv", "deep": {"year": 2021}},
    "packed": '{"set": "Books", "n": 1}',
    "a.b": "dotted",
}


def conditions(**where: Any) -> dict[str, Any]:
    return Source.model_validate({"files": "x", "where": where}).where


@pytest.mark.parametrize(
    ("where", "holds"),
    [
        ({"language": "en"}, True),
        ({"language": "de"}, False),
        ({"language": ["de", "en"]}, True),
        ({"score": {"min": 3}}, True),
        ({"score": {"min": 3.5}}, False),
        ({"score": {"min": 1, "max": 2}}, False),
        ({"score": 3}, True),
        ({"score": "3"}, False),  # text is not a number
        ({"clean": True}, True),
        ({"clean": 1}, False),  # nor is a number a truth value
        ({"clean": {"min": 0}}, False),
        ({"labels": "code"}, True),
        ({"labels": ["law", "art"]}, False),
        ({"meta.set": "ArXiv", "meta.deep.year": {"max": 2021}}, True),
        ({"packed.set": "Books"}, True),
        ({"absent": "x"}, False),
        ({"language": "en", "score": {"max": 2}}, False),
        ({}, True),
    ],
)
def test_filter_keeps_what_meets_every_condition(where: dict[str, Any], holds: bool) -> None:
    assert passes(RECORD, conditions(**where)) is holds


def test_a_field_with_a_dot_in_its_name_comes_first() -> None:
    assert field(RECORD, "a.b") == "dotted"


def test_text_and_origin_come_from_the_named_fields() -> None:
    source = Source(files="x", text="meta.set", origin="language")
    assert document(RECORD, source, "here") == ("ArXiv", "en")
    with pytest.raises(SpaceError, match=r"here.*no field 'url'.*`origin`"):
        document(RECORD, Source(files="x", origin="url"), "here")


def test_what_lies_inside_null_is_null() -> None:
    assert document({"doc": None}, Source(files="x", text="doc.body"), "here") is None
    assert document({"text": "one", "meta": None}, Source(files="x", origin="meta.url"), "here") == ("one", "one")
    with pytest.raises(SpaceError, match="no field"):
        document({"doc": "{broken"}, Source(files="x", text="doc.body"), "here")


def test_a_key_that_would_do_nothing_is_refused() -> None:
    for key in ({"config": "x"}, {"dtype": "uint16"}, {"revision": "main"}, {"tokenizer": "gpt2"}):
        with pytest.raises(ValueError, match=f"{next(iter(key))} belongs to a source of"):
            Source.model_validate({"files": "a.jsonl", **key})
    with pytest.raises(ValueError, match="where belongs to a source of"):
        Source.model_validate({"builtin": "python", "where": {"a": 1}})


def test_credentials_in_a_url_are_refused_unseen() -> None:
    with pytest.raises(ValueError, match="no user or password") as caught:
        Source(files="s3://me:hunter2@bucket/a.jsonl")
    assert "hunter2" not in str(caught.value).split("input_value")[0]
