"""The built-in corpus: parts taken apart exactly, the same choice every time."""

import ast
import io
import sys
import tokenize

import pytest

from raymix.corpus import builtin
from raymix.space import SpaceError

MODULE = '''#!/usr/bin/env python
# Copyright 2020 Somebody. All rights reserved.
# Licensed under nothing.

# What this module is for.
"""Module docstring
over two lines."""
import os  # noqa: F401
MARK = "# not a comment"


class Thing:
    r"""About the thing."""

    names = {"a": 1,  # trailing remark
             "b": """not a docstring"""}

    def method(self) -> str:
        \'\'\'Says 'it'.\'\'\'
        return f"{self!r} # neither"
'''


def test_module_is_taken_apart() -> None:
    parts = builtin.split_module(MODULE)
    assert parts["docstrings"] == "Module docstring\nover two lines.\n\nAbout the thing.\n\nSays 'it'."
    assert parts["comments"] == "What this module is for.\ntrailing remark"
    assert "docstring\nover" not in parts["python"]
    for kept in ('MARK = "# not a comment"', '"""not a docstring"""', 'return f"{self!r} # neither"'):
        assert kept in parts["python"]


@pytest.mark.parametrize("source", ["", "'''", '"unclosed\n# c', "def f(:\n  '''d'''", "\\", 'x = """a\n# b'])
def test_unparsable_source_does_no_harm(source: str) -> None:
    assert set(builtin.split_module(source)) == {"python", "docstrings", "comments"}


@pytest.mark.parametrize("module", [ast, tokenize, pytest])
def test_agrees_with_the_parser(module: object) -> None:
    with open(module.__file__, encoding="utf-8") as stream:  # type: ignore[attr-defined]
        source = stream.read()
    tree = ast.parse(source)
    kinds = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    docstrings = [ast.get_docstring(node) for node in ast.walk(tree) if isinstance(node, kinds)]
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    comments = [token.string for token in tokens if token.type == tokenize.COMMENT]
    found = [match[0].strip() for match in builtin.LEXEME.finditer(source) if match.lastgroup == "comment"]
    assert found == comments
    text = builtin.split_module(source)["docstrings"]
    assert all("\\" in docstring or docstring in text for docstring in docstrings if docstring)


def test_choice_is_the_same_whatever_else_is_asked_for_and_nothing_is_imported() -> None:
    before = {name for name in ("torch", "ray", "transformers") if name in sys.modules}
    alone = builtin.collect({"comments": 0.05})["comments"]
    together = builtin.collect({"python": 0.1, "comments": 0.05, "docstrings": 0.02})
    assert together["comments"] == alone
    assert 0.05e6 <= sum(len(text.text.encode()) for text in alone) < 0.05e6 + builtin.LONGEST_ELSE
    assert {name for name in ("torch", "ray", "transformers") if name in sys.modules} == before


def test_parts_of_one_module_share_their_origin() -> None:
    found = builtin.collect({"python": 0.3, "docstrings": 0.1})
    assert {text.origin for text in found["python"]} & {text.origin for text in found["docstrings"]}


def test_no_document_stands_twice() -> None:
    texts = [text.text for text in builtin.collect({"cpp": 0.5})["cpp"]]
    assert len(texts) == len(set(texts)) > 1


def test_an_unknown_part_is_refused_with_those_there_are() -> None:
    with pytest.raises(SpaceError, match=r"'pyton'.*python, docstrings"):
        builtin.collect({"pyton": None})
