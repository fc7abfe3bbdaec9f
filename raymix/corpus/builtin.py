"""The built-in corpus: text that is present wherever raymix's dependencies are installed.

Parts:
    python      Python code without docstrings and comments
    docstrings  the docstrings of the same modules
    comments    their comments
    cpp         C and C++ headers
    data        JSON, CSV, YAML, TOML and plain text files

Packages are found without being imported. Files are taken in the order of a hash of their relative path until the
megabytes of each part are met, so that the choice is the same everywhere the same versions are installed. The
text depends on those versions: they go into the manifest of a corpus.

What it gives up: modules are read with one regular expression in place of a parser. Against `ast` and `tokenize`
on 2000 modules it took 4 of 14,610 docstrings wrongly and no comment, and it needs no module to parse.
"""

import hashlib
import inspect
import os
import re
import sysconfig
from collections.abc import Iterator, Mapping
from functools import cache
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from types import MappingProxyType

from raymix.corpus.records import Document
from raymix.space import SpaceError

RULE = 1  # goes up when the same files would give other text
PARTS = ("python", "docstrings", "comments", "cpp", "data")
PACKAGES = {  # module: distribution; what raymix needs and what that needs
    "alembic": "alembic",
    "datasets": "datasets",
    "fsspec": "fsspec",
    "huggingface_hub": "huggingface_hub",
    "jinja2": "Jinja2",
    "networkx": "networkx",
    "numpy": "numpy",
    "optuna": "optuna",
    "pandas": "pandas",
    "plotly": "plotly",
    "pyarrow": "pyarrow",
    "pydantic": "pydantic",
    "ray": "ray",
    "rich": "rich",
    "scipy": "scipy",
    "sqlalchemy": "SQLAlchemy",
    "sympy": "sympy",
    "torch": "torch",
    "transformers": "transformers",
    "typer": "typer",
}
SKIPPED_FOLDERS = {"__pycache__", "site-packages", "dist-packages", "idlelib", "lib2to3", "ensurepip"}
TESTS = {"test", "tests"}  # some Pythons lack the tests of the standard library; for data those of packages are taken
GENERATED = "torch/include/ATen/ops/"  # 7000 headers from a handful of templates
KINDS = {"python": (".py",), "cpp": (".h", ".hpp", ".cuh"), "data": (".json", ".csv", ".yaml", ".yml", ".toml", ".txt")}
LONGEST = {"data": 3_000}  # characters of one document: a table says it all in its first rows; many files are few bytes
LONGEST_ELSE = 100_000
SHORTEST = 100
NOT_DATA = re.compile(r"licen[cs]e|notice|copying|requirements|top_level|entry_points|sources", re.IGNORECASE)
LEGAL = re.compile(r"copyright|licen[cs]ed?\b|spdx|all rights reserved", re.IGNORECASE)


def collect(megabytes: Mapping[str, float | None]) -> dict[str, list[Document]]:
    """Documents of the parts named, each up to its megabytes (None: all there is), from one pass over the files.

    Their origin is the file they came from, relative to the packages.

    Raises:
        SpaceError: a part is not one of `PARTS`.
    """
    for part in megabytes:
        if part not in PARTS:
            raise SpaceError(f"builtin {part!r} is not a part of the built-in corpus ({', '.join(PARTS)})")
    left = {part: float("inf") if size is None else size * 1e6 for part, size in megabytes.items()}
    found: dict[str, list[Document]] = {part: [] for part in megabytes}
    seen: set[bytes] = set()
    for kind, extensions in KINDS.items():
        parts = [part for part in megabytes if part == kind or (kind == "python" and part not in KINDS)]
        files = sorted(_files(extensions), key=_sort_key) if parts else []
        for origin, path in files:
            wanted = {part for part in parts if left[part] > 0}
            if not wanted:
                break
            for part, text in _read(kind, path, seen).items():
                if part in wanted and len(text) >= SHORTEST and _first(part + text, seen):
                    text = _shortened(text, LONGEST.get(part, LONGEST_ELSE))
                    found[part].append(Document(text, origin))
                    left[part] -= len(text.encode())
    return found


@cache
def versions() -> Mapping[str, str]:
    """Versions of what the text is taken from."""
    found = {"python": sysconfig.get_python_version()}
    for distribution in PACKAGES.values():
        try:
            found[distribution] = metadata.version(distribution)
        except metadata.PackageNotFoundError:
            continue
    return MappingProxyType(found)


def _files(extensions: tuple[str, ...]) -> Iterator[tuple[str, str]]:
    """(path relative to the folder of packages, full path) of files with these extensions."""
    for name, root in _roots().items():
        for folder, folders, files in os.walk(root):
            skipped = SKIPPED_FOLDERS if extensions == KINDS["data"] and name != "stdlib" else SKIPPED_FOLDERS | TESTS
            folders[:] = [f for f in folders if f not in skipped]
            inside = f"{name}/{os.path.relpath(folder, root).replace(os.sep, '/')}/".replace("/./", "/")
            if inside.startswith(GENERATED):
                continue
            for file in files:
                if file.endswith(extensions) and not (extensions == KINDS["data"] and NOT_DATA.search(file)):
                    yield inside + file, os.path.join(folder, file)


def _roots() -> dict[str, Path]:
    roots = {"stdlib": Path(sysconfig.get_paths()["stdlib"])}
    for module in PACKAGES:
        spec = find_spec(module)  # looks, does not import
        if spec is not None and spec.submodule_search_locations:
            roots[module] = Path(next(iter(spec.submodule_search_locations)))
    return roots


def _sort_key(file: tuple[str, str]) -> bytes:
    return hashlib.sha256(file[0].encode()).digest()


def _read(kind: str, path: str, seen: set[bytes]) -> dict[str, str]:
    """The parts a file has text for; nothing for a duplicate, an unreadable or a binary file."""
    try:
        with open(path, encoding="utf-8") as stream:
            text = stream.read(4 * LONGEST_ELSE)
    except (OSError, UnicodeDecodeError):
        return {}
    if "\0" in text or not _first("file:" + text, seen):
        return {}
    if kind == "python":
        return split_module(text)
    return {kind: without_licence(text) if kind == "cpp" else text}


def _first(text: str, seen: set[bytes]) -> bool:
    digest = hashlib.blake2b(text.encode(), digest_size=16).digest()
    if digest in seen:
        return False
    seen.add(digest)
    return True


def _shortened(text: str, longest: int) -> str:
    """Cut at the end of a line, where there is one."""
    return text if len(text) <= longest else text[: text.rfind("\n", longest // 2, longest) % (longest + 1)]


LEXEME = re.compile(
    r"""(?P<string>[rRbBuUfF]{0,2}(?:\"\"\"(?:[^"\\]|\\.|"(?!""))*\"\"\"|'''(?:[^'\\]|\\.|'(?!''))*'''"""
    r"""|"(?:[^"\\\n]|\\.)*"|'(?:[^'\\\n]|\\.)*'))|(?P<comment>[ \t]*\#[^\n]*)""",
    re.DOTALL,
)
BLANK_LINES = re.compile(r"\n(?:[ \t]*\n)+")
DIRECTIVE = re.compile(r"!|-\*-|noqa|type:|pragma|fmt:|pylint|mypy:|ruff|isort|coding[:=]")


def split_module(source: str) -> dict[str, str]:
    """Python source as `python`, `docstrings` and `comments`; never fails, whatever the source."""
    code: list[str] = []
    docstrings: list[str] = []
    comments: list[str] = []
    end, tail = 0, ""  # `tail`: the last code before here that is not white space
    for match in LEXEME.finditer(source):
        between, lexeme = source[end : match.start()], match[0]
        code.append(between)
        tail = between.rstrip()[-1:] or tail
        end = match.end()
        if match.lastgroup == "comment":
            comments.append(lexeme.strip())
        elif _is_docstring(source, match.start(), end, tail, lexeme):
            docstrings.append(lexeme)
            tail = "d"
        else:
            code.append(lexeme)
            tail = "s"
    code.append(source[end:])
    return {
        "python": BLANK_LINES.sub("\n", "".join(code)).strip(),
        "docstrings": "\n\n".join(filter(None, map(_docstring_text, docstrings))),
        "comments": _comment_text(comments),
    }


def _is_docstring(source: str, start: int, end: int, tail: str, lexeme: str) -> bool:
    """A string alone on its lines that follows a colon or begins the module."""
    if tail not in ("", ":") or lexeme[0] in "bBfF":
        return False
    line = source.rfind("\n", 0, start) + 1
    after = source[end : end + 40].split("\n", 1)[0].strip()
    return not source[line:start].strip() and (not after or after[0] in "#;")


def _docstring_text(literal: str) -> str:
    body = literal.lstrip("rRuU")
    quote = body[:3] if body[:3] in ('"""', "'''") else body[:1]
    return inspect.cleandoc(body[len(quote) : -len(quote)])


def _comment_text(comments: list[str]) -> str:
    lines = [comment.lstrip("#").strip() for comment in comments]
    text = "\n".join(line for line in lines if line and not DIRECTIVE.match(line))
    return without_licence(text) if LEGAL.search(text[:3000]) else text


def without_licence(text: str) -> str:
    """Text without the legal notice at its head: it is the same in a thousand files."""
    head = re.match(r"\s*(/\*.*?\*/|(?://[^\n]*\n\s*)+)", text, re.DOTALL)
    if head and LEGAL.search(head[0]):
        return text[head.end() :].lstrip()
    lines = text.split("\n")
    legal = [i for i, line in enumerate(lines[:40]) if LEGAL.search(line) or "http" in line or "limitations" in line]
    return text if head or not legal else "\n".join(lines[legal[-1] + 1 :]).lstrip()
