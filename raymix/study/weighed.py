"""What a study recommends once pairs of runs have confirmed it, or have not: what was seen outweighs the law."""

import math
from dataclasses import replace

from raymix.counts import scale_words
from raymix.space_study import PROPOSAL
from raymix.study.confirm import Confirmation
from raymix.study.gain import guard_words, words
from raymix.target.recommend import BROKEN, Recommendation


def weighed(found: Recommendation, confirmed: Confirmation | None) -> Recommendation:
    """The recommendation in the light of its confirmation: what was seen outweighs what was predicted."""
    if confirmed is None:
        return found
    if not any(gain.pairs for gain in confirmed.gains.values()):
        return found if confirmed.pending or confirmed.outdated else _without_pairs(found, confirmed)
    if confirmed.outdated:
        note = f"{confirmed.words[-1]}: raymix confirm trains what is proposed now"
        return found.noting([note])
    same = all(math.isclose(found.mixture[name], s, abs_tol=1e-9) for name, s in confirmed.mixtures[PROPOSAL].items())
    if not same:
        note = "what was confirmed is another mixture: the law has since found one better by more than the noise"
        broke = [guard_words(name, guard) for name, guard in confirmed.guardrails.items() if guard.broken]
        return found.noting([f"{note}; in that other one {'; '.join(broke)}" if broke else note])
    found = found.noting(confirmed.words)
    return replace(found, verdict=_verdict(found, confirmed))


def _without_pairs(found: Recommendation, confirmed: Confirmation) -> Recommendation:
    """What the law says, where confirmation has ended and confirmed nothing."""
    reason = f"{found.verdict['reason']}; not confirmed: {confirmed.failed} of its runs failed, no pair ended well"
    return replace(found.noting(confirmed.words), verdict={**found.verdict, "reason": reason})


def _verdict(found: Recommendation, confirmed: Confirmation) -> dict[str, str]:
    """What the pairs say of the mixture recommended; what the law says where they say nothing."""
    prior, at = confirmed.gains.get("prior"), scale_words(**confirmed.scale)
    if found.verdict["answer"] == BROKEN:  # at the target, whatever these runs saw at their scale
        return found.verdict

    def said(name: str) -> str:
        gain, unit = confirmed.gains[name], found.unit
        return f"{words(name, gain, confirmed.pending, unit, confirmed.failed)}, at {at}"

    broken = [guard_words(name, guard) for name, guard in confirmed.guardrails.items() if guard.broken]
    if broken and prior is not None:
        kept = {"answer": BROKEN, "baseline": "prior"}
        reason = f"{said('prior')}; but {'; '.join(broken)}"
        return {**kept, "reason": f"{reason}; raymix confirm trains what the law, which knows this now, proposes"}
    better = {
        name: gain.mean
        for name, gain in confirmed.gains.items()
        if gain.mean is not None and gain.worse and _keeps_guardrails(confirmed, name)
    }
    if better:
        name = min(better, key=lambda name: better[name])
        reason = f"{said(name)}; the confirmed interval is below 0"
        return {"answer": "keep the baseline: seen to be better", "baseline": name, "reason": reason}
    if prior is None or prior.mean is None or (prior.low is None and prior.mean > 0):
        return found.verdict
    reason = said("prior")
    if prior.low is None or prior.low <= 0:
        why = "that pair saw no gain" if prior.low is None else "the confirmed interval includes 0"
        kept = {"answer": "keep the baseline: gain within noise", "baseline": "prior"}
        return {**kept, "reason": f"{reason}; {why}"}
    if found.verdict["answer"].startswith("confirm first"):  # these runs too are of that one size or length
        return {**found.verdict, "reason": f"{reason}; but at the target {found.verdict['reason']}, at a larger scale"}
    return {"answer": "use it", "reason": reason}


def _keeps_guardrails(confirmed: Confirmation, baseline: str) -> bool:
    """Whether no guarded loss of a baseline was seen to be worse than the prior's by more than is allowed."""
    prior = confirmed.gains.get("prior")
    if prior is None or baseline == "prior":
        return True
    over, base = confirmed.gains[baseline].by_eval, prior.by_eval  # both less the same proposal's losses
    return all(over[name] - base[name] <= guard.allowed for name, guard in confirmed.guardrails.items())
