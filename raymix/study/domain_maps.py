"""What old domains and eval domains are here: a linear map of shares, and which columns of losses are the same text."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from raymix.observations import Observations
from raymix.simplex import Array
from raymix.space import HOW_IT_IS_RUN, SearchSpace, SpaceError
from raymix.space_study import Reuse
from raymix.study.changes import differences

ZERO = 1e-9
DIGITS = 9  # of a share
OTHER_TOKENS = (
    "both tokenizers were trained on the text of their domains, which differ, and so losses per token may by some per "
    "cent: name one `tokenizer` for studies that build on each other"
)


@dataclass(frozen=True)
class Source:
    """Old observations, what they were measured on where that is known, and a hash of it all."""

    table: Observations
    space: SearchSpace | None
    sha256: str
    text: dict[str, str] = field(default_factory=dict)
    """As the ledger of a study knows it."""


@dataclass(frozen=True)
class Mapping:
    """Old shares (J,) to new shares (K,), and old domains of which only 0 can be mapped."""

    map_JK: Array
    lost_J: np.ndarray[Any, np.dtype[np.bool_]]
    notes: list[str]


def domain_map(entry: Reuse, source: Source, space: SearchSpace) -> Mapping:
    """How old shares become new ones.

    Raises:
        SpaceError: an entry names an old domain that the source has not, or a new one that the space has not.
    """
    old, new = source.table.domains, space.domain_names
    _check_names(entry, old, new)
    map_JK, lost_J, notes = np.zeros((len(old), len(new))), np.zeros(len(old), dtype=bool), []
    merged = _merged(entry)
    for j, name in enumerate(old):
        if name in entry.split:
            share_K = _parts(entry.split[name], space)
            if share_K is None:
                lost_J[j] = True
                notes.append(f"{name!r} was split, in proportions that are not known: only rows without it count")
            else:
                map_JK[j] = share_K
            continue
        target = merged.get(name) or entry.rename.get(name, name)
        if target not in new:
            notes.append(f"{name!r} is no longer a domain: only rows with less than {entry.drop_below:.2g} of it count")
        elif not (name in merged or name in entry.rename) and not _same_text(source.space, space, name):
            lost_J[j] = True
            notes.append(f"{name!r} has another source here: only rows without it count (or rename it to itself)")
        else:
            map_JK[j, new.index(target)] = 1.0
    added = [name for k, name in enumerate(new) if not map_JK[:, k].any()]
    if added:
        notes.append(f"{', '.join(map(repr, added))}: not in the old runs, a share of 0 there")
    notes += [_spread(name, parts, source.table) for name, parts in entry.merge.items()]
    return Mapping(map_JK, lost_J, notes)


@dataclass(frozen=True)
class Evals:
    """Old columns of losses and whose they are here."""

    index: list[int]
    names: list[str]
    notes: list[str]


def eval_map(entry: Reuse, source: Source, space: SearchSpace) -> Evals:
    """Which old columns of losses are whose here."""
    index, names, notes = list[int](), list[str](), list[str]()
    for name in entry.rename_evals:
        if name not in source.table.eval_domains:
            raise SpaceError(f"from {entry.source}: it has no eval domain {name!r} to rename")
    for i, name in enumerate(source.table.eval_domains):
        target = entry.rename_evals.get(name, name)
        if target not in space.eval_names:
            notes.append(f"eval domain {name!r} is not one of this study: left out")
        elif name not in entry.rename_evals and not _same_eval(entry, source.space, space, name):
            notes.append(f"eval domain {name!r} is another text here: left out (rename it to itself to insist)")
        elif target in names:
            both = f"{source.table.eval_domains[index[names.index(target)]]!r} and {name!r}"
            raise SpaceError(f"from {entry.source}: {both} would both be eval domain {target!r}: rename one elsewhere")
        else:
            index.append(i)
            names.append(target)
    missing = [name for name in space.eval_names if name not in names]
    if missing:
        notes.append(f"eval domain {', '.join(map(repr, missing))}: not measured there")
    if source.space is not None:
        if why := _other_losses(entry, source.space, space):
            return Evals([], [], [*notes, f"{why}: nothing is taken"])
        texts = [_texts(source.space), _texts(space)]
        if space.tokenizer.train is not None and all(texts) and texts[0] != texts[1]:
            notes.append(OTHER_TOKENS)
    return Evals(index, names, notes)


def _other_losses(entry: Reuse, old: SearchSpace, new: SearchSpace) -> str | None:
    """Why no loss of one space is a loss of the other; None where they may be compared."""
    if old.tokenizer != new.tokenizer:
        return "its tokenizer is another one, so a loss per token is not the same quantity"
    if _fixed_parts(old, entry) != _fixed_parts(new):
        return "its recipe.stages fix other parts of a run, so a mixture is of another part"
    then, now = (space.recipe.model_dump(mode="json", exclude={*HOW_IT_IS_RUN, "stages"}) for space in (old, new))
    if then != now:
        changed = "; ".join(differences(then, now))
        return f"trained by another recipe ({changed}), so its losses are others (its table would be taken as it is)"
    return None


def _texts(space: SearchSpace) -> list[str]:
    """What a tokenizer is trained on, in no order; nothing where somebody else trains."""
    return sorted(domain.source.model_dump_json() for domain in space.domains if domain.source is not None)


def _fixed_parts(space: SearchSpace, entry: Reuse | None = None) -> list[tuple[float, dict[str, float] | None]]:
    """Tokens and mixture of every stage, where any is fixed; under the names that `entry` gives its domains."""
    parts = [(part.tokens, part.mixture) for part in space.recipe.stages]
    if all(mixture is None for _, mixture in parts):
        return []
    renamed = {} if entry is None else {**entry.rename, **_merged(entry)}
    return [(tokens, None if mixture is None else _under(renamed, mixture)) for tokens, mixture in parts]


def _under(renamed: dict[str, str], mixture: dict[str, float]) -> dict[str, float]:
    """Shares above 0 by their new names, to the digits that a share has."""
    total: dict[str, float] = {}
    for name, share in mixture.items():
        total[renamed.get(name, name)] = total.get(renamed.get(name, name), 0.0) + share
    return {name: round(share, DIGITS) for name, share in total.items() if share > ZERO}


def _merged(entry: Reuse) -> dict[str, str]:
    """The new domain of every old one that is put together with others."""
    return {part: name for name, parts in entry.merge.items() for part in parts}


def _parts(parts: tuple[str, ...] | dict[str, float], space: SearchSpace) -> Array | None:
    """Shares of an old domain in the new ones (K,); by tokens if only names are given, None if those are unknown."""
    index = [space.domain_names.index(name) for name in parts]
    weights = list(parts.values()) if isinstance(parts, dict) else space.available_K[index].tolist()
    if not (np.isfinite(weights).all() and min(weights) >= 0 and sum(weights) > 0):
        return None
    share_K = np.zeros(len(space.domain_names))
    share_K[index] = np.asarray(weights) / sum(weights)
    return share_K


def _spread(name: str, parts: Sequence[str], table: Observations) -> str:
    """How differently the parts of a merged domain were mixed in the old runs."""
    mix_BP = table.mix_BK[:, [table.domains.index(part) for part in parts]]
    total_B = mix_BP.sum(axis=1)
    share_B = mix_BP[total_B > ZERO, 0] / total_B[total_B > ZERO]
    said = f"{name!r} is {' + '.join(map(repr, parts))}, taken as one domain"
    return f"{said}; {parts[0]!r} was {share_B.min():.0%} to {share_B.max():.0%} of it" if len(share_B) else said


def _check_names(entry: Reuse, old: Sequence[str], new: Sequence[str]) -> None:
    where = f"from {entry.source}"
    olds = [*entry.rename, *entry.split, *(part for parts in entry.merge.values() for part in parts)]
    news = [*entry.rename.values(), *entry.merge, *(name for parts in entry.split.values() for name in parts)]
    for name in olds:
        if name not in old:
            raise SpaceError(f"{where}: it has no domain {name!r} ({', '.join(old)})")
        if olds.count(name) > 1:
            raise SpaceError(f"{where}: {name!r} is named twice in rename, split and merge")
    for name, target in entry.rename.items():
        if target in old and target != name and target not in olds:
            raise SpaceError(f"{where}: {name!r} and {target!r} would both be {target!r}: name them under merge")
    for name in news:
        if name not in new:
            raise SpaceError(f"{where}: {name!r} is not a domain of this space ({', '.join(new)})")


def _same_text(old: SearchSpace | None, new: SearchSpace, name: str) -> bool:
    """Whether a domain of one name is one text, as far as the spaces say."""
    if old is None:
        return True
    before = next(d.source for d in old.domains if d.name == name)
    now = next(d.source for d in new.domains if d.name == name)
    return before is None or now is None or before == now


def _same_eval(entry: Reuse, old: SearchSpace | None, new: SearchSpace, name: str) -> bool:
    """Whether an eval domain of one name is one text: the same source, or held out from the same text.

    A metric is the same where both spaces say the same of it.
    """
    if old is None:
        return True
    then, today = ([metric for metric in space.metrics if metric.name == name] for space in (old, new))
    if then or today:
        return then == today
    before = next(e for e in old.eval_domains if e.name == name)
    now = next(e for e in new.eval_domains if e.name == name)
    if before.source is not None or now.source is not None:
        return before.source == now.source
    own = before.own
    if own is None or now.own is None:
        return True
    if own in entry.split or own in _merged(entry):
        return False  # held out from a part of it, or from more
    return entry.rename.get(own, own) == now.own and (own in entry.rename or _same_text(old, new, own))
