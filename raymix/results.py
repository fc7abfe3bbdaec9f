"""The derived files of a study: everything here can be deleted and written again from the records."""

from __future__ import annotations

from raymix.recommend import NotEnoughTrialsError, Recommendation
from raymix.report import write_report
from raymix.study import Study


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
    study.store.write_json("law.json", law | names)
    study.store.write_json("recommendation.json", found.to_json())
    write_report(path / "report.html", space, table, found.to_json(), dict(vars(held_out)), state)
    return found
