"""LAW.json: a fitted law with the names it goes by and what it rests on.

    law, settings, learned, ...    the law itself, as its `to_json` says
    domains, eval_domains          names, in the order of its arrays
    format, raymix                 version of this form, and of the program that wrote it
    weights, trained, choice       of the objective; sizes, tokens and runs seen; how the law was chosen
    reach                          how far the mixtures of the runs reach, and how sure the law is beyond them
    elsewhere                      the law to read at other scales than the runs', where `law` is for theirs alone
    not_here                       of a study: what its space asks of a mixture beside the weights, by key
    minimised                      of every metric among the eval domains what was minimised in its place

Only the first two groups are needed. Plain JSON, never pickle: reading a file from anywhere runs no code from it.
"""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from raymix import __version__
from raymix.laws import Law, law_from_json
from raymix.laws.base import Array, Flags
from raymix.laws.intervals import outside
from raymix.laws.reach import ROUNDING, Reach, above_most
from raymix.laws.rows import SAME_SCALE, distinct, mixture_numbers
from raymix.observations import Observations
from raymix.sheet import absent, listed
from raymix.space import Scale

FORMAT = 1
NUMBERED = "eval domain "  # begins a note of a law on one of them
SOME = 3  # eval domains that a note names
SPARE, FEW = 3, 12  # mixtures beyond the domains, and enough of any, for intervals to hold (LOG.md, "Too few mixtures")
ANY_SCALE = (1e8, 1e9)  # where a law is tried that does not say what it was trained on


@dataclass(frozen=True)
class Trained:
    """The runs behind a law."""

    n_params: tuple[float, ...]
    """Sizes, ascending; sizes within 1% are one."""
    n_tokens: tuple[float, float]
    """Fewest and most at which losses were read."""
    mixtures: int
    runs: int
    rows: int
    shares: tuple[tuple[float, float], ...]
    """Least and largest share of every domain."""

    @classmethod
    def on(cls, usable: Observations) -> "Trained":
        """Of the rows a law was fitted to."""
        size_B, tokens_B = usable.scale_B2.T
        return cls(
            tuple(float(f"{size:.6g}") for size in distinct(size_B)),
            (float(tokens_B.min()), float(tokens_B.max())),
            int(mixture_numbers(usable.mix_BK).max()) + 1,
            len(np.unique(usable.model_B)),
            len(usable),
            tuple(zip(usable.mix_BK.min(axis=0).tolist(), usable.mix_BK.max(axis=0).tolist(), strict=True)),
        )

    def beyond(self, mix_BK: Array) -> Array:
        """How much of each mixture (B,) is share of a domain beyond the largest that any run had."""
        return above_most(mix_BK, self.most_K)

    @property
    def most_K(self) -> Array:
        """Largest share of every domain."""
        return np.array([high for _, high in self.shares])


@dataclass(frozen=True)
class LawFile:
    """What LAW.json holds."""

    law: Law
    domains: tuple[str, ...]
    eval_domains: tuple[str, ...]
    weights_M: Array
    """Of the objective, sum 1."""
    trained: Trained | None = None
    choice: dict[str, Any] = field(default_factory=dict)
    """`name`, `why` and `scores` (see `scores.LawScore`); empty where nobody chose."""
    elsewhere: Law | None = None
    """Read in place of `law` at scales outside those of the runs (see `choose.Choice`)."""
    reach: Reach | None = None
    """None where nobody measured it."""
    not_here: tuple[str, ...] = ()
    """Keys of a study's space that its recommendation counts, and that nobody can read from this file."""
    minimised: Mapping[str, str] = field(default_factory=dict)
    """`1 - arc` by `arc`: eval domains whose numbers are no losses in nats."""

    @property
    def notes(self) -> list[str]:
        """What the law says of its fit, eval domains by name: a law knows them by number, and says the same of many."""
        names: dict[str, list[str]] = {}
        for note in self.law.notes_:
            number, _, what = note.removeprefix(NUMBERED).partition(": ")
            if note.startswith(NUMBERED) and number.isdigit() and int(number) < len(self.eval_domains):
                names.setdefault(what, []).append(self.eval_domains[int(number)])
            else:
                names.setdefault(note, [])
        said = [f"{_those(given)}: {what}" if given else what for what, given in names.items()]
        return said + self._few_mixtures() + self._never_varied()

    @property
    def _mixtures(self) -> int:
        """How many the law was fitted to; 0 where it reads none, or nobody knows."""
        if self.trained is None or "mixture" not in getattr(self.law, "reads", "mixture"):
            return 0
        return self.trained.mixtures

    def _few_mixtures(self) -> list[str]:
        """Of intervals where so few mixtures calibrate them: on truths of four other forms they were too narrow."""
        if not 1 < self._mixtures < min(len(self.domains) + SPARE, FEW):
            return []
        return [f"{self._mixtures} mixtures of {len(self.domains)} domains: intervals of so few hold less often "
                "than 90%"]  # fmt: skip

    def _never_varied(self) -> list[str]:
        """Of domains of which every run had one share: no run says what another would do."""
        if self.trained is None or self._mixtures < 2:
            return []
        shares = zip(self.domains, self.trained.shares, strict=True)
        one = [f"{name} ({high:.3g})" for name, (low, high) in shares if high - low <= ROUNDING]
        return [f"all runs have one share of {listed(one)}: the effect of another is prior only"] if one else []

    def outside(self, scale_B2: Array) -> Flags:
        """Which rows (B,) have another size or other tokens than any run, but for rounding."""
        if self.trained is None:
            return np.zeros(len(scale_B2), dtype=np.bool_)
        seen_22 = np.array([[self.trained.n_params[0], self.trained.n_tokens[0]],
                            [self.trained.n_params[-1], self.trained.n_tokens[1]]])  # fmt: skip
        return outside(scale_B2, seen_22 * np.array([[1 - SAME_SCALE], [1 + SAME_SCALE]]))

    def widening(self, mix_BK: Array) -> Array:
        """The factor (B,) of an sd: that of `reach` outside the mixtures of the runs, else 1."""
        if self.reach is None or self.trained is None:
            return np.ones(len(mix_BK))
        return np.where(self.reach.beyond(mix_BK, self.trained.most_K), self.reach.widen, 1.0)

    def at(self, scale: Scale) -> "LawFile":
        """The same with the law that is read at this scale, and why it is."""
        if self.elsewhere is None or not self.outside(np.array([scale], dtype=np.float64))[0]:
            return self
        why = (
            f"{self.elsewhere.name} is read beyond the scale of the runs: {self.law.name} was chosen for that one alone"
        )
        return replace(self, law=self.elsewhere, elsewhere=None, choice={**self.choice, "why": why})


def _those(names: Sequence[str]) -> str:
    """Eval domains in a sentence."""
    if len(names) > SOME:
        return f"{len(names)} eval domains ({', '.join(names[:SOME])}, ...)"
    return f"eval domain{'s' if len(names) > 1 else ''} {', '.join(names)}"


def law_json(found: LawFile) -> dict[str, Any]:
    """What LAW.json holds, as plain values."""
    extra = {
        "format": FORMAT,
        "raymix": __version__,
        "domains": list(found.domains),
        "eval_domains": list(found.eval_domains),
        "weights": dict(zip(found.eval_domains, found.weights_M.tolist(), strict=True)),
        "trained": None if found.trained is None else asdict(found.trained),
        "choice": found.choice,
    }
    if found.elsewhere is not None:
        extra["elsewhere"] = found.elsewhere.to_json()
    if found.reach is not None:
        extra["reach"] = found.reach.to_json()
    if found.not_here:
        extra["not_here"] = list(found.not_here)
    if found.minimised:
        extra["minimised"] = dict(found.minimised)
    return extra | found.law.to_json()


def write_law(path: str | Path, found: LawFile) -> None:
    """Write LAW.json, whole or not at all."""
    path = Path(path)
    text = json.dumps(law_json(found), allow_nan=False)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        part.write_text(text, encoding="utf-8")
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def read_law(path: str | Path) -> LawFile:
    """The law in a file, tried out once.

    Raises:
        ValueError: no such file, not a law file, one of a newer raymix, or a damaged one; says which.
    """
    path = Path(path)
    raw = _parsed(path)
    for key in ("law", "domains", "eval_domains"):
        if key not in raw:
            raise ValueError(f"{path}: not a law file: the key {key!r} is missing; raymix fit writes one")
    if not isinstance(raw.get("format", FORMAT), int) or raw.get("format", FORMAT) > FORMAT:
        raise ValueError(f"{path}: written by a newer raymix (format {raw['format']}, known up to {FORMAT}): update")
    domains, eval_domains = (_names(path, key, raw[key]) for key in ("domains", "eval_domains"))
    try:
        law, trained = law_from_json(raw), _trained(raw.get("trained"), len(domains))
        _try_out(law, len(domains), len(eval_domains), trained)
        weights_M = _weights(raw.get("weights"), eval_domains)
        choice = dict(raw.get("choice") or {})
        reach = None if raw.get("reach") is None else Reach.from_json(raw["reach"], len(domains))
        not_here = tuple(str(key) for key in raw.get("not_here") or ())
        minimised = {str(name): str(words) for name, words in (raw.get("minimised") or {}).items()}
        elsewhere = None if raw.get("elsewhere") is None else law_from_json(raw["elsewhere"])
        if elsewhere is not None:
            _try_out(elsewhere, len(domains), len(eval_domains), trained)
    except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
        if isinstance(error, KeyError):
            what = f"{error} is missing in this file: it is damaged, or of an earlier raymix; raymix fit writes it anew"
            raise ValueError(f"{path}: {what}") from None
        raise ValueError(f"{path}: the law in this file is damaged: {error}") from None
    return LawFile(law, domains, eval_domains, weights_M, trained, choice, elsewhere, reach, not_here, minimised)


def _parsed(path: Path) -> dict[str, Any]:
    if path.is_dir():
        raise ValueError(f"{path}: this is a folder; name the file that raymix fit wrote")
    if not path.is_file():
        raise ValueError(f"{path}: {absent(path)}; raymix fit writes one")
    try:
        raw = json.loads(path.read_text(encoding="utf-8"), parse_constant=_no_constant)
    except UnicodeDecodeError:
        raise ValueError(f"{path}: not a law file: it is not text") from None
    except (json.JSONDecodeError, RecursionError) as error:
        raise ValueError(f"{path}: not a law file, or one cut short: {error}") from None
    except ValueError as error:
        raise ValueError(f"{path}: the law in this file is damaged: {error}") from None
    if not isinstance(raw, dict):
        raise ValueError(f"{path}: not a law file: it holds a {type(raw).__name__}, not a mapping")
    return raw


def _no_constant(name: str) -> float:
    raise ValueError(f"a number is {name}")


def _names(path: Path, key: str, value: Any) -> tuple[str, ...]:
    if not isinstance(value, Sequence) or isinstance(value, str) or not all(isinstance(name, str) for name in value):
        raise ValueError(f"{path}: the law in this file is damaged: {key} must be a list of names")
    if not value or len(set(value)) < len(value):
        raise ValueError(f"{path}: the law in this file is damaged: {key} must be distinct names, at least one")
    return tuple(value)


def _trained(value: Any, n_domains: int) -> Trained | None:
    if value is None:
        return None
    low, high = (float(tokens) for tokens in value["n_tokens"])
    mixtures, runs, rows = (int(value[key]) for key in ("mixtures", "runs", "rows"))
    shares = tuple((float(least), float(most)) for least, most in value["shares"])
    if len(shares) != n_domains:
        raise ValueError(f"it has shares of {len(shares)} domains, and names {n_domains}")
    return Trained(tuple(float(size) for size in value["n_params"]), (low, high), mixtures, runs, rows, shares)


def _weights(value: Mapping[str, float] | None, eval_domains: Sequence[str]) -> Array:
    if value is None:
        return np.full(len(eval_domains), 1 / len(eval_domains))
    weights_M = np.array([float(value[name]) for name in eval_domains])
    if not (np.isfinite(weights_M).all() and (weights_M >= 0).all() and weights_M.sum() > 0):
        raise ValueError("weights must be numbers of at least 0, not all 0")
    return np.asarray(weights_M / weights_M.sum())


def _try_out(law: Law, n_domains: int, n_eval: int, trained: Trained | None) -> None:
    """One prediction at the uniform mixture: shapes and values must be those of a law of these domains."""
    scale = ANY_SCALE if trained is None else (trained.n_params[-1], trained.n_tokens[1])
    uniform_1K = np.full((1, n_domains), 1 / n_domains)
    for what, value in (("losses", law.predict(uniform_1K, scale)), ("sd", law.sd(uniform_1K, scale))):
        if value.shape != (1, n_eval):
            raise ValueError(f"it gives {value.shape[-1]} {what}, and names {n_eval} eval domains")
        if not (np.isfinite(value).all() and (value > 0).all()):
            raise ValueError(f"its {what} at the uniform mixture are not numbers above 0")
