"""The text that a study is trained on, as its first trials met it.

A space names sources; what lies there may change: files are added to a folder, a dataset is uploaded again. Held-out
text is then other text, and losses before and after are not of one quantity. Where the tokens of a domain are counted
the count tells; `available_tokens` that somebody wrote do not.
"""

import logging
from collections.abc import Mapping

from raymix.space import SpaceError
from raymix.study.ledger import Ledger

log = logging.getLogger(__name__)


def check_text(ledger: Ledger, text: Mapping[str, str]) -> None:
    """Record what the text is, by domain and eval domain, or see that it is what it was.

    Raises:
        SpaceError: it is not, and trials were trained on it.
    """
    changed = sorted(name for name in {*ledger.text, *text} if ledger.text.get(name) != text.get(name))
    trained = any(ledger.tokens_seen(trial_id) for trial_id in ledger.trials)
    if changed and ledger.text and trained:
        raise SpaceError(
            f"the text of {', '.join(changed)} is not what this study was begun with: losses on other held-out "
            "text are others. Put it back, or begin a new study (--fork NEW takes the losses as they are)"
        )
    if changed:
        for words in _other_text(ledger, text):
            log.warning("%s", words)
        ledger.note("text", dict(text))


def _other_text(ledger: Ledger, text: Mapping[str, str]) -> list[str]:
    """A sentence for every study whose losses were taken, and whose text of the same names is not what lies here."""
    said = []
    for body in ledger.reused.values():
        other = sorted(name for name, found in body.get("text", {}).items() if text.get(name, found) != found)
        if other:
            said.append(f"from {body['source']}: its trials met other text of {', '.join(other)}: its losses are taken "
                        "as they are")  # fmt: skip
    return said
