"""A mixture on its way to a trainer: shares of tokens, where each domain lies, and what a row of it holds.

Shares are exact; what a file holds is rounded to millionths by the largest remainder, so that it still sums to 1.
"""

import json
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from raymix.sheet import existing, read_text

DIGITS = 6
SUMMARY = "mixture.json"


class ExportError(ValueError):
    """A trainer's format cannot express this mixture, or something it needs to know is missing."""


@dataclass(frozen=True)
class Blend:
    """What every exporter gets.

    Shares are shares of tokens at a target of `n_tokens`; `epochs` counts passes over a domain's available tokens
    there (missing: not known).
    """

    shares: Mapping[str, float]
    n_params: float
    n_tokens: float
    epochs: Mapping[str, float] = field(default_factory=dict)
    paths: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Where a domain lies, in the trainer's own terms (prefixes, folders, dataset names); its name if missing."""
    tokens_per_row: Mapping[str, float] = field(default_factory=dict)
    """Mean tokens per row or document; only trainers that draw rows need it."""
    packed: bool = False
    """Every row is one packed sequence: rows and tokens are then the same share."""
    tokenizer: str = "not stated"
    seed: int = 0
    verdict: Mapping[str, str] = field(default_factory=dict)
    """What the study said of this mixture: `answer` and `reason`."""
    notes: Sequence[str] = ()
    """What else somebody who trains with it should know."""

    @property
    def kept(self) -> dict[str, float]:
        """Rounded shares of tokens that are not zero, summing to 1."""
        return rounded(self.shares)

    @property
    def dropped(self) -> list[str]:
        """Domains that get nothing: their share is zero, or below half a millionth."""
        return [name for name in self.shares if name not in self.kept]

    def path(self, name: str) -> str:
        """The only path of a domain.

        Raises:
            ExportError: it has several, and this trainer takes one.
        """
        paths = self.paths_of(name)
        if len(paths) > 1:
            raise ExportError(
                f"{name}: this trainer takes one path per domain, {len(paths)} are given; merge them first"
            )
        return paths[0]

    def paths_of(self, name: str) -> tuple[str, ...]:
        """All paths of a domain."""
        return self.paths.get(name, (name,))

    def row_shares(self) -> dict[str, float]:
        """Shares of rows that give these shares of tokens: p_k ~ w_k / (mean tokens per row of k).

        Raises:
            ExportError: the mean length of a row is not known.
        """
        if self.packed:
            return self.kept
        missing = [name for name in self.kept if name not in self.tokens_per_row]
        if missing:
            raise ExportError(
                f"this trainer draws rows, not tokens, and the mean tokens per row of {missing[0]!r} are not known: "
                "give them (--tokens-per-row FILE), or say that every row is one packed sequence (--packed)"
            )
        return rounded({name: share / self.tokens_per_row[name] for name, share in self.kept.items()})

    def tokens_from_rows(self, rows: Mapping[str, float]) -> dict[str, float]:
        """The other way: shares of tokens that these shares of rows give."""
        if self.packed:
            return dict(rows)
        tokens = {name: share * self.tokens_per_row[name] for name, share in rows.items()}
        return {name: value / sum(tokens.values()) for name, value in tokens.items()}


def rounded(shares: Mapping[str, float]) -> dict[str, float]:
    """Shares normalised, in millionths by the largest remainder; zeros left out."""
    total = sum(shares.values())
    units = {name: share / total * 10**DIGITS for name, share in shares.items()}
    whole = {name: math.floor(unit) for name, unit in units.items()}
    order = sorted(units, key=lambda name: whole[name] - units[name])
    for name in order[: 10**DIGITS - sum(whole.values())]:
        whole[name] += 1
    return {name: count / 10**DIGITS for name, count in whole.items() if count}


def blend_of(recommendation: Mapping[str, Any], **details: Any) -> Blend:
    """From recommendation.json.

    Raises:
        ExportError: it has no mixture, or the details name a domain it does not have.
    """
    if not recommendation.get("mixture") or not recommendation.get("scale"):
        raise ExportError("this is not a recommendation: it has no mixture and scale")
    epochs = {name: value for name, value in recommendation.get("epochs", {}).items() if value is not None}
    shares = recommendation["mixture"]
    for what in ("paths", "tokens_per_row"):
        unknown = [name for name in details.get(what) or {} if name not in shares]
        if unknown:
            raise ExportError(f"{what}: {unknown[0]!r} is not a domain of this mixture ({', '.join(shares)})")
    scale = recommendation["scale"]
    verdict = recommendation.get("verdict") or {}
    return Blend(shares, float(scale["n_params"]), float(scale["n_tokens"]), epochs, verdict=verdict, **details)


def read_paths(path: str | Path) -> dict[str, tuple[str, ...]]:
    """Where each domain lies, from a JSON file: a path, or a list of paths, by domain.

    Raises:
        ExportError: no such file, or something else is in it.
    """
    path = existing(path)
    try:
        found = json.loads(read_text(path))
    except json.JSONDecodeError as error:
        raise ExportError(f"{path}: not valid JSON: {error}") from None
    if not isinstance(found, dict):
        raise ExportError(f"{path}: it must be a mapping of domains to paths")
    paths = {name: [value] if isinstance(value, str) else value for name, value in found.items()}
    for name, value in paths.items():
        if not (isinstance(value, list) and value and all(isinstance(part, str) and part for part in value)):
            raise ExportError(f"{path}: of {name!r} it says {found[name]!r}: it must be a path or a list of paths")
    return {name: tuple(value) for name, value in paths.items()}


def summary(blend: Blend, target: str, unit: str, trap: str) -> str:
    """The sidecar of every export: what the numbers mean, and what was left out or rounded."""
    about = {
        "target": target,
        "unit": unit,
        "beware": trap,
        "shares_of_tokens": dict(blend.shares),
        "scale": {"n_params": blend.n_params, "n_tokens": blend.n_tokens},
        "epochs_at_scale": {name: blend.epochs.get(name) for name in blend.shares},
        "dropped": blend.dropped,
        "rounding": f"largest remainder, {DIGITS} digits",
        "tokenizer": blend.tokenizer,
        "tokens_per_row": dict(blend.tokens_per_row) or None,
        "verdict": dict(blend.verdict) or None,
        "notes": list(blend.notes),
    }
    return as_json(about)


def as_json(value: Any) -> str:
    """JSON for people to read."""
    return json.dumps(value, indent=2, ensure_ascii=False) + "\n"


def as_yaml(config: Any, unit: str) -> str:
    """YAML below a comment that says what its weights count."""
    return f"# {unit}\n" + yaml.safe_dump(config, sort_keys=False, allow_unicode=True)


def write_files(folder: Path, files: Mapping[str, str]) -> None:
    """Write what an exporter returned; refuses to replace a file.

    Raises:
        ExportError: a file is there already, or where a folder should be.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        raise ExportError(f"{folder}: there is a file, no folder: name another with -o") from None
    except OSError as error:
        raise _unwritable(folder, error) from None
    for name in files:
        if (folder / name).exists():
            raise ExportError(f"{folder / name} is there already: choose another folder with -o, or remove it")
    try:
        for name, text in files.items():
            (folder / name).write_text(text, encoding="utf-8")
    except OSError as error:
        raise _unwritable(folder, error) from None


def _unwritable(folder: Path, error: OSError) -> ExportError:
    why = os.strerror(error.errno) if error.errno else str(error)
    return ExportError(f"{folder}: cannot be written ({why}); name another folder with -o")
