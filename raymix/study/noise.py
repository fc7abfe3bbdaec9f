"""The noise of one run, for a plan: as the runs that there are show it, else assumed; and which of the two."""

from collections.abc import Iterator
from dataclasses import dataclass

from raymix.laws import Law
from raymix.laws.repetition import stocked
from raymix.observations import Observations
from raymix.space import SearchSpace
from raymix.store import Store
from raymix.study.evidence import take_evidence
from raymix.study.files import read_identity, read_space
from raymix.study.ledger import Ledger
from raymix.target.held_out import noise_of_a_run
from raymix.target.objective import reduce_losses
from raymix.target.recommend import NotEnoughTrialsError, fit_law

ASSUMED = 0.01  # nats, of the objective of one run, where nobody has measured it


@dataclass(frozen=True)
class Noise:
    """sd of the objective between runs of one mixture, and where that number is from."""

    nats: float
    source: str
    assumed: bool = False


def noise_of(space: SearchSpace, where: str) -> Noise:
    """Of the study of this space in `where`, where it has trials enough; else of its evidence (`from`); else assumed.

    Raises:
        SpaceError: evidence cannot be read.
        StoreError: the study is damaged.
    """
    for table, source in _tables(space, where):
        try:
            law = fit_law(space, table)
        except NotEnoughTrialsError:
            continue
        nats = noise_in(space, table.usable().last(), law)
        if nats > 0:  # runs that the law fits exactly show none
            return Noise(nats, f"as seen in {len(set(table.usable().trial_ids))} trials of {source}")
    return Noise(ASSUMED, "assumed: give --noise", assumed=True)


def noise_in(space: SearchSpace, last: Observations, law: Law) -> float:
    """As `noise_of_a_run`, with residuals of a law fitted to these last rows of trials, too."""
    fitted_BM = stocked(law, last.unique_BK).predict(last.mix_BK, last.scale_B2)  # with the repeats that they had
    weights_M, reduce = space.weights_M, space.objective.reduce
    observed_B, fitted_B = (reduce_losses(loss_BM, weights_M, reduce) for loss_BM in (last.loss_BM, fitted_BM))
    return noise_of_a_run(last, observed_B, fitted_B)


def _tables(space: SearchSpace, where: str) -> Iterator[tuple[Observations, str]]:
    store = Store(where)
    if store.exists:
        about = read_identity(store)
        if read_space(store, about).hash() == space.hash():
            yield Ledger(space, int(about["seed"]), store).table(), where
    if space.reuse:
        evidence = Ledger(space)
        take_evidence(evidence)
        yield evidence.table(), ", ".join(entry.source for entry in space.reuse)
