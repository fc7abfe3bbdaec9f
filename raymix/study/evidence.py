"""Evidence from elsewhere: observations of another study or table, mapped to the domains of this one.

Domains change: one is added, one is dropped, one is cut in two, two become one. An old observation still says something
where its mixture can be written in the new domains, and only those are taken:

    added     it had a share of 0 in every old row
    renamed   the share moves
    merged    shares add up (as if the parts were always mixed alike; the spread is said)
    split     the share is divided in known proportions; without them only rows without it count
    dropped   only rows that (nearly) did without it count; the rest of such a row is scaled up

All of these are one linear map from old shares to new (`domain_maps`). What is taken is copied into the records of the
study with the hash of its source, so that a study can be resumed where the source is gone; what a source has to give
since is said, and not taken: a study goes on from what it knew. Evidence never counts against the budget.
"""

import hashlib
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from raymix.exchange import NUMBERS
from raymix.observations import REUSED, Observations
from raymix.simplex import Array
from raymix.space import Metric, SearchSpace, SpaceError
from raymix.space_study import Reuse
from raymix.store import Store
from raymix.study.domain_maps import OTHER_TOKENS, ZERO, Mapping, Source, domain_map, eval_map
from raymix.study.files import read_identity, read_space
from raymix.study.ledger import Ledger
from raymix.study.routes import by_size, copied

log = logging.getLogger(__name__)


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
            text = source.text if rows and OTHER_TOKENS not in notes else {}
            ledger.note("reuse", body | {"text": text})


def changed_evidence(ledger: Ledger) -> list[str]:
    """A sentence for every source that would give other rows now than were taken; one that is gone would give none."""
    said = []
    for entry in (entry for entry in ledger.space.reuse if entry.key in ledger.reused):
        body = ledger.reused[entry.key]
        try:
            source = read_source(entry, ledger.space.folder, ledger.space.metrics)
            rows = [] if source.sha256 == body["sha256"] else mapped_rows(entry, source, ledger.space)[0]
        except SpaceError:
            continue
        if rows and _unnamed(rows) != _unnamed(body["rows"]):
            said.append(
                f"from {entry.source}: it has changed: it would give {len(rows)} rows, and this study goes on with the "
                f"{len(body['rows'])} that it took; --fork NEW takes what there is now"
            )
    return said


def read_source(entry: Reuse, folder: Path, metrics: Sequence[Metric] = ()) -> Source:
    """The observations of a study directory or a table; paths are relative to `folder`.

    A table does not say which way a metric is better, as a study does: `metrics` do.

    Raises:
        SpaceError: there is none, or it cannot be read.
    """
    try:
        if entry.table is not None:
            table, space, text = Observations.read(folder / entry.table), None, dict[str, str]()
            table = table.minimising(metrics)
        else:
            where = str(entry.study)
            table, space, text = _read_study(where if "://" in where else folder / where)
    except (ValueError, OSError) as error:
        raise SpaceError(f"from: {error}") from None
    return Source(table, space, _digest(table), text)


def mapped_rows(entry: Reuse, source: Source, space: SearchSpace) -> tuple[list[dict[str, Any]], list[str]]:
    """Rows in the domains of `space`, and a sentence for everything that was left out or assumed."""
    mapping, evals = domain_map(entry, source, space), eval_map(entry, source, space)
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
    for b, trial_id in enumerate(kept.trial_ids):
        row: dict[str, Any] = {"trial_id": f"{REUSED}{mark}/{trial_id}", "status": str(kept.status_B[b])}
        row |= {"seed": int(seed_B[b])} | {name: float(kept.column(name)[b]) for name in NUMBERS}
        for prefix, value_BK in blocks.items():
            row |= {f"{prefix}{name}": float(v) for name, v in zip(space.domain_names, value_BK[b], strict=True)}
        row |= {f"loss/{name}": float(value) for name, value in zip(evals, loss_BM[b], strict=True)}
        out.append({key: value for key, value in row.items() if not isinstance(value, float) or np.isfinite(value)})
    return by_size(out)


def _unnamed(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows without the ids that say what their source was as a whole."""
    return [{key: row[key] for key in row if key != "trial_id"} for row in rows]


def _mark(entry: Reuse, source: Source) -> str:
    """What the ids of rows begin with: two entries may map one source differently."""
    said = entry.model_dump_json(exclude={"study", "table"})
    return hashlib.sha256(f"{source.sha256} {said}".encode()).hexdigest()[:8]


def _summed(old_BJ: Array, map_JK: Array) -> Array:
    """Tokens in the new domains (B, K); NaN only where those of an old domain that went into it are not known."""
    unknown_BJ = ~np.isfinite(old_BJ)
    return np.where(unknown_BJ @ (map_JK > 0), np.nan, np.where(unknown_BJ, 0.0, old_BJ) @ map_JK)


def _read_study(path: str | Path) -> tuple[Observations, SearchSpace, dict[str, str]]:
    store = Store(path)
    about = read_identity(store)
    space = read_space(store, about)
    ledger = Ledger(space, int(about["seed"]), store)
    return ledger.table(), space, ledger.text


def _digest(table: Observations) -> str:
    """sha256 of the values, whatever file they came from."""
    digest = hashlib.sha256(repr((table.domains, table.eval_domains, table.trial_ids)).encode())
    for values in (table.mix_BK, table.scale_B2, table.loss_BM):
        digest.update(np.ascontiguousarray(values).tobytes())
    return digest.hexdigest()
