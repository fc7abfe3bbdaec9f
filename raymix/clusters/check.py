"""Is a cluster file right, and is it safe? Answered offline, before anything is started or paid for.

Launcher files: Ray's own schema, then the keys below `provider` and `node_config`, which Ray passes on unchecked.
Kubernetes: a strict schema of the keys we use. Slurm: bash reads it, and its directives are known ones.
"""

import copy
import difflib
import re
import subprocess
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import jsonschema
import yaml

from raymix.clusters.request import EDIT
from raymix.yaml12 import SpaceError, parse_yaml

HERE = Path(__file__).parent
WORLD = re.compile(r"0\.0\.0\.0/0|::/0|dashboard-host[=: ]+['\"]?0\.0\.0\.0")
SECRET = re.compile(r"AKIA[0-9A-Z]{16}|-----BEGIN [A-Z ]*PRIVATE KEY|\bhf_[A-Za-z0-9]{20,}|RAY_AUTH_TOKEN\s*[:=]\s*\S")
SBATCH = {
    "job-name", "partition", "account", "time", "nodes", "ntasks-per-node", "cpus-per-task", "gpus-per-node", "gres",
    "mem", "qos", "constraint", "requeue", "open-mode", "output", "signal",
}  # fmt: skip


class ClusterFileError(SpaceError):
    """A cluster file that is wrong or unsafe; the message lists every problem."""


def check(text: str, origin: str = "the cluster file", complete: bool = True) -> None:
    """Refuse a cluster file that is wrong or unsafe.

    Args:
        text: the file.
        origin: what to call it in messages.
        complete: also refuse values that are still to be edited.

    Raises:
        ClusterFileError: what is wrong, all of it.
    """
    problems = list(_everywhere(text, complete))
    if text.startswith("#!"):
        problems += _slurm(text)
    else:
        documents = _documents(text, origin)
        if len(documents) == 1 and "provider" in documents[0]:
            problems += _launcher(documents[0])
        else:
            problems += [problem for document in documents for problem in _kubernetes(document)]
    if problems:
        raise ClusterFileError(f"{origin}: " + "; ".join(problems))


def _documents(text: str, origin: str) -> list[dict[str, Any]]:
    documents = [parse_yaml(part, origin) for part in re.split(r"(?m)^---\n", text)]
    if not all(isinstance(document, dict) for document in documents):
        raise ClusterFileError(f"{origin}: not a mapping")
    return documents


def _everywhere(text: str, complete: bool) -> Iterator[str]:
    code = [line for line in text.splitlines() if not line.lstrip().startswith("#") or line.startswith("#SBATCH")]
    for number, line in enumerate(code):
        if WORLD.search(line):
            yield f"{line.strip()!r} opens a port to the world: name your own address"
        if SECRET.search(line):
            yield f"line {number + 1} holds a secret: refer to it by file or role"
    if complete and (left := [line.strip() for line in code if EDIT in line]):
        yield f"still to be edited (or give --option KEY=VALUE): {', '.join(dict.fromkeys(left))}"


def _launcher(raw: dict[str, Any]) -> Iterator[str]:
    yield from _ray_schema(raw)
    kind = str(raw["provider"].get("type"))
    known = _known().get(kind)
    if known is None:
        yield f"provider.type {kind!r} is not one of {', '.join(_known())}"
        return
    yield from _unknown(raw["provider"], dict.fromkeys(known["provider"]), "provider")
    for name, node in raw.get("available_node_types", {}).items():
        where = f"available_node_types.{name}.node_config"
        config = node.get("node_config") or {}
        yield from _unknown(config, known["node_config"], where)
        yield from (f"{where}.{key} is missing" for key in known["required"] if key not in config)
    if "RAY_AUTH_MODE=token" not in " ".join(raw.get("docker", {}).get("run_options", [])):
        yield "docker.run_options must set RAY_AUTH_MODE=token: without it the cluster runs open"
    starts = [command for command in raw.get("head_start_ray_commands", []) if "ray start" in command]
    if not any("--dashboard-host=127.0.0.1" in command for command in starts):
        yield "head_start_ray_commands: ray start must say --dashboard-host=127.0.0.1"
    if ":" not in str(raw.get("docker", {}).get("image", "")).rsplit("/", 1)[-1]:
        yield "docker.image has no tag: name the version"


def _ray_schema(raw: dict[str, Any]) -> Iterator[str]:
    """What Ray itself would say; its defaults are filled in first, as `ray up` does."""
    from ray.autoscaler._private.util import prepare_config, validate_config

    try:
        validate_config(copy.deepcopy(raw))  # first as it is: with defaults filled in, Ray no longer names a typo
        validate_config(prepare_config(copy.deepcopy(raw)))
    except jsonschema.ValidationError as error:
        yield _sentence(error)
    except Exception as error:  # Ray raises what comes: ValueError, RuntimeError, KeyError, AssertionError
        yield f"Ray refuses it: {error}"


def _unknown(given: Any, known: Mapping[str, Any], where: str) -> Iterator[str]:
    for item in given if isinstance(given, list) else [given]:
        if not isinstance(item, dict):
            yield f"{where} must be a mapping"
            continue
        for key, value in item.items():
            if key not in known:
                near = difflib.get_close_matches(key, known, 1)
                yield f"{where}.{key} is unknown" + (f": {near[0]}?" if near else "")
            elif known[key]:
                yield from _unknown(value, known[key], f"{where}.{key}")


def _kubernetes(document: dict[str, Any]) -> Iterator[str]:
    kind = str(document.get("kind"))
    schema = _schema()
    if kind not in schema["$defs"] or not kind[:1].isupper():
        yield f"kind {kind!r} is not one we use"
        return
    validator = jsonschema.Draft202012Validator({**schema, "$ref": f"#/$defs/{kind}"})
    yield from (f"{kind} {_sentence(error)}" for error in validator.iter_errors(document))


def _sentence(error: jsonschema.ValidationError) -> str:
    where = ".".join(map(str, error.absolute_path))
    return f"{where}: {error.message}" if where else str(error.message)


def _slurm(text: str) -> Iterator[str]:
    said = subprocess.run(["bash", "-n"], input=text, capture_output=True, text=True)
    if said.returncode:
        yield f"bash cannot read it: {said.stderr.strip()}"
    for line in text.splitlines():
        if line.startswith("#SBATCH"):
            found = re.fullmatch(r"#SBATCH --([a-z-]+)(=[\w.,:%@+-]+)?", line)
            if found is None or found[1] not in SBATCH:
                yield f"{line!r} is not a directive we use"
    for needed in ("export RAY_AUTH_MODE=token", "umask 077", "--dashboard-host=127.0.0.1"):
        if needed not in text:
            yield f"{needed!r} is missing: without it the cluster is open to others"


@cache
def _known() -> dict[str, Any]:
    return dict(yaml.safe_load((HERE / "node_config.yaml").read_text()))


@cache
def _schema() -> dict[str, Any]:
    return dict(yaml.safe_load((HERE / "kuberay.yaml").read_text()))
