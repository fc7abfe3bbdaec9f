"""Evidence from elsewhere: observations of another study or table, mapped to the domains of this one.

Domains change: one is added, one is dropped, one is cut in two, two become one. An old observation still says something
where its mixture can be written in the new domains, and only those are taken:

    added     it had a share of 0 in every old row
    renamed   the share moves
    merged    shares add up (as if the parts were always mixed alike; the spread is said)
    split     the share is divided in known proportions; without them only rows without it count
    dropped   only rows that (nearly) did without it count; the rest of such a row is scaled up

All of these are one linear map from old shares to new. What is taken is copied into the records of the study with the
hash of its source, so that a study can be resumed where the source is gone; it never counts against the budget.
"""

from __future__ import annotations

import hashlib
import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from raymix.exchange import NUMBERS, read_table
from raymix.observations import REUSED, Observations
from raymix.simplex import Array
from raymix.space import Metric, SearchSpace, SpaceError
from raymix.space_study import Reuse
from raymix.store import Store
from raymix.study.files import read_identity, read_space
from raymix.study.ledger import Ledger
from raymix.study.routes import copied

log = logging.getLogger(__name__)

ZERO = 1e-9


@dataclass(frozen=True)
class Source:
    """Old observations, what they were measured on where that is known, and a hash of it all."""

    table: Observations
    space: SearchSpace | None
    sha256: str


@dataclass(frozen=True)
class Mapping:
    """Old shares (J,) to new shares (K,), and old domains of which only 0 can be mapped."""

    map_JK: Array
    lost_J: np.ndarray[Any, np.dtype[np.bool_]]
    notes: list[str]


def take_evidence(ledger: Ledger) -> None:
    """Read, map and record every entry of `from` that the study has not taken yet.

    Raises:
        SpaceError: a source cannot be read, or an entry names a domain that does not exist.
    """
    for entry in ledger.space.reuse:
        if entry.key not in ledger.reused:
            source = read_source(entry, ledger.space.folder, ledger.space.metrics)
            rows, notes = mapped_rows(entry, source, ledger.space)
            before = [row for body in ledger.reused.values() for row in body["rows"]]
            notes += copied(rows, before)
            for note in notes:
                log.warning("from %s: %s", entry.source, note)
            body = {"entry": entry.key, "source": entry.source, "sha256": source.sha256, "notes": notes, "rows": rows}
            ledger.note("reuse", body)


def read_source(entry: Reuse, folder: Path, metrics: Sequence[Metric] = ()) -> Source:
    """The observations of a study directory or a table; paths are relative to `folder`.

    A table does not say which way a metric is better, as a study does: `metrics` do.

    Raises:
        SpaceError: there is none, or it cannot be read.
    """
    try:
        if entry.table is not None:
            table, space = Observations.from_table(read_table(folder / entry.table), entry.table), None
            table = table.minimising(metrics)
        else:
            table, space = _read_study(str(entry.study) if "://" in str(entry.study) else folder / str(entry.study))
    except (ValueError, OSError) as error:
        raise SpaceError(f"from: {error}") from None
    return Source(table, space, _digest(table))


def mapped_rows(entry: Reuse, source: Source, space: SearchSpace) -> tuple[list[dict[str, Any]], list[str]]:
    """Rows in the domains of `space`, and a sentence for everything that was left out or assumed."""
    mapping, evals = domain_map(entry, source, space), _eval_map(entry, source, space)
    notes, usable = [*mapping.notes, *evals.notes], source.table.usable()
    if len(usable) < len(source.table):
        notes.append(f"{len(source.table) - len(usable)} rows without losses (failed or stopped trials) left out")
    keep_B, valid = _valid(entry, mapping, usable)
    notes += valid
    loss_BM = np.where(np.isfinite(usable.loss_BM), usable.loss_BM, np.nan)[:, evals.index]
    measured_B = np.isfinite(loss_BM).any(axis=1) if loss_BM.size else np.zeros(len(usable), dtype=bool)
    if n_blind := int((keep_B & ~measured_B).sum()):
        notes.append(f"{n_blind} rows left out: none of this study's eval domains is measured")
    kept = usable.select(keep_B & measured_B)
    total_B = (kept.mix_BK @ mapping.map_JK).sum(axis=1, keepdims=True)
    mix_BK = kept.mix_BK @ mapping.map_JK / total_B
    rows = _rows(kept, mix_BK, mapping.map_JK, loss_BM[keep_B & measured_B], evals.names, space, _mark(entry, source))
    n_trials, n_all = len(set(kept.trial_ids)), len(set(usable.trial_ids))
    notes.append(f"{len(rows)} of {len(usable)} rows ({n_trials} of {n_all} trials) taken")
    return rows, notes


def domain_map(entry: Reuse, source: Source, space: SearchSpace) -> Mapping:
    """How old shares become new ones.

    Raises:
        SpaceError: an entry names an old domain that the source has not, or a new one that the space has not.
    """
    old, new = source.table.domains, space.domain_names
    _check_names(entry, old, new)
    map_JK, lost_J, notes = np.zeros((len(old), len(new))), np.zeros(len(old), dtype=bool), []
    merged = {part: name for name, parts in entry.merge.items() for part in parts}
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
class _Evals:
    index: list[int]
    names: list[str]
    notes: list[str]


def _eval_map(entry: Reuse, source: Source, space: SearchSpace) -> _Evals:
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
    if source.space is not None and source.space.tokenizer != space.tokenizer:
        notes.append("its tokenizer is another one, so a loss per token is not the same quantity: nothing is taken")
        return _Evals([], [], notes)
    return _Evals(index, names, notes)


def _valid(
    entry: Reuse, mapping: Mapping, usable: Observations
) -> tuple[np.ndarray[Any, np.dtype[np.bool_]], list[str]]:
    """Rows whose mixture can be written in the new domains."""
    gone_B = usable.mix_BK @ (~mapping.map_JK.any(axis=1) & ~mapping.lost_J)
    lost_B = usable.mix_BK @ mapping.lost_J
    keep_B = (gone_B <= np.where(gone_B > ZERO, entry.drop_below, 1.0)) & (lost_B <= ZERO)
    notes = []
    if (~keep_B).any():
        notes.append(f"{int((~keep_B).sum())} rows left out: they trained on text that this study cannot name")
    scaled_B = keep_B & (gone_B > ZERO)
    if scaled_B.any():
        notes.append(f"{int(scaled_B.sum())} rows had up to {gone_B[scaled_B].max():.2g} of it: the rest is scaled up")
    return np.asarray(keep_B), notes


def _rows(
    kept: Observations,
    mix_BK: Array,
    map_JK: Array,
    loss_BM: Array,
    evals: Sequence[str],
    space: SearchSpace,
    mark: str,
) -> list[dict[str, Any]]:
    """Plain rows as a study records them; trial ids say where they come from."""
    tokens_BK = _summed(kept.tokens_BK, map_JK)
    unique_BK = np.where(map_JK.any(axis=0), _summed(kept.unique_BK, map_JK), np.nan)  # of one added nobody knows
    blocks = {"mixture/": mix_BK, "tokens/": tokens_BK, "unique/": unique_BK}
    seed_B = kept.table["seed"].to_pylist()
    out = []
    for b, trial_id in enumerate(_ids(kept)):
        row: dict[str, Any] = {"trial_id": f"{REUSED}{mark}/{trial_id}", "status": str(kept.status_B[b])}
        row |= {"seed": int(seed_B[b])} | {name: float(kept.column(name)[b]) for name in NUMBERS}
        for prefix, value_BK in blocks.items():
            row |= {f"{prefix}{name}": float(v) for name, v in zip(space.domain_names, value_BK[b], strict=True)}
        row |= {f"loss/{name}": float(value) for name, value in zip(evals, loss_BM[b], strict=True)}
        out.append({key: value for key, value in row.items() if not isinstance(value, float) or np.isfinite(value)})
    return out


def _ids(kept: Observations) -> list[str]:
    """Trial ids (B,), with the size where one names runs of several: a trial of a study is one run."""
    size_B = kept.column("n_params").tolist()
    several = {
        trial
        for trial, n in Counter(trial for trial, _ in {*zip(kept.trial_ids, size_B, strict=True)}).items()
        if n > 1
    }
    pairs = zip(kept.trial_ids, size_B, strict=True)
    return [f"{trial}@{size:g}" if trial in several else trial for trial, size in pairs]


def _mark(entry: Reuse, source: Source) -> str:
    """What the ids of rows begin with: two entries may map one source differently."""
    said = entry.model_dump_json(exclude={"study", "table"})
    return hashlib.sha256(f"{source.sha256} {said}".encode()).hexdigest()[:8]


def _summed(old_BJ: Array, map_JK: Array) -> Array:
    """Tokens in the new domains (B, K); NaN only where those of an old domain that went into it are not known."""
    unknown_BJ = ~np.isfinite(old_BJ)
    return np.where(unknown_BJ @ (map_JK > 0), np.nan, np.where(unknown_BJ, 0.0, old_BJ) @ map_JK)


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
    """Whether an eval domain of one name is one text: the same source, or held out from the same domain.

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
    own = entry.rename.get(before.own, before.own) if before.own is not None else None
    return own == now.own or own is None or now.own is None


def _read_study(path: str | Path) -> tuple[Observations, SearchSpace]:
    store = Store(path)
    about = read_identity(store)
    space = read_space(store, about)
    return Ledger(space, int(about["seed"]), store).table(), space


def _digest(table: Observations) -> str:
    """sha256 of the values, whatever file they came from."""
    digest = hashlib.sha256(repr((table.domains, table.eval_domains, table.trial_ids)).encode())
    for values in (table.mix_BK, table.scale_B2, table.loss_BM):
        digest.update(np.ascontiguousarray(values).tobytes())
    return digest.hexdigest()
