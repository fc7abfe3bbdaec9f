"""Damage to the files of a small study: every truncation point, then single flipped bits."""

import logging
import random
from collections import Counter
from logging.handlers import BufferingHandler
from pathlib import Path

from raymix import Study
from raymix.space import SpaceError
from raymix.store import StoreError
from tests.faults import fuzz

FLIPS = 3000
LOSS, RESTART = "SILENT LOSS", "SILENT RESTART"
Known = list[dict[str, object]]


def damage(rng: random.Random, room: Path) -> dict[str, Counter[str]]:
    """What became of the study, for each kind of damage."""
    path = room / "small"
    fuzz.small_study(path)
    truth = known(path)
    files = {file: file.read_bytes() for file in sorted(path.rglob("*")) if file.is_file() and file.name != "lock"}
    cuts = [(file, content[:n]) for file, content in files.items() for n in range(len(content))]
    flips = [flipped(*rng.choice(list(files.items())), rng) for _ in range(FLIPS)]
    seen: dict[str, Counter[str]] = {"truncations": Counter(), "bit flips": Counter()}
    for kind, inputs in zip(seen, (cuts, flips), strict=True):
        for file, content in inputs:
            file.write_bytes(content)
            seen[kind][verdict(path, truth)] += 1
            for torn in path.rglob("*.damaged"):
                torn.unlink()
            file.write_bytes(files[file])
    return seen


def flipped(file: Path, content: bytes, rng: random.Random) -> tuple[Path, bytes]:
    """The same file with one bit changed."""
    out = bytearray(content)
    out[rng.randrange(len(out))] ^= 1 << rng.randrange(8)
    return file, bytes(out)


def known(path: Path) -> Known:
    """What a driver knows of the study when it goes on with it."""
    study = Study.open(path)
    with study.writing() as ledger:
        about = {"seed": study.seed, "space": study.space.model_dump_json()}
        return [about, *(trial.to_json() for trial in ledger.trials.values()), *ledger.table().table.to_pylist()]


def verdict(path: Path, truth: Known) -> str:
    """What became of a damaged study; the last two must not happen."""
    said = BufferingHandler(capacity=10**6)
    logging.getLogger("raymix").addHandler(said)
    try:
        found = known(path)
    except (StoreError, SpaceError):
        return "refused, with file and place"
    finally:
        logging.getLogger("raymix").removeHandler(said)
    if repr(found) == repr(truth):  # nan is not equal to itself
        return "whole all the same"
    if any("damaged record" in record.getMessage() for record in said.buffer):
        return "last record set aside, with a warning"
    return LOSS if len(found) > 1 else RESTART
