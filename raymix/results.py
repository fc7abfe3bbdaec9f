"""The derived files of a study: everything here can be deleted and written again from the records."""

from __future__ import annotations

import hashlib
import json

from pydantic import TypeAdapter

from raymix import __version__
from raymix.recommend import NotEnoughTrialsError, Recommendation
from raymix.report import write_report
from raymix.study import Study


def results(study: Study) -> Recommendation:
    """What `write_results` gives; read back where nothing has changed since it was written."""
    path = study.store.path
    if (path / "law.json").is_file() and (path / "report.html").is_file():
        written = study.store.read_json("law.json")
        if isinstance(written, dict) and written.get("fitted_on") == fitted_on(study):
            return TypeAdapter(Recommendation).validate_python(study.store.read_json("recommendation.json"))
    return write_results(study)


def fitted_on(study: Study) -> str:
    """Hash of everything the results depend on: the rows, the space as it is now, and this version."""
    rows = study.table().table.to_pydict()
    key = [
        __version__,
        study.seed,
        study.space.model_dump(mode="json"),
        {name: _null_for_nan(rows[name]) for name in rows},
    ]
    return hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()


def _null_for_nan(values: list[object]) -> list[object]:
    """NaN as null: it has no place in JSON."""
    return [None if value != value else value for value in values]


def write_results(study: Study) -> Recommendation:
    """observations.parquet, law.json, recommendation.json and report.html.

    Without enough trials for a law, the table and the report are still written.

    Raises:
        NotEnoughTrialsError: fewer than 4 trials have losses.
    """
    path, space, table = study.store.path, study.space, study.table()
    table.write(path / "observations.parquet")
    per_round = space.budget.per_round
    rounds = {trial_id: i // per_round for i, trial_id in enumerate(study.ledger.trials)}
    state = {**study.store.read_json("study.json"), "study": str(path), "command": study.command(), "rounds": rounds}
    try:
        found, held_out, law = study.read_law()
    except NotEnoughTrialsError:
        write_report(path / "report.html", space, table, None, None, state)
        raise
    names = {"domains": list(space.domain_names), "eval_domains": list(space.eval_names)}
    study.store.write_json("recommendation.json", found.to_json())
    write_report(path / "report.html", space, table, found.to_json(), dict(vars(held_out)), state)
    study.store.write_json("law.json", law | names | {"fitted_on": fitted_on(study)})  # last: it vouches for the others
    return found
