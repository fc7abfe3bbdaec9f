"""Numbers by name from a small file: weights or losses of eval domains, shares or tokens at hand of training domains.

A mapping (.json, .yaml, .yml), or a table (.csv, .tsv, .parquet): the names in its first column, the numbers in the
only column that holds some, or the only one whose name ends in `weight`, `loss` or `tokens`. A mixture also stands in

    {mixture: {web: .7, ...}, ...}                 recommendation.json
    {shares_of_tokens: {web: .7, ...}, ...}        mixture.json of an export
    {train: {train_web: .7, ...}, ...}             RegMix, TinyLlama; names as its importer has them
    {train_domain_weights: {web: .7, ...}, ...}    DoReMi
    [{domain: web, weight: .7}, ...]               Olmix
    {priors: {relative_sizes: {web: .7, ...}}}     Olmix, a configuration

weights of eval domains in {weights: {web: .7, ...}}, the objective of a space that says no more, and tokens in the
{priors: {token_counts: {web: 1_000, ...}}} of a configuration of Olmix: a mixture too, where it has no relative sizes.
"""

import json
import math
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from raymix.formats.regmix import SHARE
from raymix.formats.rows import row_of_id
from raymix.sheet import as_number, existing, is_number, is_table, listed, read_sheet, read_text
from raymix.yaml12 import parse_yaml

WRAPPED = ("mixture", "shares_of_tokens", "train", "train_domain_weights")
OF_A_SPACE = ("reduce", "guardrails", "pull")  # in its objective, beside weights
THOUSANDS = re.compile(r"[0-9]{1,3}(_[0-9]{3})+")


def read_weights(path: str | Path) -> dict[str, float]:
    """Weight per eval domain, at least 0, as written (not normalised).

    Raises:
        ValueError: a name stands twice, a weight is negative or not a number, all are 0, the columns are unclear.
    """
    return _weights(path, _objective)


def read_mixture(path: str | Path) -> dict[str, float]:
    """Weight per training domain, at least 0, as written (not normalised), of the file of a mixture.

    Raises:
        ValueError: as `read_weights`.
    """
    return _weights(path, _mixture)


def read_available(path: str | Path) -> dict[str, float]:
    """Unique tokens at hand per training domain, above 0.

    Raises:
        ValueError: a name stands twice, a number is missing or not above 0, the columns are unclear.
    """
    available = _read(existing(path), "tokens", _token_counts)
    for key, tokens in available.items():
        if not (math.isfinite(tokens) and tokens > 0):
            remedy = "leave out a domain that nobody counted; of one with nothing left cap the share at 0 instead"
            raise ValueError(f"{path}: the tokens of {key!r} are {tokens:g}: they must be a number above 0; {remedy}")
    return available


def read_losses(path: str | Path) -> dict[str, float]:
    """Loss per eval domain, nats per token, above 0.

    Raises:
        ValueError: a name stands twice, a loss is missing or not above 0, the columns are unclear.
    """
    losses = _read(existing(path), "loss", lambda raw: raw)
    for key, loss in losses.items():
        if not (math.isfinite(loss) and loss > 0):
            remedy = "leave out an eval domain that nobody measured"
            raise ValueError(f"{path}: the loss of {key!r} is {loss:g}: it must be a number above 0; {remedy}")
    return losses


def _weights(path: str | Path, within: Callable[[Any], Any]) -> dict[str, float]:
    weights = _read(existing(path), "weight", within)
    for key, weight in weights.items():
        if not (math.isfinite(weight) and weight >= 0):
            raise ValueError(f"{path}: the weight of {key!r} is {weight}: it must be a number of at least 0")
    if not any(weights.values()):
        raise ValueError(f"{path}: all weights are 0; at least one must be above")
    return weights


def _read(path: Path, word: str, within: Callable[[Any], Any]) -> dict[str, float]:
    """The numbers of a table, or of the mapping `within` what is no table."""
    if is_table(path):
        return _columns(path, word)
    if path.suffix not in (".json", ".yaml", ".yml"):
        raise ValueError(f"{path}: names and numbers come as .csv, .tsv, .parquet, .json, .yaml or .yml")
    raw = _parsed(path)
    try:
        raw = within(raw)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    if not isinstance(raw, Mapping) or not raw:
        raise ValueError(f"{path}: it must be a mapping of names to numbers")
    return {str(key): _plain_number(path, key, number) for key, number in raw.items()}


def _objective(raw: Any) -> Any:
    """The weights of a space's objective; anything else as it is. ValueError where it asks for more than weights."""
    if not isinstance(raw, Mapping):
        return raw
    whole = isinstance(raw.get("weights"), Mapping)
    asked = [key for key in OF_A_SPACE if key in raw]
    if asked and (whole or isinstance(raw[asked[0]], str | Mapping)):
        remedy = "from: [{table: FILE}]; raymix ask DIR --space SPACE.yaml, then raymix report DIR"
        option = "; raymix optimize has --pull" if "pull" in asked else ""
        raise ValueError(f"weights alone are read here, and no {listed(asked)}: that is for a space, which takes runs "
                         f"by {remedy}{option}")  # fmt: skip
    return raw["weights"] if whole else raw


def _token_counts(raw: Any) -> Any:
    """Those in a configuration of Olmix; anything else as it is."""
    priors = raw.get("priors") if isinstance(raw, Mapping) else None
    return priors["token_counts"] if isinstance(priors, Mapping) and "token_counts" in priors else raw


def _mixture(raw: Any) -> Any:
    """The mapping within what other tools write; anything else as it is."""
    if isinstance(raw, list) and raw and all(isinstance(item, Mapping) and len(item) == 2 for item in raw):
        names = [str(item.get("domain", "")) for item in raw]
        once = all(names) and len(set(names)) == len(names)
        return {name: item.get("weight") for name, item in zip(names, raw, strict=True)} if once else raw
    if not isinstance(raw, Mapping):
        return raw
    if isinstance(priors := raw.get("priors"), Mapping) and priors.get("relative_sizes"):
        return priors["relative_sizes"]
    key = next((key for key in WRAPPED if isinstance(raw.get(key), Mapping)), None)
    if key != "train":
        return _token_counts(raw) if key is None else raw[key]
    return {found[1] if (found := SHARE.fullmatch(str(name))) else name: share for name, share in raw[key].items()}


def _columns(path: Path, word: str) -> dict[str, float]:
    sheet = read_sheet(path)
    name = sheet.names[0]
    others = [column for column in sheet.names if column != name]
    if any(is_number(column) for column in sheet.names):
        raise ValueError(f"{path}: the first line ({listed(sheet.names)}) is no header, and would be lost: put one "
                         f"above it, such as name,{word}")  # fmt: skip
    numeric = [column for column in others if sheet.is_numeric(column)]
    ending = [column for column in numeric if column.endswith(word)]
    fitting = numeric if len(numeric) == 1 else ending
    if not others:
        raise ValueError(f"{path}: there is no column of numbers beside {name!r}")
    if not numeric and len(others) == 1:
        fitting = others  # what is wrong with its first cell is the answer
    if len(fitting) != 1:
        which = f"Let the name of one end in {word!r} (there are: {listed(others)})"
        raise ValueError(f"{path}: which column holds the {word}? {which}")
    return {key: sheet.number(row, fitting[0]) for key, row in row_of_id(sheet, name).items()}


def _parsed(path: Path) -> Any:
    text = read_text(path)
    if path.suffix != ".json":
        return parse_yaml(text, str(path))
    try:
        return json.loads(text, object_pairs_hook=lambda pairs: _once(path, pairs))
    except json.JSONDecodeError as error:
        raise ValueError(f"{path}: not valid JSON: {error}") from None


def _once(path: Path, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    names = [name for name, _ in pairs]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(f"{path}: the name {twice[0]!r} stands twice; keep one")
    return dict(pairs)


def _plain_number(path: Path, key: Any, number: Any) -> float:
    if isinstance(number, Mapping | list):
        raise ValueError(f"{path}: {key} holds no number: it must be a mapping of names to numbers")
    if isinstance(number, str) and THOUSANDS.fullmatch(number):
        return float(number.replace("_", ""))
    try:
        return as_number(number)
    except ValueError as error:
        raise ValueError(f"{path}: {key}: {error}") from None
