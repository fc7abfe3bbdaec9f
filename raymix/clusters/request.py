"""What a cluster file is rendered from: the study, the machines, and what only the user can know.

Everything a user must fill in has the value EDIT-ME until it is given with `--option KEY=VALUE`; a file with one left
is shown by `--dry-run` and never submitted.
"""

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from raymix.clusters.prices import Prices
from raymix.yaml12 import SpaceError

EDIT = "EDIT-ME"
CLOUDS = ("aws", "gcp", "azure")
OPTIONS: dict[str, dict[str, str]] = {
    "aws": {
        "region": "us-east-1",
        "subnet": f"subnet-{EDIT}",
        "security_group": f"sg-{EDIT}",
        "instance_profile": f"{EDIT}-raymix",
        "ami": f"ami-{EDIT}",
        "key_name": EDIT,
        "ssh_key": f"~/.ssh/{EDIT}.pem",
        "env_file": "",
    },
    "gcp": {
        "region": "us-central1",
        "zone": "us-central1-a",
        "project": EDIT,
        "subnet": f"projects/{EDIT}/regions/us-central1/subnetworks/raymix",
        "service_account": f"raymix@{EDIT}.iam.gserviceaccount.com",
        "vm_image": f"projects/{EDIT}/global/images/{EDIT}",
        "env_file": "",
    },
    "azure": {
        "region": "eastus",
        "subscription": EDIT,
        "resource_group": f"{EDIT}-raymix",
        "vm_image": f"{EDIT}:{EDIT}:{EDIT}:{EDIT}",
        "ssh_key": "~/.ssh/id_rsa",
        "env_file": "",
    },
    "kuberay": {
        "namespace": "default",
        "service_account": "raymix",
        "secret": "raymix-env",
        "kubernetes": "gke",
        "operator_namespace": "kuberay-operator",
        "cpus": "4",
        "memory": "16Gi",
    },
    "slurm": {"partition": EDIT, "account": EDIT, "time": "24:00:00", "cpus": "8", "activate": "true"},
}
KINDS = tuple(OPTIONS)

# Where each Kubernetes keeps spot machines and GPU types: labels of its nodes; those of spot may be taints too.
KUBERNETES: dict[str, dict[str, Any]] = {
    "gke": {
        "gpu": {"cloud.google.com/gke-accelerator": "nvidia-{gpu}"},
        "spot": {"cloud.google.com/gke-spot": "true"},
    },
    "eks": {
        "gpu": {"karpenter.k8s.aws/instance-gpu-name": "{gpu}"},
        "spot": {"karpenter.sh/capacity-type": "spot"},
    },
    "aks": {
        "gpu": {"kubernetes.azure.com/accelerator": "nvidia"},
        "spot": {"kubernetes.azure.com/scalesetpriority": "spot"},
    },
}
DEFAULT_GPU = {"azure": "A10"}  # else L4
WORD = re.compile(r"[\w.,:@%+-]+")
GKE_NAMES = {"T4": "tesla-t4", "A100": "tesla-a100", "H100": "h100-80gb"}


@dataclass(frozen=True)
class ClusterRequest:
    """One cluster: its kind and name, the machines, the image, and the user's options (all of OPTIONS[kind])."""

    kind: str
    name: str
    prices: Prices
    gpu: str | None = "L4"
    max_workers: int = 4
    spot: bool = True
    image: str = f"registry.example.com/{EDIT}/raymix:0.1.0"
    options: Mapping[str, str] = field(default_factory=dict)

    def values(self) -> dict[str, Any]:
        """What the templates see.

        Raises:
            SpaceError: an option or a GPU type that this kind of cluster does not know.
        """
        known = OPTIONS[self.kind]
        for key in self.options:
            if key not in known:
                raise SpaceError(f"--option {key}: {self.kind} does not know it; it knows {', '.join(known)}")
            if not self.options[key].isprintable():
                raise SpaceError(f"--option {key}: the value has a control character in it")
            if self.kind == "slurm" and key != "activate" and not WORD.fullmatch(self.options[key]):
                raise SpaceError(f"--option {key}={self.options[key]}: one word, please")
        if self.kind == "azure" and self.options.get("vm_image", ":::").count(":") != 3:
            raise SpaceError("--option vm_image: write publisher:offer:sku:version")
        values: dict[str, Any] = {"request": self, "name": self.name, "option": {**known, **self.options}}
        if self.kind in CLOUDS:
            cloud = self.prices.clouds[self.kind]
            machine = self.prices.machine(self.kind, self.gpu)
            price = machine.usd * (cloud.spot if self.spot else 1)
            values |= {"cloud": cloud, "worker": machine, "worker_usd": price}
        elif self.gpu is not None and self.gpu not in self.prices.gpus:
            raise SpaceError(f"--gpu {self.gpu}: unknown; the price table has {', '.join(self.prices.gpus)}")
        if self.kind == "kuberay":
            values |= self._node_selection(values["option"]["kubernetes"])
        return values | {"ray_gpu": self.prices.gpus[self.gpu].ray if self.gpu else None}

    def _node_selection(self, kubernetes: str) -> dict[str, Any]:
        if kubernetes not in KUBERNETES:
            raise SpaceError(f"--option kubernetes={kubernetes}: unknown; known: {', '.join(KUBERNETES)}")
        labels = KUBERNETES[kubernetes]
        selector: dict[str, str] = dict(labels["spot"]) if self.spot else {}
        tolerations = []
        if self.gpu:
            ray_gpu = self.prices.gpus[self.gpu].ray  # Karpenter calls an A10 of AWS as Ray does, a10g
            gpu = GKE_NAMES.get(self.gpu, self.gpu.lower()) if kubernetes == "gke" else ray_gpu.lower()
            selector |= {key: value.format(gpu=gpu) for key, value in labels["gpu"].items()}
            tolerations.append({"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"})
        for key, value in labels["spot"].items() if self.spot else ():
            tolerations.append({"key": key, "operator": "Equal", "value": value, "effect": "NoSchedule"})
        return {"node_selector": selector, "tolerations": tolerations, "start_params": self._start_params()}

    def _start_params(self) -> dict[str, str]:
        """The GPU type by name: of a group that has no pod yet Ray's autoscaler knows only what is written here."""
        if self.gpu is None:
            return {}
        return {"resources": f'"{{\\"accelerator_type:{self.prices.gpus[self.gpu].ray}\\": 1}}"'}


def study_name(label: str) -> str:
    """A name that every store and scheduler takes (a-z, 0-9, -, at most 33 characters), different for every label."""
    slug = re.sub(r"[^a-z0-9]+", "-", label.lower()).strip("-")
    if slug == label and len(slug) <= 33:
        return slug
    return "-".join(filter(None, (slug[:24].strip("-"), hashlib.sha256(label.encode()).hexdigest()[:8])))


def cluster_name(label: str) -> str:
    """The name of a study's cluster."""
    return f"raymix-{study_name(label)}"
