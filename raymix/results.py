"""The derived files of a study: everything here can be deleted and written again from the records."""

import hashlib
import io
import json
from typing import Any

import numpy as np
import pyarrow.parquet
from pydantic import TypeAdapter

from raymix import __version__
from raymix.laws import law_from_json
from raymix.laws.reach import Reach
from raymix.report import render
from raymix.space import SearchSpace
from raymix.store import StoreError
from raymix.study import Study
from raymix.tables.law_file import LawFile, Trained, law_json
from raymix.target.held_out import HeldOut
from raymix.target.objective import minimised
from raymix.target.recommend import NotEnoughTrialsError, Recommendation
from raymix.target.refits import rows_of

LEARNT = ("law.json", "recommendation.json", "confirmation.json")


def results(study: Study) -> Recommendation:
    """What `write_results` gives; read back where nothing has changed since it was written."""
    if up_to_date(study) and study.store.has("report.html"):
        return TypeAdapter(Recommendation).validate_json(study.store.read("recommendation.json"))
    return write_results(study)


def up_to_date(study: Study) -> bool:
    """Whether recommendation.json is what the rows and the space give as they are now."""
    store = study.store
    if not (store.has("law.json") and store.has("recommendation.json")):
        return False
    try:
        written, found = store.read_json("law.json"), store.read("recommendation.json")
    except StoreError:  # cut short by whoever copied it, say: it is written anew
        return False
    return isinstance(written, dict) and written.get("vouches_for") == [fitted_on(study), _sha256(found)]


def fitted_on(study: Study) -> str:
    """Hash of everything the results depend on: the rows, the space as it is now, and this version."""
    rows = study.table().table.to_pydict()
    key = [
        __version__,
        study.seed,
        study.space.model_dump(mode="json"),
        {name: [None if value != value else value for value in rows[name]] for name in rows},  # JSON has no NaN
    ]
    return hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def write_results(study: Study) -> Recommendation:
    """observations.parquet, law.json, recommendation.json and report.html.

    Without enough trials for a law, the table and the report are still written, and what others had taught is removed.

    Raises:
        NotEnoughTrialsError: as `fit_law`; it names the page.
    """
    store, space, table = study.store, study.space, study.table()
    sink = io.BytesIO()
    pyarrow.parquet.write_table(table.table, sink)
    store.write("observations.parquet", sink.getvalue())
    rounds = {trial.trial_id: trial.round for trial in study.ledger.trials.values()}
    state = {**store.read_json("study.json"), "study": store.where, "command": study.command(), "rounds": rounds}
    try:
        found, held_out, law = study.read_law()
    except NotEnoughTrialsError as error:
        for name in LEARNT:
            store.objects.delete(name)
        store.write("report.html", render(space, table, None, None, state).encode(errors="xmlcharrefreplace"))
        raise NotEnoughTrialsError(f"{error}. Page: {store.url('report.html')}") from None
    confirmed = study.confirmation()
    if confirmed is not None:
        store.write_json("confirmation.json", confirmed.to_json())
    store.write_json("recommendation.json", found.to_json())
    seen = confirmed.to_json() if confirmed is not None else None
    page = render(space, table, found.to_json(), dict(vars(held_out)), state, seen)
    store.write("report.html", page.encode(errors="xmlcharrefreplace"))
    vouches_for = [fitted_on(study), _sha256(store.read("recommendation.json"))]
    kept = law_json(_law_file(study, law, found, held_out))
    store.write_json("law.json", kept | {"vouches_for": vouches_for})  # last, when the others are there
    return found


def _law_file(study: Study, law: dict[str, Any], found: Recommendation, held_out: HeldOut) -> LawFile:
    """The law with what `raymix optimize` reads beside it: the objective, the runs, how it did on those held out."""
    space, usual = study.space, float(np.median(held_out.observed)) if held_out.observed else 1.0
    ranks = {key: found.law[key] for key in ("rank_correlation", "rank_correlation_within_size")}
    error, noise = (None if (value := found.law[key]) is None else value / usual for key in ("error", "noise"))
    score = {"name": law["law"], "held_out": "mixtures", "weighted_error": error, "noise": noise, **ranks}
    choice = {"name": law["law"], "why": "the law of a study", "scores": [score]}
    usable = study.table().usable()
    reach = Reach.of(rows_of(space, usable), law["law"])
    return LawFile(
        law_from_json(law), space.domain_names, space.eval_names, space.weights_M, Trained.on(usable), choice,
        reach=reach, not_here=_not_in_a_law(space), minimised=minimised(space.metrics),
    )  # fmt: skip


def _not_in_a_law(space: SearchSpace) -> tuple[str, ...]:
    """Keys by which the space decides a mixture, beside the weights that the file has."""
    objective, recipe = space.objective, space.recipe
    asked = {
        f"objective.reduce: {objective.reduce}": objective.reduce != "mean",
        "objective.guardrails": objective.guardrails,
        "objective.pull": objective.pull,
        "constraints.groups": space.constraints.groups,
        "min_share": any(domain.min_share > 0 for domain in space.domains),
        "max_share": any(domain.max_share < 1 for domain in space.domains),
        "available_tokens": np.isfinite(space.available_K).any(),
        "prior": any(domain.prior is not None for domain in space.domains),
        "recipe.stages": any(stage.mixture is not None for stage in recipe.stages),
    }
    return tuple(key for key, value in asked.items() if value)
