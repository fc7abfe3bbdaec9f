"""What travels to a cluster: the space with its settings applied, local text of a modest size, and one command."""

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from raymix.clusters.request import study_name
from raymix.space import Domain, EvalDomain, SearchSpace, SpaceError
from raymix.space_parts import several
from raymix.yaml12 import write_yaml

MAX_BYTES = 64 << 20  # of local text that goes along with a job
SPACE = "space.yaml"


@dataclass(frozen=True)
class Work:
    """One study to be run on a cluster."""

    label: str
    study: str
    """Where it lives: a URI, or a path that every node sees."""
    text: str
    """The space as YAML, settings applied."""
    local: tuple[Path, ...]
    """Text files that lie beside the space, and only there."""
    folder: Path

    def command(self, space: str = SPACE) -> list[str]:
        """What the cluster runs; the same command continues the study."""
        return ["raymix", "run", space, "--study", self.study, "--json"]

    def pack(self, folder: Path) -> None:
        """Write the space and its local text into `folder`, names unchanged."""
        (folder / SPACE).write_text(self.text, encoding="utf-8")
        for file in self.local:
            copy = folder / file.relative_to(self.folder)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, copy)


def make_work(path: Path, settings: Sequence[str], storage: str, gpu: str | None = None) -> Work:
    """The work of a space; with a GPU type, trials of rungs that do not say what they need take one of those.

    Raises:
        SpaceError: the space is not valid, the storage is not reachable from a cluster, or text lies outside the
            folder of the space or is too large to travel.
    """
    space = SearchSpace.load(path, settings)
    if not space.trains_proxies:
        raise SpaceError(f"{space.name}: the domains have no source, so there is nothing to train on a cluster")
    raw = space.plain()
    if gpu is not None:
        for rung in raw["ladder"]:
            rung.setdefault("resources", {"gpu": 1, "accelerator": gpu})
    study = f"{_storage(storage)}/{study_name(space.name)}"
    text = write_yaml(raw)
    return Work(space.name, study, text, tuple(_local(space)), space.folder.resolve())


def _storage(storage: str) -> str:
    scheme, separator, rest = storage.partition("://")
    if not separator and not storage.startswith("/"):
        raise SpaceError(f"--storage {storage}: name a URI (s3://bucket/folder) or an absolute path every node sees")
    if separator and "@" in rest.partition("/")[0]:
        raise SpaceError(f"--storage {scheme}://...: a URI carries no user or password; give nodes a role instead")
    if "secret" in storage.lower() or "access_key" in storage.lower():
        raise SpaceError("--storage: a URI carries no keys; give nodes a role instead")
    if "?" in storage:
        raise SpaceError(f"--storage {storage}: name the folder alone, without `?`")
    return storage.rstrip("/")


def _local(space: SearchSpace) -> list[Path]:
    """Files of sources that only this machine has."""
    found: set[Path] = set()
    folder = space.folder.resolve()
    owners: list[Domain | EvalDomain] = [*space.domains, *space.eval_domains]
    for owner in owners:
        for kind in ("files", "tokens"):
            for pattern in several(getattr(owner.source, kind, None)):
                if "://" in pattern or Path(pattern).is_absolute():
                    continue  # a URL, or a path the user says is the same everywhere
                files = [file for file in folder.glob(pattern) if file.is_file()]
                outside = [file for file in files if not file.resolve().is_relative_to(folder)]
                if ".." in Path(pattern).parts or outside:
                    raise SpaceError(f"{owner.name}: {pattern} lies outside the folder of the space; put it on storage")
                found.update(files)
    size = sum(file.stat().st_size for file in found)
    if size > MAX_BYTES:
        raise SpaceError(
            f"{space.name}: {size / 2**20:.0f} MB of local text would travel with the job (at most "
            f"{MAX_BYTES >> 20} MB): put it on storage and name it by URL"
        )
    return sorted(found)
