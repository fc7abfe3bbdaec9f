"""What a reader of a law's losses or optimum has to know: another unit, beyond the runs, not counted."""

import math
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import ArrayLike

from raymix.exchange import NO_LOSS
from raymix.laws.rows import SAME_SCALE, distinct
from raymix.observations import Observations
from raymix.sheet import listed
from raymix.simplex import Array
from raymix.space import Scale
from raymix.tables.choose import rows_of
from raymix.tables.diverged import diverged
from raymix.tables.law_file import LawFile
from raymix.target.reading import far_notes, guessed_scale, wider_words

FAR_BELOW = 100  # times below the least scale trained: a wish in another unit (millions, steps), not a scale
LEAST = {"n_params": 1e3, "n_tokens": 1e4}  # no language model is smaller, none is trained on less
MOST_NATS = math.log(1e6)  # per token, of a uniform guess among a million of them
SOME = 3  # trials or eval domains that a note names
FAR_SHARE = 0.1  # of a mixture, beyond the largest share of a domain in any run


def notes_at(found: LawFile, scale: Scale) -> list[str]:
    """What a reader at this scale must know beyond the law's own notes."""
    read = found.at(scale)
    trained = found.trained
    notes = [] if read is found else [*(note for note in read.notes if note not in found.notes), read.choice["why"]]
    if trained is None:
        return []
    seen = {"n_params": (trained.n_params[0], trained.n_params[-1]), "n_tokens": trained.n_tokens}
    reads = getattr(read.law, "reads", tuple(seen))
    for what, (low, high) in seen.items():
        at = getattr(scale, what)
        outside = at < low * (1 - SAME_SCALE) or at > high * (1 + SAME_SCALE)
        if what not in reads and outside:
            notes.append(f"{read.law.name} has no {what}: its losses are those at {low:.3g}, not at {at:.3g}")
    notes += below_notes(scale, trained.n_params[0], trained.n_tokens[0])
    return notes + far_notes(*scale, trained.n_params[-1], trained.n_tokens[1])


def guessed_at(found: LawFile, scale: Scale) -> list[str]:
    """What no run behind the law says of a gain at this scale."""
    if found.trained is None:
        return []
    sizes = found.trained.n_params
    return guessed_scale(scale, (sizes[0], sizes[-1]), found.trained.n_tokens)


def below_notes(scale: Scale, least_params: float, least_tokens: float) -> list[str]:
    """Of a scale that no trainer would mean: power laws answer there too, with losses of 10 and more."""
    least = {"n_params": ("smallest size trained", least_params), "n_tokens": ("shortest run", least_tokens)}
    return [
        f"{what} {getattr(scale, what):.3g} is {low / getattr(scale, what):,.0f} times below the {which} ({low:.3g}): "
        "is it in another unit? They are counted, not in millions or billions"
        for what, (which, low) in least.items()
        if low > FAR_BELOW * getattr(scale, what)
    ]


def loss_notes(runs: Observations) -> list[str]:
    """Of losses that are perplexities: whoever guesses among a million tokens loses less. One diverged run is none."""
    typical = {
        name: float(np.median(known_B))
        for name, loss_B in zip(runs.eval_domains, runs.loss_BM.T, strict=True)
        if name not in runs.metrics and len(known_B := loss_B[np.isfinite(loss_B)])
    }
    most = max(typical, key=lambda name: typical[name], default="")
    if typical.get(most, 0.0) <= MOST_NATS:
        return []
    return [f"a typical loss/{most} is {typical[most]:.3g}: losses are nats per token, so of perplexities give the "
            "logarithms, and leave out what is no loss"]  # fmt: skip


def score_notes(runs: Observations) -> list[str]:
    """Of scores among the losses, by their names: the law would be read where they are worst."""
    found = [name for name in runs.eval_domains if name not in runs.metrics and NO_LOSS.fullmatch(name)]
    if not found:
        return []
    return [f"no losses by their names, and losses are minimised: {listed(found, SOME)}; of a score where more is "
            f"better, name the column metric/{found[0]}, and say raymix fit --metric {found[0]}=high, or in a space "
            f"metrics: [{{name: {found[0]}, better: high}}]"]  # fmt: skip


def unit_notes(runs: Observations) -> list[str]:
    """Of runs so small, or losses so large, that their column must be in another unit; and of scores for losses."""
    most_2, said = runs.scale_B2.max(axis=0, initial=0.0).tolist(), loss_notes(runs) + score_notes(runs)
    return said + [
        f"the largest {what} is {most:.3g}: is it in another unit? They are counted, not in millions, billions or steps"
        for (what, least), most in zip(LEAST.items(), most_2, strict=True)
        if 0 < most < least
    ]


def ragged_notes(runs: Observations) -> list[str]:
    """Of eval domains that less than half of the runs measured, or not all sizes: the table is smaller for them."""
    all_runs, all_sizes, few = len(np.unique(runs.model_B)), len(distinct(runs.scale_B2[:, 0])), []
    for name, known_B in zip(runs.eval_domains, np.isfinite(runs.loss_BM).T, strict=True):
        if not known_B.any():
            continue  # which is an error elsewhere
        n, sizes = len(np.unique(runs.model_B[known_B])), len(distinct(runs.scale_B2[known_B, 0]))
        if 2 * n < all_runs or sizes < all_sizes:
            few.append(f"{name} ({n} of {all_runs} runs, {sizes} of {all_sizes} sizes)")
    if not few:
        return []
    return [f"measured in part of the runs alone: {listed(few, SOME)}; a law of these knows no others"]


def diverged_notes(runs: Observations, own_M: ArrayLike) -> list[str]:
    """Of losses so far above a law fitted to them that their runs must have diverged, or a number is wrong."""
    table = rows_of(runs, own_M)
    far_BM, said_BM = diverged(table)
    found = {runs.trial_ids[b]: (b, m) for b, m in np.argwhere(far_BM)}
    if not found:
        return []
    named = [f"{trial!r} (loss/{runs.eval_domains[m]} {table.loss_BM[b, m]:.3g} at {table.scale_B2[b, 1]:.3g} tokens, "
             f"a law of all says {said_BM[b, m]:.3g})" for trial, (b, m) in found.items()]  # fmt: skip
    return [f"losses far above the law, of {listed(named, SOME)}: if a run diverged give these rows the status failed, "
            "for they widen intervals; laws are not judged by them"]  # fmt: skip


def share_notes(found: LawFile, mix_BK: Array) -> list[str]:
    """Of mixtures far from those trained: intervals know what runs tell of a law, not where it stops holding."""
    beyond_B = np.zeros(0) if found.trained is None else found.trained.beyond(mix_BK)
    far = np.flatnonzero(beyond_B > FAR_SHARE)
    if found.trained is None or not far.size:
        return []
    mix_K = mix_BK[int(np.argmax(beyond_B))]
    most_K = found.trained.most_K
    k = int(np.argmax(mix_K - most_K))
    which = "the mixture has" if len(mix_BK) == 1 else f"{far.size} of {len(mix_BK)} mixtures have"
    return [
        f"{which} more of a domain than any run had ({found.domains[k]} {mix_K[k]:.0%}, at most {most_K[k]:.0%} "
        f"trained): {_said(found)}"
    ]


def _said(found: LawFile) -> str:
    """What holds of intervals there."""
    return wider_words(1.0 if found.reach is None else found.reach.widen)


def without_end(domains: Sequence[str], available: Mapping[str, float]) -> list[str]:
    """Of domains whose tokens at hand nobody told, where those of others are."""
    names = [name for name in domains if name not in available]
    if not available or not names:
        return []
    named = ", ".join(map(repr, names))
    return [f"the tokens at hand of {named} are not known: taken without end, no epochs are counted or capped"]


def prior_notes(domains: Sequence[str], prior: Mapping[str, float] | None, pull: float) -> list[str]:
    """Of domains that the prior leaves out, and of a pull to it: the optimum is not that of the losses alone."""
    if prior is None:
        return []
    names = [name for name in domains if name not in prior]
    notes = [f"the prior leaves out {listed(names)}: its share of each counts as 0"] if names else []
    if pull > 0:
        notes.append(f"pulled to the prior, by {pull:g} per nat of KL divergence: the certificate counts that, losses "
                     "and gains do not")  # fmt: skip
    return notes


def not_counted(found: LawFile) -> list[str]:
    """What the study of this law also asks of a mixture."""
    if not found.not_here:
        return []
    return [
        f"the study of this law also has {', '.join(found.not_here)}: none of it counts here but what options say "
        "again; raymix report DIR, or study.recommend(scale) for another scale, counts all"
    ]
