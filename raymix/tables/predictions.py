"""A law read row by row: QUERIES in the exchange form in, the same keys with losses and intervals out.

    trial_id, n_params, n_tokens, mixture/<domain>..., loss/<eval>..., loss_low/<eval>..., loss_high/<eval>...

Domains are matched by name, whatever their order. Columns unique/<domain> say how many tokens there are to draw from: a
law fitted with such columns counts what is drawn beyond them as repeats. Intervals are 90% for the loss of a new run.
Rows without a scale, as a study has of runs that failed or go on from another model, stay without a loss.
"""

import difflib
from collections.abc import Sequence

import numpy as np
import pyarrow as pa

from raymix.laws.base import Array, Flags, Law
from raymix.laws.repetition import REPEATED, stocked
from raymix.observations import Observations
from raymix.space import Scale
from raymix.tables.law_file import ANY_SCALE, LawFile
from raymix.tables.notes import notes_at, share_notes
from raymix.target.held_out import Z90
from raymix.target.reading import counted_as_fresh

KEYS = ("trial_id", "n_params", "n_tokens")


def predict_table(found: LawFile, queries: Observations, origin: str) -> tuple[pa.Table, list[str]]:
    """Predictions, a row per query in the order given, and notes on scales far from what was trained.

    Raises:
        ValueError: a domain of the law has no column, or a column is no domain of the law; nothing to draw from.
    """
    check_domains(found, queries.domains, origin)
    mix_BK = queries.mix_BK[:, [queries.domains.index(name) for name in found.domains]]
    unique_BK = queries.unique_BK[:, [queries.domains.index(name) for name in found.domains]]
    scaled_B = np.asarray((np.isfinite(queries.scale_B2) & (queries.scale_B2 > 0)).all(axis=1))
    scale_B2, scaled = np.where(scaled_B[:, None], queries.scale_B2, ANY_SCALE), queries.select(scaled_B)
    try:
        scaled.check_unique()
    except ValueError as error:
        raise ValueError(f"{origin}: {error}") from None
    loss_BM, sd_BM = _losses(found.law, mix_BK, scale_B2, unique_BK)
    if found.elsewhere is not None and (far := np.flatnonzero(found.outside(scale_B2))).size:
        loss_BM[far], sd_BM[far] = _losses(found.elsewhere, mix_BK[far], scale_B2[far], unique_BK[far])
    loss_BM[~scaled_B] = np.nan
    columns = {name: queries.table[name] for name in (*KEYS, *(f"mixture/{name}" for name in queries.domains))}
    factor_BM = np.exp(Z90 * sd_BM * found.widening(mix_BK)[:, None])
    for prefix, value_BM in (("loss", loss_BM), ("loss_low", loss_BM / factor_BM), ("loss_high", loss_BM * factor_BM)):
        columns |= {f"{prefix}/{name}": pa.array(value_BM[:, i]) for i, name in enumerate(found.eval_domains)}
    repeated_B = scaled_B & (mix_BK * scale_B2[:, 1:] > REPEATED * unique_BK).any(axis=1)
    notes = [*_notes(found, scaled), *share_notes(found, mix_BK), *_repeat_notes(found, queries, repeated_B)]
    return pa.table(columns), notes


def check_domains(found: LawFile, domains: Sequence[str], origin: str) -> None:
    """Nothing, if these are the domains of the law, in whatever order.

    Raises:
        ValueError: one is missing or unknown.
    """
    missing = [name for name in found.domains if name not in domains]
    extra = [name for name in domains if name not in found.domains]
    if missing:
        alike = difflib.get_close_matches(missing[0].lower(), [name.lower() for name in extra], n=1)
        wrong = next((name for name in extra if name.lower() in alike), None)
        remedy = "" if wrong is None else f", and knows no {wrong!r}: rename mixture/{wrong}"
        raise ValueError(f"{origin}: the column mixture/{missing[0]} is missing; the law has this domain"
                         f"{remedy or '. Add it, with 0 where a mixture has none'}")  # fmt: skip
    if extra:
        raise ValueError(f"{origin}: the law knows no domain {extra[0]!r}; it has {', '.join(found.domains)}. "
                         "Leave that column out where all its shares are 0")  # fmt: skip


def _losses(law: Law, mix_BK: Array, scale_B2: Array, unique_BK: Array) -> tuple[Array, Array]:
    """Losses and sd of log loss (B, M) with so many unique tokens."""
    law = stocked(law, unique_BK)
    return law.predict(mix_BK, scale_B2), law.sd(mix_BK, scale_B2)


def _repeat_notes(found: LawFile, queries: Observations, repeated_B: Flags) -> list[str]:
    """Of queries that draw more tokens of a domain than they say there are, where the law does not count that."""
    why_fresh = counted_as_fresh(found.law)
    if not (repeated_B.any() and why_fresh):
        return []
    first = queries.trial_ids[int(np.argmax(repeated_B))]
    return [f"{repeated_B.sum()} rows draw more than there is by unique/<domain> (first {first}), and {why_fresh}"]


def _notes(found: LawFile, queries: Observations) -> list[str]:
    """Of the smallest and the largest scale asked for."""
    if not len(queries):
        return []
    ends = (queries.scale_B2.min(axis=0), queries.scale_B2.max(axis=0))
    return list(dict.fromkeys(note for end in ends for note in notes_at(found, Scale(*end.tolist()))))
