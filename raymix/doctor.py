"""Is this machine fit to run studies, and is that cluster? Each question is one function; each answer has a remedy."""

import os
import platform
import shutil
import socket
import stat
import tempfile
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from functools import partial
from importlib import metadata
from pathlib import Path
from uuid import uuid4

import numpy as np

from raymix.clusters.finding import Finding

NEEDED = ("ray", "torch", "transformers", "datasets", "numpy", "scipy", "pyarrow", "pydantic")
OPTIONAL = {"aiohttp": "raymix submit to an address: pip install 'raymix[cluster]'"}
TOKEN = Path.home() / ".ray" / "auth_token"
PROBE_BYTES = 8 << 20
LOW_DISK = 20e9  # bytes
SECONDS = 15.0  # the longest any answer may take


def examine(storage: str | None = None, address: str | None = None, hub: bool = True) -> list[Finding]:
    """Everything that can be asked of this machine, and of the storage and cluster if given.

    A question that itself fails is an error finding, never an exception.
    """
    from raymix.corpus.workers import cluster_address

    questions: list[Callable[[], Iterator[Finding]]] = [versions, gpus, malloc, disk, token]
    if storage is not None:
        questions.append(partial(reaches, storage))
    if hub:
        questions.append(hub_access)
    if found := address or cluster_address():
        questions.append(partial(cluster, found))
    else:
        questions.append(no_cluster)
    return [finding for question in questions for finding in _asked(question)]


def _asked(question: Callable[[], Iterator[Finding]]) -> list[Finding]:
    try:
        return list(question())
    except Exception as error:
        name = getattr(question, "func", question).__name__.replace("_", " ")
        return [Finding("error", name, f"{type(error).__name__}: {error}", "see the message")]


def versions() -> Iterator[Finding]:
    """Python, and the packages everything stands on."""
    yield Finding("ok", "python", platform.python_version())
    wanted = {name: ("error", f"pip install {name}") for name in NEEDED}
    wanted |= {name: ("warning", f"only for {purpose}") for name, purpose in OPTIONAL.items()}
    for name, (level, remedy) in wanted.items():
        try:
            yield Finding("ok", name, metadata.version(name))
        except metadata.PackageNotFoundError:
            yield Finding(level, name, "not installed", remedy)


def gpus() -> Iterator[Finding]:
    """GPUs and whether they compute in bf16."""
    import torch

    from raymix.proxy.model import computes_in_bf16, pick_device

    count = torch.cuda.device_count()
    if not count:
        cores = len(os.sched_getaffinity(0))
        yield Finding("warning", "gpu", f"none; {cores} CPU cores", "proxies of 20M parameters and more want a GPU")
    for i in range(count):
        properties = torch.cuda.get_device_properties(i)
        yield Finding("ok", f"gpu {i}", f"{properties.name}, {properties.total_memory / 2**30:.0f} GiB")
    if computes_in_bf16(pick_device()):
        yield Finding("ok", "bf16", "in hardware")
    else:
        yield Finding("warning", "bf16", "not in hardware", "fp32 is used; GPUs of compute capability 8.0 have bf16")


def malloc() -> Iterator[Finding]:
    """Workers set their own allocator; only a preloaded one is in the way."""
    preload = os.environ.get("LD_PRELOAD", "")
    if preload:
        yield Finding("warning", "malloc", f"LD_PRELOAD={preload}", "unset it: workers bring settings for glibc's own")
    else:
        yield Finding("ok", "malloc", " ".join(platform.libc_ver()) or "unknown C library")


def disk() -> Iterator[Finding]:
    """Room where tokens and Ray's files go."""
    from raymix.corpus import default_cache
    from raymix.corpus.workers import ray_folder

    for name, path in (("cache", default_cache()), ("temporary files", ray_folder())):
        there = next(folder for folder in (path, *path.parents) if os.path.lexists(folder))  # a link to nowhere too
        remedy = f"or set {'RAYMIX_CACHE' if name == 'cache' else 'RAY_TMPDIR'} to a folder elsewhere"
        try:
            tempfile.TemporaryFile(dir=there).close()
        except OSError as error:
            yield Finding(
                "error", f"disk for {name}", f"{there}: cannot be written ({error.strerror})", f"mend it, {remedy}"
            )
            continue
        free = shutil.disk_usage(there).free
        level = "ok" if free > LOW_DISK else "error" if free < 1e9 else "warning"
        found = f"{free / 1e9:.0f} GB free at {path}"
        yield Finding(level, f"disk for {name}", found, "" if level == "ok" else f"free some, {remedy}")


def token() -> Iterator[Finding]:
    """Ray's token is a password: nobody else may read its file."""
    path = Path(os.environ.get("RAY_AUTH_TOKEN_PATH", TOKEN))
    if "RAY_AUTH_TOKEN" in os.environ:
        yield Finding("ok", "token", "from RAY_AUTH_TOKEN")
    elif not path.is_file():
        yield Finding("warning", "token", f"none at {path}", "for clusters: ray get-auth-token --generate; chmod 600")
    elif (mode := stat.S_IMODE(path.stat().st_mode)) & 0o077:
        yield Finding("error", "token", f"{path} has mode {mode:04o}", f"others can read it: chmod 600 {path}")
    else:
        yield Finding("ok", "token", f"{path}, mode {mode:04o}")


def reaches(storage: str) -> Iterator[Finding]:
    """Write, read back and delete a probe file there, with the bandwidth both ways."""
    from pyarrow import fs

    try:
        if "://" in storage:
            system, folder = fs.FileSystem.from_uri(storage)
        else:
            system, folder = fs.LocalFileSystem(), str(Path(storage).absolute())
    except ValueError as error:
        yield Finding("error", "storage", f"{storage}: {error}", "name a folder, or a URI like s3://bucket/folder")
        return
    except OSError as error:
        yield Finding("error", "storage", f"{storage}: {error}", "check the name, and that this machine reaches it")
        return
    name = f"{folder.rstrip('/')}/.raymix-doctor-{uuid4().hex}"
    probe = np.random.default_rng().bytes(PROBE_BYTES)  # random: not compressed on the way
    try:
        start = time.monotonic()
        if isinstance(system, fs.LocalFileSystem):
            system.create_dir(folder, recursive=True)
        with system.open_output_stream(name) as stream:
            stream.write(probe)
        written = time.monotonic() - start
        with system.open_input_stream(name) as stream:
            same = stream.read() == probe
        read = time.monotonic() - start - written
        system.delete_file(name)
    except OSError as error:
        remedy = "check the name, and that this machine's role or key may write there"
        yield Finding("error", "storage", f"{storage}: {error}", remedy)
        return
    speed = f"{PROBE_BYTES / 1e6 / max(written, 1e-9):.0f} MB/s out, {PROBE_BYTES / 1e6 / max(read, 1e-9):.0f} MB/s in"
    if same:
        yield Finding("ok", "storage", f"{storage}: {speed}")
    else:
        yield Finding("error", "storage", f"{storage}: what was read is not what was written", "do not use it")


def hub_access() -> Iterator[Finding]:
    """The Hugging Face hub as its client is set to reach it, with the token where there is one (it is never shown)."""
    from huggingface_hub import constants, get_token

    if constants.HF_HUB_OFFLINE:
        remedy = "unset HF_HUB_OFFLINE where text comes from the hub and is not in its cache"
        yield Finding("warning", "hub", "not asked: HF_HUB_OFFLINE is set", remedy)
        return
    secret, hub = get_token(), constants.ENDPOINT
    headers = {"Authorization": f"Bearer {secret}"} if secret else {}
    request = urllib.request.Request(f"{hub}/api/whoami-v2", headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=SECONDS):
            yield Finding("ok", "hub", f"{hub} reached, token accepted")
    except urllib.error.HTTPError as error:
        if error.code in (401, 403) and not secret:
            yield Finding("ok", "hub", f"{hub} reached, no token (public data only)")
        elif error.code in (401, 403):
            remedy = "make a new read token, or unset HF_TOKEN (hf auth logout)"
            yield Finding("error", "hub", f"{hub} reached, token refused", remedy)
        else:
            yield Finding("warning", "hub", f"{hub} answers {error.code}", "try again later")
    except OSError as error:
        remedy = "only for text from the hub: check proxy and firewall, or use files and URLs"
        yield Finding("warning", "hub", f"{hub} not reached: {error}", remedy)


def no_cluster() -> Iterator[Finding]:
    """Without an address a study starts Ray on this machine alone."""
    yield Finding("ok", "cluster", "none named: raymix run starts Ray here, on loopback, with a token")


def cluster(address: str) -> Iterator[Finding]:
    """A Ray cluster: is it closed to strangers, are its clocks together, what has it."""
    if address.startswith(("http://", "https://")):
        yield from _dashboard(address)
        return
    import ray

    from raymix.clusters import nodes
    from raymix.corpus.on_ray import reach

    try:
        reach(address)
    except OSError as error:
        yield Finding("error", "cluster", f"{address}: not reached: {error}", "is it up, is the port forwarded?")
        return

    ours = not ray.is_initialized()
    if ours:
        ray.init(address=address, log_to_driver=False, logging_level="ERROR", runtime_env={})
    try:
        yield _mode()
        have = {key: value for key, value in ray.cluster_resources().items() if key in ("CPU", "GPU")}
        alive = [node for node in ray.nodes() if node["Alive"]]
        yield Finding("ok", "cluster", f"{address}: {len(alive)} nodes, {have}, Ray {ray.__version__}")
        there = [node["NodeID"] for node in alive if node["Resources"].get("CPU", 0) > 0]
        yield from nodes.environments(there)
        yield from nodes.clocks(there)
    finally:
        if ours:
            ray.shutdown()


def _mode() -> Finding:
    if os.environ.get("RAY_AUTH_MODE") == "token":
        return Finding("ok", "cluster auth", "RAY_AUTH_MODE=token")
    remedy = "start every node and driver with RAY_AUTH_MODE=token: whoever reaches an open cluster runs code on it"
    return Finding("error", "cluster auth", "RAY_AUTH_MODE is not token", remedy)


def _dashboard(address: str) -> Iterator[Finding]:
    """Asked without a token, a safe cluster says 401; and its port is not one that strangers reach."""
    host = urllib.parse.urlsplit(address).hostname or ""
    try:
        with urllib.request.urlopen(f"{address.rstrip('/')}/api/jobs/", timeout=SECONDS):
            level, found = "error", "answers without a token"
    except urllib.error.HTTPError as error:
        level, found = ("ok", "401 without a token") if error.code == 401 else ("warning", f"answers {error.code}")
    except OSError as error:
        yield Finding("error", "cluster", f"{address}: not reached: {error}", "is it up, is the port forwarded?")
        return
    remedy = "" if level == "ok" else "start it with RAY_AUTH_MODE=token and a token of mode 0600"
    yield Finding(level, "cluster auth", f"{address}: {found}", remedy)
    loopback = host in ("localhost", "::1") or socket.gethostbyname(host).startswith("127.")
    if address.startswith("http://") and not loopback:
        remedy = "bind it to 127.0.0.1 and use ssh -L: a token is not encryption"
        yield Finding("error", "cluster address", f"{host} over http", remedy)
