"""Cluster files from templates: every value that comes from outside is quoted for the language it lands in."""

import json
import shlex
from importlib.metadata import version
from pathlib import Path
from typing import Any

import yaml
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from raymix.clusters.request import ClusterRequest

TEMPLATES = Path(__file__).parent / "templates"
TEMPLATE_OF = {kind: f"{kind}.yaml.j2" for kind in ("aws", "gcp", "azure")} | {
    "kuberay": "rayjob.yaml.j2",
    "slurm": "slurm.sh.j2",
}


def render(request: ClusterRequest, command: list[str], files: dict[str, str], template: str | None = None) -> str:
    """The cluster file of a request.

    Args:
        request: the cluster.
        command: what runs on it, word by word.
        files: small text files the command needs, by name (Kubernetes: they travel in a ConfigMap).
        template: another template than the kind's own (`raycluster.yaml.j2`).

    Raises:
        SpaceError: an option that this kind does not know.
    """
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        undefined=StrictUndefined,
        autoescape=False,  # YAML and shell: the filters below quote
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {"yaml": as_yaml, "sh": shlex.quote}
    values = request.values() | {
        "ray_version": version("ray"),
        "command": shlex.join(command),
        "script": f"exec {shlex.join(command)}\n",
        "files": files,
    }
    return environment.get_template(template or TEMPLATE_OF[request.kind]).render(values)


def as_yaml(value: Any) -> str:
    """A value as YAML on one line, quoted where it must be."""
    if isinstance(value, str) and "\n" in value:
        return json.dumps(value)  # a JSON string is a YAML string, and stays on its line
    text = yaml.safe_dump([value], default_flow_style=True, width=float("inf"), sort_keys=False)
    return text.rstrip("\n")[1:-1]
