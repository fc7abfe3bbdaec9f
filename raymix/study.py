"""`Study`: a search with a memory on disk. Run it on Ray, or ask and tell with a trainer of your own.

study = Study.create(space, "runs/first", seed=0)
for trial in study.ask(8):
    study.tell(trial.trial_id, losses=my_trainer(trial.mixture, trial.n_params, trial.n_tokens, trial.seed))
print(study.recommend().mixture)
"""

from __future__ import annotations

import platform
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from typing import Any

import yaml

from raymix.design import Designer
from raymix.held_out import HeldOut
from raymix.ledger import Ledger, Trial
from raymix.observations import Observations
from raymix.recommend import Recommendation, fit_law, recommend, target_from
from raymix.space import Scale, SearchSpace, SpaceError
from raymix.store import Store, StoreError

FORMAT = 1  # of the study directory
VERSIONS = ("raymix", "ray", "torch", "transformers", "numpy", "scipy")


class Study:
    """One search space, one directory, one seed. Make it with `create`, `open` or `resume`."""

    def __init__(self, store: Store, space: SearchSpace, seed: int, designer: Designer | None = None) -> None:
        self.store = store
        self.space = space
        self.seed = seed
        self._designer = designer
        self.ledger = Ledger(space, seed, store, designer)

    @classmethod
    def create(cls, space: SearchSpace, path: str | Path, seed: int = 0, designer: Designer | None = None) -> Study:
        """Begin a study in an empty or new directory.

        Raises:
            StoreError: there is a study already.
        """
        store = Store(path)
        with store.locked():
            if store.exists:
                raise StoreError(f"{store.path}: there is a study already; open it, or choose another directory")
            _write_space(store, space)
            store.write_json("study.json", _identity(space, seed))
        return cls(store, space, seed, designer)

    @classmethod
    def open(cls, path: str | Path, designer: Designer | None = None) -> Study:
        """A study from its directory alone.

        Raises:
            StoreError: there is none, or it is damaged.
        """
        store = Store(path)
        about = store.read_json("study.json")
        if about.get("format") != FORMAT:
            raise StoreError(f"{store.path}: written in format {about.get('format')}, this raymix reads {FORMAT}")
        space = SearchSpace.load(store.path / "space.yaml")
        space = SearchSpace.parse(space.model_dump(mode="json", exclude_none=True), folder=Path(about["folder"]))
        return cls(store, space, int(about["seed"]), designer)

    @classmethod
    def resume(
        cls, space: SearchSpace, path: str | Path, seed: int | None = None, designer: Designer | None = None
    ) -> Study:
        """The study in `path`, begun if there is none. Budget, objective and constraints may have changed since.

        Raises:
            SpaceError: anything else changed; the message lists what.
        """
        store = Store(path)
        if not store.exists:
            return cls.create(space, path, seed or 0, designer)
        study = cls.open(path, designer)
        if study.space.hash() != space.hash():
            changed = "; ".join(_differences(_raw(study.space), _raw(space))[:5])
            raise SpaceError(
                f"{store.path}: this study was begun with another space ({changed}); undo the change, or give the new "
                "space a directory of its own with --study"
            )
        if seed is not None and seed != study.seed:
            raise SpaceError(f"{store.path}: this study was begun with seed {study.seed}, not {seed}")
        if _raw(study.space) != _raw(space):
            with store.locked():
                _write_space(store, space)
            study = cls(store, space, study.seed, designer)
        return study

    @contextmanager
    def writing(self) -> Iterator[Ledger]:
        """The ledger, up to date and ours alone until the block ends."""
        with self.store.locked():
            self.ledger = Ledger(self.space, self.seed, self.store, self._designer)
            yield self.ledger

    def ask(self, n: int) -> list[Trial]:
        """n trials to run: each has `trial_id, mixture, n_params, n_tokens, seed`."""
        with self.writing() as ledger:
            return ledger.ask(n)

    def tell(
        self,
        trial_id: str,
        losses: Mapping[str, float],
        n_params: float | None = None,
        n_tokens: float | None = None,
        tokens_seen: Mapping[str, float] | None = None,
        status: str = "done",
    ) -> None:
        """The losses (nats per token) of a trial, by eval domain; `status="checkpoint"` for one on the way.

        Raises:
            ValueError: unknown trial or eval domain, or a loss is missing.
        """
        unknown = set(losses) - set(self.space.eval_names)
        if unknown:
            raise ValueError(f"{sorted(unknown)[0]!r} is not an eval domain ({', '.join(self.space.eval_names)})")
        row: dict[str, Any] = {f"loss/{name}": loss for name, loss in losses.items()} | {"status": status}
        row |= {f"tokens/{name}": tokens for name, tokens in (tokens_seen or {}).items()}
        row |= {key: value for key, value in (("n_params", n_params), ("n_tokens", n_tokens)) if value is not None}
        with self.writing() as ledger:
            ledger.observe(trial_id, row)

    def fail(self, trial_id: str, reason: str) -> None:
        """A trial that gave no losses, and why."""
        with self.writing() as ledger:
            ledger.fail(trial_id, reason)

    def table(self) -> Observations:
        """All rows so far."""
        return self.ledger.table()

    @property
    def finished(self) -> bool:
        """Whether the budget is spent and every trial has ended."""
        return len(self.ledger.trials) >= self.space.budget.trials and not self.ledger.pending()

    def recommend(self, scale: Scale | Sequence[float] | None = None) -> Recommendation:
        """The best mixture at `scale` (default: the target of the space).

        Raises:
            NotEnoughTrialsError: fewer than 4 trials have losses.
        """
        return self.read_law(scale)[0]

    def read_law(self, scale: Scale | Sequence[float] | None = None) -> tuple[Recommendation, HeldOut, dict[str, Any]]:
        """The recommendation, the cross-validation behind it, and the law as JSON."""
        table = self.table()
        law = fit_law(self.space, table)
        target = target_from(self.space, *(scale or ()))
        found, held_out = recommend(self.space, table, law, target, self.seed)
        return found, held_out, law.to_json()

    def command(self) -> str:
        """What continues this study from a shell."""
        return f"raymix run {self.store.path / 'space.yaml'} --study {self.store.path}"


def _write_space(store: Store, space: SearchSpace) -> None:
    text = yaml.safe_dump(_raw(space), sort_keys=False, allow_unicode=True)
    store.write(
        "space.yaml", b"# The search space as resolved; raymix run on this file continues the study.\n" + text.encode()
    )


def _raw(space: SearchSpace) -> dict[str, Any]:
    return space.model_dump(mode="json", exclude_none=True)


def _identity(space: SearchSpace, seed: int) -> dict[str, Any]:
    versions = {"python": platform.python_version()}
    for name in VERSIONS:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return {
        "format": FORMAT,
        "name": space.name,
        "seed": seed,
        "created": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "space_hash": space.hash(),
        "folder": str(space.folder),
        "versions": versions,
    }


def _differences(before: Any, after: Any, where: str = "") -> list[str]:
    """`key: old -> new` for every leaf that differs."""
    if isinstance(before, dict) and isinstance(after, dict):
        keys = [*before, *(key for key in after if key not in before)]
        return [d for key in keys for d in _differences(before.get(key), after.get(key), f"{where}.{key}".lstrip("."))]
    if isinstance(before, list) and isinstance(after, list) and len(before) == len(after):
        pairs = enumerate(zip(before, after, strict=True))
        return [d for i, (b, a) in pairs for d in _differences(b, a, f"{where}.{i}")]
    return [] if before == after else [f"{where}: {before} -> {after}"]
