"""What a person sees of a study on its way: how far it is, and what was asked and is not told yet."""

import json
import shlex

from raymix.counts import human, scale_words
from raymix.screens.screen import Screen
from raymix.study import Study
from raymix.study.agenda import expected_trials, out_of_hours, over
from raymix.study.budget import spent

SHOWN = 20  # trials not told yet that a person is shown; a machine gets all of them


def show_status(screen: Screen, study: Study) -> None:
    """How far a study is."""
    ledger, confirmed = study.ledger, study.confirmation()
    state = {
        "study": study.store.where,
        "trials": len(ledger.trials) if study.endless else expected_trials(ledger),
        "done": ledger.count("done"),
        "stopped": ledger.count("stopped"),
        "failed": ledger.count("failed"),
        "pending": len(ledger.pending()),
        "pending_trials": [
            trial.shown() | {"tokens_told": ledger.tokens_seen(trial.trial_id)} for trial in ledger.pending()
        ],
        "finished": study.finished,
        "over": over(ledger) if study.finished else None,
        "budget": {} if study.endless else study.space.budget.limits(),
        "spent": dict(vars(spent(ledger))),
        "notes": [note for body in ledger.reused.values() for note in body["notes"]],
        "confirmation": None if confirmed is None else confirmed.to_json(),
    }
    if screen.as_json:
        return print(json.dumps(state))
    words = f"finished: {state['over']}" if study.finished else go_on(study)
    ended = "".join(f", {state[how]} {how}" for how in ("stopped", "failed") if state[how] or how == "failed")
    screen.say(f"{state['done']} of {state['trials']} trials done{ended}; {words}")
    for line in _not_told(study):
        screen.say(line)


def go_on(study: Study) -> str:
    """The command that continues a study, and that which tells what a trainer of one's own found."""
    again = f"continue with: {study.command()}"
    if study.space.trains_proxies:
        return out_of_hours(study.ledger, study.ledger.hours, study.command()) or again
    return f"{again}, then raymix tell {shlex.quote(study.store.where)} RESULTS.csv"


def _not_told(study: Study) -> list[str]:
    """What a trainer of one's own was asked for and has not told; what trains here is nobody's to tell."""
    pending = study.ledger.pending()
    if study.space.trains_proxies or not pending:
        return []
    lines = ["asked and not told yet (one that will not be trained is told with status failed):"]
    for trial in pending[:SHOWN]:
        seen = study.ledger.tokens_seen(trial.trial_id)
        told = f", told up to {human(seen)}" if seen else ""
        purpose = ", confirmation" if trial.purpose == "confirm" else ""
        size = f"{scale_words(*trial.scale)}, seed {trial.seed}"
        lines.append(f"  {trial.trial_id}  {size}{purpose}{told}")
    where = shlex.quote(study.store.where)
    more = f"  and {len(pending) - SHOWN} more; " if len(pending) > SHOWN else "  "
    return [*lines, f"{more}their mixtures: raymix status {where} --json"]
