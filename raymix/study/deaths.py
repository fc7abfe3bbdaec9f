"""How often a trial's worker died, and whether the trial is begun again: where it got no further, not for ever."""

from collections import Counter
from dataclasses import dataclass, field

from raymix.study.ledger import Ledger
from raymix.study.stacks import Stack


@dataclass
class Deaths:
    """Of the workers of stacks, by name. A long trial on spot machines may lose any number, if it gets on between."""

    retries: int
    """So many deaths without a new row in between are forgiven."""
    counts: Counter[str] = field(default_factory=Counter)
    """Since the last new row."""
    reached: dict[str, float] = field(default_factory=dict)
    """Tokens at the last death."""

    def forgiven(self, stack: Stack, ledger: Ledger) -> bool:
        """Count one more; whether the stack is begun again."""
        reached = sum(ledger.tokens_seen(trial_id) for trial_id in stack.ids)
        further = reached > self.reached.get(stack.name, 0.0)
        self.counts[stack.name] = 1 if further else self.counts[stack.name] + 1
        self.reached[stack.name] = reached
        return self.counts[stack.name] <= self.retries
