"""The three parsers that users feed, under arbitrary bytes: a value, or an error of ours that says what is wrong.

`python -m tests.faults.fuzz --minutes 10` mutates valid inputs without end; with atheris installed, `--atheris` lets
its coverage choose the mutations. `test_fuzz.py` runs the same targets for a few hundred inputs.
"""

import argparse
import contextlib
import logging
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import FunctionType
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from raymix import SearchSpace, Study
from raymix.observations import Observations
from raymix.space import SpaceError
from raymix.store import StoreError
from tests import worlds

TOKENS = [
    *(b"no", b"1e-3", b"nan", b"-inf", b"&a", b"*a", b"!!python/object", b"<<:", b"{", b"]", b"\x00", b"\xff\xfe"),
    *(b"9" * 400, b"loss/", b"mixture/", b"trial_id", b"\n", b",", b'"', b"null", b"~", b"0x10", b"  - ", b"\t"),
]
ROOM = Path(tempfile.gettempdir())


def space(data: bytes) -> None:
    """A space file."""
    with tempfile.TemporaryDirectory(dir=ROOM) as folder:
        file = Path(folder) / "space.yaml"
        file.write_bytes(data)
        with contextlib.suppress(SpaceError):
            SearchSpace.load(file)


def table(data: bytes) -> None:
    """An observation table, as CSV and as Parquet."""
    with tempfile.TemporaryDirectory(dir=ROOM) as folder:
        for suffix in (".csv", ".parquet"):
            file = Path(folder) / f"runs{suffix}"
            file.write_bytes(data)
            with contextlib.suppress(ValueError, OSError):
                Observations.read(file).usable()


def record(data: bytes) -> None:
    """The first, a middle and the last record of a study."""
    with tempfile.TemporaryDirectory(dir=ROOM) as folder:
        for i in (0, 1, -1):
            study = Path(folder) / f"study{i}"
            names = small_study(study)
            (study / "records" / names[i]).write_bytes(data)
            with contextlib.suppress(StoreError, SpaceError):
                Study.open(study).table()


TARGETS: dict[str, Callable[[bytes], None]] = {"space": space, "table": table, "record": record}
_FILES: dict[str, bytes] = {}


def small_study(path: Path) -> list[str]:
    """A small study, written once and copied after that; the names of its records."""
    if not _FILES:
        with tempfile.TemporaryDirectory(dir=ROOM) as folder:
            made = Study.create(worlds.space(), Path(folder) / "study", seed=0)
            one, two = made.ask(2)
            made.tell(one.trial_id, dict.fromkeys(worlds.DOMAINS, 2.5))
            made.fail(two.trial_id, "why")
            files = [file for file in made.store.path.rglob("*") if file.is_file() and file.name != "lock"]
            _FILES.update({str(file.relative_to(made.store.path)): file.read_bytes() for file in files})
    for name, content in _FILES.items():
        (path / name).parent.mkdir(parents=True, exist_ok=True)
        (path / name).write_bytes(content)
    return sorted(Path(name).name for name in _FILES if name.startswith("records/"))


def seeds(target: str) -> list[bytes]:
    """Valid inputs to start from."""
    if target == "space":
        shipped = sorted((Path(__file__).parents[2] / "search_spaces").rglob("*.yaml"))
        return [file.read_bytes() for file in shipped] + [
            yaml.safe_dump(worlds.space().model_dump(mode="json")).encode()
        ]
    if target == "table":
        rows: dict[str, list[Any]] = {
            **{"trial_id": ["a", "b"], "status": ["done", "failed"], "n_params": [1e6, 1e6], "n_tokens": [1e8, 1e8]},
            **{"mixture/x": [0.5, 1.0], "mixture/y": [0.5, 0.0], "loss/x": [2.0, 3.0]},
        }
        sink = pa.BufferOutputStream()
        pq.write_table(pa.table(rows), sink)
        lines = [",".join(rows), *(",".join(str(column[i]) for column in rows.values()) for i in range(2))]
        return ["\n".join(lines).encode(), sink.getvalue().to_pybytes()]
    with tempfile.TemporaryDirectory(dir=ROOM) as folder:
        return [(Path(folder) / "records" / name).read_bytes() for name in small_study(Path(folder))]


def mutated(data: bytes, rng: random.Random) -> bytes:
    """A few bytes changed, cut, doubled, or replaced by what parsers trip over."""
    out = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 4, 16))):
        start = rng.randrange(len(out) + 1)
        stop = min(len(out), start + rng.choice((0, 1, 4, 64)))
        piece = rng.choice((bytes([rng.randrange(256)]), rng.choice(TOKENS), bytes(out[start:stop]) * 2, b""))
        out[start:stop] = piece
    return bytes(out)


def run(minutes: float, seed: int) -> Counter[str]:
    """Inputs tried per target. An exception that is not ours ends it, with the input in `fuzz-crash`."""
    rng, tried, end = random.Random(seed), Counter[str](), time.monotonic() + 60 * minutes
    corpus = {name: seeds(name) for name in TARGETS}
    while time.monotonic() < end:
        for name, target in TARGETS.items():
            data = mutated(rng.choice(corpus[name]), rng)
            try:
                target(data)
            except BaseException:
                Path("fuzz-crash").write_bytes(data)
                print(f"{name}: the input is in ./fuzz-crash", file=sys.stderr)
                raise
            tried[name] += 1
    return tried


def led_by_coverage(target: str, minutes: float) -> None:
    """Mutations chosen by atheris, from the same seeds; does not return."""
    import atheris  # type: ignore[import-untyped]

    for name in [name for name in sys.modules if name.startswith(("raymix.", "yaml."))]:
        owners = [sys.modules[name], *(each for each in vars(sys.modules[name]).values() if isinstance(each, type))]
        for function in [each for owner in owners for each in vars(owner).values()]:
            if isinstance(function, FunctionType) and function.__module__ == name:
                atheris.instrument_func(function)
    corpus = Path(tempfile.mkdtemp(prefix="raymix-fuzz-"))
    for i, data in enumerate(seeds(target)):
        (corpus / str(i)).write_bytes(data)
    atheris.Setup([sys.argv[0], f"-max_total_time={int(60 * minutes)}", str(corpus)], TARGETS[target])
    atheris.Fuzz()


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--atheris", choices=TARGETS, help="one target, mutations led by coverage")
    options = parser.parse_args()
    logging.disable()  # a torn last record is said each time
    if options.atheris:
        led_by_coverage(options.atheris, options.minutes)
    for name, count in run(options.minutes, options.seed).items():
        print(f"{name:8} {count:8} inputs, none crashed")


if __name__ == "__main__":
    main()
