"""How well the law of a study predicts mixtures it has not seen, judged on the objective.

Letters: B rows, M eval domains.
"""

from dataclasses import dataclass

import numpy as np

from raymix.laws import Law, make_law
from raymix.laws.repetition import stocked
from raymix.laws.robust import ABSURD, MEDIAN_OF_NORMAL, tamed_row
from raymix.laws.select import cross_validate, rank_correlation, rank_within
from raymix.observations import Observations, scale_groups
from raymix.simplex import Array
from raymix.space import SearchSpace
from raymix.target.objective import reduce_losses
from raymix.target.refits import rows_of

Z90 = 1.645  # half width of a 90% normal interval in standard deviations
RANKED = 4  # trials of one scale that have a rank correlation to average
ENOUGH = 6  # trials of one scale below which an order is not judged, or as many differences inside several
SOME_ORDER = 0.5  # rank correlation inside scales below which a law is no ground for a choice


@dataclass(frozen=True)
class HeldOut:
    """Objective of every last checkpoint, observed and predicted by laws that never saw its mixture."""

    trial_id: list[str]
    n_params: list[float]
    n_tokens: list[float]
    observed: list[float]
    predicted: list[float]
    low: list[float]
    high: list[float]

    @property
    def order(self) -> float:
        """Rank correlation inside scales (`rank_within`); NaN where fewer trials than `ENOUGH` of one scale tell."""
        group_B = scale_groups(np.column_stack([self.n_params, self.n_tokens]))
        return rank_within(np.asarray(self.predicted), np.asarray(self.observed), group_B, ENOUGH)


def score_law(space: SearchSpace, table: Observations, law: Law) -> tuple[dict[str, float], HeldOut]:
    """Out-of-sample score: whole mixtures held out, judged on the last checkpoint of every trial that did not fail.

    `rank_correlation` (Spearman; `_within_size` among runs of one size and length) and `error` (mean absolute, nats,
    of tamed residuals) are of the objective; `noise` is the standard deviation of the objective between runs of the
    same mixture where there are replicates, else of the residuals. All but `noise` are NaN where too few trials have
    ended to tell.
    """
    usable, failed = table.usable(), table.select(table.status_B == "failed").trial_ids
    pred_BM = cross_validate(lambda: make_law(law.name), rows_of(space, usable))
    weights_M, reduce = space.weights_M, space.objective.reduce
    last = usable.select(~np.isin(usable.trial_ids, failed)).last()
    key = {key: i for i, key in enumerate(zip(usable.trial_ids, usable.scale_B2[:, 1], strict=True))}
    rows = np.asarray([key[k] for k in zip(last.trial_ids, last.scale_B2[:, 1], strict=True)])
    observed_B = reduce_losses(last.loss_BM, weights_M, reduce)
    predicted_B = reduce_losses(pred_BM[rows], weights_M, reduce)
    ok = np.isfinite(observed_B) & np.isfinite(predicted_B)
    # Errors of one run move together: sds add up.
    relative_B = stocked(law, last.unique_BK).sd(last.mix_BK, last.scale_B2) @ weights_M
    noise = noise_of_a_run(last, observed_B, predicted_B)
    within = rank_within(predicted_B[ok], observed_B[ok], last.scale_group_B[ok], RANKED)
    score = {
        "rank_correlation": rank_correlation(predicted_B[ok], observed_B[ok]),
        "rank_correlation_within_size": within,
        "error": float(np.abs(tamed_row(observed_B[ok] - predicted_B[ok])).mean()) if ok.any() else float("nan"),
        "noise": noise,
    }
    half_B = predicted_B * (np.exp(Z90 * relative_B) - 1)
    held_out = HeldOut(
        [trial_id for trial_id, keep in zip(last.trial_ids, ok, strict=True) if keep],
        last.scale_B2[ok, 0].tolist(),
        last.scale_B2[ok, 1].tolist(),
        observed_B[ok].tolist(),
        predicted_B[ok].tolist(),
        (predicted_B - half_B)[ok].tolist(),
        (predicted_B + half_B)[ok].tolist(),
    )
    return score, held_out


def noise_of_a_run(last: Observations, observed_B: Array, predicted_B: Array) -> float:
    """sd of the objective between runs that differ in the seed alone; without replicates, of held-out residuals.

    A replicate that is absurdly far from the others says nothing about the noise, and is left out.
    """
    residual_B = (observed_B - predicted_B)[np.isfinite(observed_B - predicted_B)]
    residual_B = residual_B - np.median(residual_B) if len(residual_B) else residual_B
    usual = float(np.median(np.abs(residual_B))) / MEDIAN_OF_NORMAL if len(residual_B) else 0.0
    farthest = ABSURD * usual or np.inf  # where most are exactly 0 nothing is known of what is usual
    groups: dict[tuple[float, ...], list[float]] = {}
    for mix_K, scale_2, value in zip(last.mix_BK, last.scale_B2, observed_B, strict=True):
        if np.isfinite(value):
            groups.setdefault((*np.round(mix_K, 9), *scale_2), []).append(float(value))
    together = [np.asarray(values) for values in groups.values()]
    honest = [values[np.abs(values - np.median(values)) <= farthest] for values in together]
    replicated = [values for values in honest if len(values) > 1]
    if replicated:
        squares = sum(float(((values - values.mean()) ** 2).sum()) for values in replicated)
        return float(np.sqrt(squares / sum(len(values) - 1 for values in replicated)))
    return float(tamed_row(residual_B).std()) if len(residual_B) else 0.0
