"""The files in `cluster/`: rendered with nothing given. `python -m raymix.clusters.ready cluster` writes them."""

import sys
from pathlib import Path

from raymix.clusters.prices import read_prices
from raymix.clusters.render import render
from raymix.clusters.request import DEFAULT_GPU, KINDS, ClusterRequest

EXAMPLE = """name: EDIT-ME
# Your search space: a copy of search_spaces/*.yaml whose sources are hub datasets or URLs.
"""


def ready_files() -> dict[str, str]:
    """File name -> text."""
    prices = read_prices()
    out = {}
    for kind in KINDS:
        request = ClusterRequest(kind, "raymix", prices, DEFAULT_GPU.get(kind, "L4"))
        space = "/etc/raymix/space.yaml" if kind == "kuberay" else "space.yaml"
        command = ["raymix", "run", space, "--study", "EDIT-ME://bucket/study", "--json"]
        files = {"space.yaml": EXAMPLE} if kind == "kuberay" else {}
        name = {"kuberay": "rayjob.yaml", "slurm": "slurm.sh"}.get(kind, f"{kind}.yaml")
        out[name] = render(request, command, files)
        if kind == "kuberay":
            out["raycluster.yaml"] = render(request, command, files, "raycluster.yaml.j2")
    return out


def main(folder: Path) -> None:
    """Write them all."""
    for name, text in ready_files().items():
        (folder / name).write_text(text)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
