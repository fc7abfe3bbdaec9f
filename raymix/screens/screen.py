"""What a person sees in the terminal, and the JSON a machine reads instead.

One `Screen` per command. With `as_json`, standard output carries JSON lines alone: events while a study runs
(`{"event": ...}`), then one final object.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, redirect_stdout
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, TextIO

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Column, Table
from rich.text import Text

from raymix.counts import human, scale_words

if TYPE_CHECKING:
    from raymix.corpus import Corpus
    from raymix.on_ray.progress import Progress as RunProgress
    from raymix.plan import Plan
    from raymix.space import SearchSpace
    from raymix.study import Study
    from raymix.target.recommend import Recommendation


TITLES = {"use it": "Recommended mixture", "confirm first": "Optimum under the law, to be confirmed,"}  # by verdict
PIPE = 1000  # columns where nobody looks: a file or the next command wants whole names and one sentence a line


class Screen:
    """Rich tables and progress on a terminal; JSON lines with `as_json`. A context manager."""

    def __init__(self, as_json: bool) -> None:
        self.as_json = as_json
        self.console = Console(stderr=as_json, highlight=False)
        if not self.console.is_terminal and "COLUMNS" not in os.environ:
            self.console.width = PIPE
        self._bar: Progress | None = None
        self._task = TaskID(0)
        self._out: TextIO | None = None

    def __enter__(self) -> Screen:
        return self

    def __exit__(self, *_: object) -> None:
        self._stop_bar()

    def say(self, text: str) -> None:
        """A sentence for people (on standard error with `as_json`); in one piece, so that a command can be copied."""
        self._stop_bar()
        self.console.print(Text(text), soft_wrap=True)

    @contextmanager
    def working(self, what: str) -> Iterator[Callable[[str, float], None]]:
        """Progress of work in stages: call with a stage and a fraction from 0 to 1; never called, a bar that pulses."""
        self._start_bar(what, None)
        began: dict[str, float] = {}

        def progress(stage: str, fraction: float) -> None:
            seconds = time.monotonic() - began.setdefault(stage, time.monotonic())
            if self._bar is not None:
                left = f"{fraction:.0%}, {duration(seconds * (1 / fraction - 1))} left" if 0 < fraction < 1 else ""
                self._bar.update(self._task, completed=fraction, total=1.0, description=stage, note=left)

        with self._ours_alone():
            yield progress
        self._stop_bar()

    @contextmanager
    def training(self) -> Iterator[Callable[[str, RunProgress], None]]:
        """Progress of a study that runs here: call with an event."""
        with self._ours_alone():
            yield self.trials

    @contextmanager
    def _ours_alone(self) -> Iterator[None]:
        """Keep standard output to our events with `as_json`: Ray prints there when a node is lost, asked or not."""
        self._out = sys.stdout
        with redirect_stdout(sys.stderr) if self.as_json else nullcontext():
            yield
        self._out = None

    def trials(self, event: str, progress: RunProgress) -> None:
        """One event of a running study."""
        if self.as_json:
            keys = ("total", "done", "failed", "running", "best", "eta_seconds")
            known = {key: getattr(progress, key) for key in keys}
            return print(json.dumps({"event": event, **known}), flush=True, file=self._out)
        if self._bar is None:
            self._start_bar("trials", progress.total)
        if self._bar is not None:
            ended = progress.done + progress.failed
            name = "starting Ray" if event == "starting" else "trials"
            self._bar.update(self._task, description=name, completed=ended, total=progress.total, note=_note(progress))

    def recommendation(self, study: Study, found: Recommendation) -> None:
        """The end of a study."""
        self._stop_bar()
        if self.as_json:
            return print(json.dumps({"event": "finished", "study": study.store.where, **found.to_json()}), flush=True)
        law = found.law
        self.answer(
            found,
            f"Held-out rank correlation of the objective {figure(law['rank_correlation'])} "
            f"(within a size {figure(law['rank_correlation_within_size'])}); in {found.unit}: error "
            f"{figure(law['error'], 3)}, noise of one run {law['noise']:.3f}, optimum within "
            f"{found.certificate['gap']:.0e}.",
        )
        self.say(f"Page: {study.store.url('report.html')}")

    def answer(self, found: Recommendation, certainty: str) -> None:
        """A recommendation for people, with a sentence on how sure it is."""
        self.console.print(mixture_table(found))
        self.console.print(baseline_table(found))
        self.say(certainty)
        self.notes(found.law["notes"])
        self.console.print(Text(f"Verdict: {found.verdict['answer']}: {found.verdict['reason']}.", style="bold"))

    def notes(self, said: Sequence[str], kind: str = "Note") -> None:
        """What should not be overlooked."""
        for one in said:
            self.console.print(Text(f"{kind}: {one}", style="yellow"))

    def plan(self, space: SearchSpace, found: Plan) -> None:
        """A plan."""
        if self.as_json:
            return print(json.dumps(asdict(found)))
        table = Table("rung", "tokens", "trials", "FLOPs a trial", "seconds a trial", title="Trials")
        for rung in found.rungs:
            size = f"{human(rung.n_params)} ({rung.shape}){', confirmation' if rung.purpose == 'confirm' else ''}"
            table.add_row(size, human(rung.n_tokens), str(rung.trials), f"{rung.flops:.1e}", f"{rung.seconds:.0f}")
        self.console.print(table)
        epochs_of = ("prior's epochs, proxy", "prior's epochs, target", "most epochs, target")
        table = Table(named("domain"), "tokens", "prior", "allowed", *epochs_of, title="Domains")
        for d in found.domains:
            epochs = f"{d.prior_epochs_proxy:.2f}", f"{d.prior_epochs_target:.2f}", f"{d.highest_epochs_target:.2f}"
            table.add_row(
                Text(d.name), human(d.available_tokens), f"{d.prior:.1%}", f"{d.lowest:.1%} - {d.highest:.1%}", *epochs
            )
        self.console.print(table)
        self.notes(found.warnings, "Warning")
        self.console.print(
            f"{found.trials} trials, {human(found.tokens)} tokens, {found.flops:.1e} FLOPs: about "
            f"{duration(found.seconds)} with {found.slots} trials at a time on this machine (measured on some steps)."
        )

    def corpus(self, found: Corpus) -> None:
        """A prepared corpus."""
        if self.as_json:
            facts = {"path": str(found.path), "hash": found.hash, "vocab": found.vocab}
            facts |= {"tokens": found.tokens, "copied": found.copied}
            return print(json.dumps(facts))
        table = Table(named("domain"), "train tokens", "of them copies")
        for name, tokens in found.tokens.items():
            table.add_row(Text(name), human(tokens), f"{found.copied[name]:.0%}")
        self.console.print(table)
        self.say(f"in {found.path}")

    def _start_bar(self, name: str, total: float | None) -> None:
        if self.as_json or not self.console.is_terminal:
            return
        words, note = TextColumn("{task.description}"), TextColumn("{task.fields[note]}")
        columns = SpinnerColumn(), words, BarColumn(), TimeElapsedColumn(), note
        self._bar = Progress(*columns, console=self.console, transient=True)
        self._task = self._bar.add_task(name, total=total, note="")
        self._bar.start()

    def _stop_bar(self) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None


def show_costs(
    screen: Screen, money: Mapping[str, Any] | None, budgets: Sequence[Mapping[str, Any]], noise: str, unit: str
) -> None:
    """Tables of a `Money` and of some `Budgeted` as plain values; `unit` is that of the objective."""
    if money is not None:
        title = f"Money: {money['workers']} x {money['instance']}, {money['cloud']} {money['region']}"
        table = Table("rung", "trials", "hours", "on demand", "spot", "preemptions", title=title)
        for rung in money["rungs"]:
            costs = (f"{money['currency']} {rung[kind]:.2f}" for kind in ("on_demand", "spot"))
            size, hours = human(rung["n_params"]), f"{rung['hours']:.2f}"
            table.add_row(size, str(rung["trials"]), hours, *costs, f"{rung['preemptions']:.2f}")
        screen.console.print(table)
        total = f"{money['currency']} {money['on_demand']:.2f} on demand, {money['spot']:.2f} on spot, head included"
        hours = (
            f"{money['hours']:.1f} {'GPU' if money['gpu'] else 'machine'} hours, {money['wall_hours']:.1f} on the clock"
        )
        source = f"prices of {money['date']}, see {money['source']}; spot prices move"
        screen.say(f"{total}; {hours} ({money['basis']}; {source}).")
    table = Table("trials of the search", f"resolve a gain of ({unit}, 90%)", title=f"What a budget resolves ({noise})")
    for budget in budgets:
        table.add_row(Text(str(budget["trials"])), f"{budget['resolves']:.4f}")
    screen.console.print(table)


def _note(progress: RunProgress) -> str:
    words = [f"{progress.done}/{progress.total} done", f"{progress.running} running"]
    if progress.failed:
        words.append(f"{progress.failed} failed")
    if progress.eta_seconds is not None:
        words.append(f"{duration(progress.eta_seconds)} left")
    if progress.best:
        words.append("best so far " + " ".join(f"{name} {share:.0%}" for name, share in progress.best.items()))
    return ", ".join(words).replace("[", "(").replace("]", ")")  # rich would read brackets as markup


def named(header: str) -> Column:
    """A column of names: in a narrow terminal they go on below, for one cut short may stand for several."""
    return Column(header, overflow="fold")


def mixture_table(found: Recommendation) -> Table:
    """Shares, how far they may move, and those of the mixture used today, if it is known."""
    reference = "prior" if "prior" in found.baselines else "uniform"
    title = TITLES.get(found.verdict["answer"].partition(":")[0], "Optimum under the law, not recommended,")
    table = Table(
        named("domain"), "share", "near-optimal", "epochs", reference, title=f"{title} at {scale_words(**found.scale)}"
    )
    for name, share in found.mixture.items():
        near, today = found.near_optimal[name], found.baselines[reference].mixture[name]
        may = f"{near['low']:.1%} - {near['high']:.1%}"
        table.add_row(Text(name), f"{share:.1%}", may, figure(found.epochs[name]), f"{today:.1%}")
    return table


def baseline_table(found: Recommendation) -> Table:
    """What mixtures are predicted to give."""
    own = _own(found)
    table = Table("mixture", f"predicted objective ({found.unit})", f"worse than {own} by", title="At the target")
    o = found.objective
    table.add_row(own, f"{o.mean:.4f}  ({o.low:.4f} - {o.high:.4f})", "")
    for name, baseline in found.baselines.items():
        o, gain = baseline.objective, baseline.gain
        table.add_row(
            name, f"{o.mean:.4f}  ({o.low:.4f} - {o.high:.4f})", f"{gain.mean:.4f}  ({gain.low:.4f} - {gain.high:.4f})"
        )
    return table


def _own(found: Recommendation) -> str:
    """What the mixture is called: only the verdict `use it` makes it a recommendation."""
    return "recommended" if found.verdict["answer"] == "use it" else "optimum"


def figure(value: float | None, decimals: int = 2) -> str:
    """A score; ? where it is not known."""
    return "?" if value is None else f"{value:.{decimals}f}"


def duration(seconds: float) -> str:
    """90 -> 1 min 30 s."""
    minutes, rest = divmod(int(seconds + 0.5), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"
