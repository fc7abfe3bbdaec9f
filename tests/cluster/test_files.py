"""Cluster files: what is rendered, what is refused, and that no name can break out of its quotes."""

import json
import re
import shlex
import stat
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from raymix.cli import app
from raymix.clusters.check import ClusterFileError, check
from raymix.clusters.prices import read_prices
from raymix.clusters.ready import ready_files
from raymix.clusters.render import render
from raymix.clusters.request import CLOUDS, DEFAULT_GPU, EDIT, KINDS, OPTIONS, ClusterRequest, cluster_name
from raymix.on_ray.demand import bundle
from raymix.yaml12 import SpaceError
from tests import worlds

ROOT = Path(__file__).parents[2]
GOLDEN = Path(__file__).parent / "golden"
HOSTILE = 'x\'; $(touch /tmp/owned) "`id`" {{ 7*7 }} #\\ ü: [a, b] & <script>'
GIVEN = {
    "aws": {
        "subnet": "subnet-1",
        "security_group": "sg-1",
        "instance_profile": "nodes",
        "ami": "ami-1",
        "key_name": "k",
    }
    | {"ssh_key": "~/.ssh/k.pem"},
    "gcp": {"project": "p", "subnet": "projects/p/regions/us-central1/subnetworks/raymix", "vm_image": "projects/p/i"}
    | {"service_account": "nodes@p.iam.gserviceaccount.com"},
    "azure": {"subscription": "0000", "resource_group": "rg", "vm_image": "canonical:ubuntu-24_04-lts:server:24.04"},
    "kuberay": {"namespace": "lab", "kubernetes": "eks"},
    "slurm": {"partition": "gpu", "account": "lab", "activate": "source ~/venv/bin/activate"},
}


LOCKED_RAY = next(
    line.split()[0].removeprefix("ray==")
    for line in (ROOT / "cluster" / "lock" / "cpu.txt").read_text().splitlines()
    if line.startswith("ray==")
)


@pytest.fixture
def _ray_of_the_image(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files name the Ray that is installed; those that were reviewed name the image's."""
    monkeypatch.setattr("raymix.clusters.render.version", lambda package: {"ray": LOCKED_RAY}[package])


def request(kind: str, name: str = "raymix-web", **changed: Any) -> ClusterRequest:
    given = {"gpu": DEFAULT_GPU.get(kind, "L4"), "image": "registry.example.com/lab/raymix:0.1.0"}
    return ClusterRequest(kind, name, read_prices(), **{**given, "options": GIVEN[kind], **changed})


def rendered(kind: str, **changed: Any) -> str:
    command = ["raymix", "run", "space.yaml", "--study", "s3://bucket/web", "--json"]
    return render(request(kind, **changed), command, {"space.yaml": "name: web\n"})


@pytest.mark.usefixtures("_ray_of_the_image")
@pytest.mark.parametrize("kind", KINDS)
def test_what_is_rendered_is_what_was_reviewed(kind: str) -> None:
    file = GOLDEN / f"{kind}.{'sh' if kind == 'slurm' else 'yaml'}"
    assert rendered(kind) == file.read_text()


@pytest.mark.parametrize("kind", KINDS)
def test_a_rendered_file_passes_its_own_check(kind: str) -> None:
    check(rendered(kind))
    check(rendered(kind, spot=False, gpu=None))


@pytest.mark.parametrize("kind", CLOUDS)
def test_keys_of_a_study_reach_every_node_of_a_launched_cluster_by_path(kind: str) -> None:
    given = {**GIVEN[kind], "env_file": "~/my keys.env"}
    text = render(request(kind, options=given), [], {})
    check(text)
    file = yaml.safe_load(text)
    assert file["file_mounts"]["~/.raymix.env"] == "~/my keys.env"
    for group in ("head", "worker"):
        (start,) = [line for line in file[f"{group}_start_ray_commands"] if "ray start" in line]
        assert start.index(". ~/.raymix.env") < start.index("ray start")


def test_keys_of_a_study_reach_every_pod_by_a_secret() -> None:
    given = {**GIVEN["kuberay"], "secret": "team-keys"}
    text = render(request("kuberay", options=given), ["raymix"], {"space.yaml": "name: web\n"})
    check(text)
    job = next(file for file in yaml.safe_load_all(text) if file["kind"] == "RayJob")
    cluster = job["spec"]["rayClusterSpec"]
    for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"]):
        (container,) = group["template"]["spec"]["containers"]
        assert container["envFrom"] == [{"secretRef": {"name": "team-keys", "optional": True}}]


@pytest.mark.usefixtures("_ray_of_the_image")
def test_the_files_in_cluster_are_the_templates_with_nothing_filled_in() -> None:
    for name, text in ready_files().items():
        assert (ROOT / "cluster" / name).read_text() == text
        check(text, complete=False)
        with pytest.raises(ClusterFileError, match="still to be edited"):
            check(text)
        assert "Edit" in text and "Costs at rest" in text


@pytest.mark.parametrize(
    ("kind", "old", "new", "said"),
    [
        ("aws", "idle_timeout_minutes: 3", "idle_timeout_minute: 3", "idle_timeout_minute"),
        ("aws", "  use_internal_ips", "  use_internal_ip", "provider.use_internal_ip is unknown: use_internal_ips?"),
        ("aws", "ssh_user", "ssh_usr", "ssh_usr"),
        ("aws", "container_name", "container_nam", "container_nam"),
        ("aws", "    min_workers: 0", "    min_worker: 0", "min_worker"),
        ("aws", "InstanceType: g6", "InstanceTyp: g6", "node_config.InstanceTyp is unknown: InstanceType?"),
        ("aws", "MarketType", "MarketTyp", "InstanceMarketOptions.MarketTyp is unknown: MarketType?"),
        ("aws", "VolumeSize", "VolumSize", "BlockDeviceMappings.Ebs.VolumSize is unknown"),
        ("aws", "head_node_type: head", "head_node_type: haed", "`head_node_type` must be one of"),
        ("aws", "max_workers: 4\nupscaling", "max_workers: four\nupscaling", "four"),
        ("gcp", "machineType: g2", "machinType: g2", "machinType is unknown: machineType?"),
        ("gcp", "preemptible", "preemptable", "scheduling.preemptable is unknown: preemptible?"),
        ("gcp", "diskSizeGb", "diskSizeGB", "initializeParams.diskSizeGB is unknown: diskSizeGb?"),
        ("gcp", "project_id", "project", "provider.project is unknown: project_id?"),
        ("azure", "evictionPolicy", "evictPolicy", "azure_arm_parameters.evictPolicy is unknown: evictionPolicy?"),
        ("azure", "azure_arm_parameters", "azure_arm_params", "azure_arm_params is unknown"),
        ("azure", "type: azure", "type: azur", "azur"),
        ("kuberay", "enableInTreeAutoscaling", "enableInTreeAutoscalling", "enableInTreeAutoscalling"),
        ("kuberay", "version: v2", "version: v3", "v3"),
        ("kuberay", "minReplicas", "minReplica", "minReplica"),
        ("kuberay", "value: '4'", "valu: '4'", "autoscalerOptions.env.0: "),
        ("kuberay", "nodeSelector", "nodeSelectors", "nodeSelectors"),
        ("kuberay", "operator: Equal", "operator: Equals", "Equals"),
        ("kuberay", "serviceType: ClusterIP", "serviceType: LoadBalancer", "serviceType: 'ClusterIP' was expected"),
        ("kuberay", "mode: token", "mode: disabled", "authOptions.mode: 'token' was expected"),
        ("kuberay", "runAsNonRoot: true", "runAsNonRoot: false", "runAsNonRoot"),
        ("kuberay", "kind: RayJob", "kind: RayJobs", "RayJobs"),
        ("kuberay", "policyTypes: [Ingress]", "policyTypes: [Egress]", "policyTypes"),
        ("slurm", "--nodes=4", "--node=4", "--node=4"),
        ("slurm", "if [ !", "fi [ !", "bash cannot read it"),
        ("aws", "--dashboard-host=127.0.0.1", "--dashboard-host=0.0.0.0", "opens a port to the world"),
        ("aws", "--dashboard-host=127.0.0.1 ", "", "--dashboard-host=127.0.0.1"),
        ("aws", "-e RAY_AUTH_MODE=token", "-e X=1", "RAY_AUTH_MODE=token"),
        ("aws", "      SecurityGroupIds: [sg-1]\n", "", "SecurityGroupIds is missing"),
        (
            "aws",
            "use_internal_ips: false",
            "use_internal_ips: false\n  security_group: {GroupName: g}",
            "security_group",
        ),
        ("aws", "raymix:0.1.0'", "raymix'", "has no tag"),
        ("aws", "KeyName: k", "KeyName: AKIAABCDEFGHIJKLMNOP", "holds a secret"),
        ("gcp", "tags: {items: [raymix]}", "tags: {items: ['0.0.0.0/0']}", "opens a port to the world"),
        ("slurm", "export RAY_AUTH_MODE=token", "true", "RAY_AUTH_MODE"),
        ("slurm", "umask 077", "umask 022", "umask"),
    ],
)
def test_a_typo_at_any_level_and_what_is_unsafe_are_refused_by_name(kind: str, old: str, new: str, said: str) -> None:
    text = rendered(kind)
    assert old in text
    with pytest.raises(SpaceError, match=re.escape(said)):
        check(text.replace(old, new))


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "slurm"])
def test_hostile_names_stay_inside_their_quotes(kind: str) -> None:
    words = ["raymix", "run", "space.yaml", "--study", f"s3://bucket/{HOSTILE}"]
    options = {**GIVEN[kind]}
    options["namespace" if kind == "kuberay" else "region"] = HOSTILE
    text = render(
        request(kind, options=options, image=f"{HOSTILE}:1"), words, {"space.yaml": f"name: {HOSTILE}\n---\n"}
    )
    documents = [yaml.safe_load(part) for part in re.split(r"(?m)^---\n", text)]
    if kind == "kuberay":
        assert len(documents) == 3
        assert documents[0]["metadata"]["namespace"] == HOSTILE
        assert shlex.split(documents[1]["data"]["run.sh"]) == ["exec", *words]
        assert documents[1]["data"]["space.yaml"] == f"name: {HOSTILE}\n---\n"
    else:
        assert HOSTILE in (documents[0]["provider"].get("region"), documents[0]["provider"].get("location"))
        assert documents[0]["docker"]["image"] == f"{HOSTILE}:1"


def test_a_hostile_study_is_one_word_of_the_slurm_script() -> None:
    words = ["printf", "%s", f"s3://bucket/{HOSTILE}"]
    text = render(request("slurm"), words, {})
    check(text)
    last = text.rstrip().splitlines()[-1].strip()
    assert subprocess.run(["bash", "-c", last], capture_output=True, text=True, check=True).stdout == words[2]
    with pytest.raises(SpaceError, match="one word"):
        rendered("slurm", options={**GIVEN["slurm"], "account": "a b"})
    with pytest.raises(SpaceError, match="control character"):
        rendered("slurm", options={**GIVEN["slurm"], "partition": "a\n#SBATCH --exclusive"})


@pytest.mark.parametrize("kind", ["aws", "gcp", "azure", "kuberay"])
def test_a_worker_that_is_not_there_yet_is_known_to_have_what_a_trial_takes(kind: str) -> None:
    """Else the autoscaler starts none, and the study waits for ever."""
    from ray.autoscaler._private.kuberay.autoscaling_config import _derive_autoscaling_config_from_ray_cr

    prices = read_prices()
    gpus = prices.gpus if kind == "kuberay" else prices.clouds[kind].gpus
    for gpu in gpus:
        document = yaml.safe_load(rendered(kind, gpu=gpu).split("\n---\n")[0])
        if kind == "kuberay":
            cluster = {"metadata": document["metadata"], "spec": document["spec"]["rayClusterSpec"]}
            types = _derive_autoscaling_config_from_ray_cr(cluster)["available_node_types"]
            has = types["workers"]["resources"]
        else:
            has = document["available_node_types"]["worker"]["resources"]
        ladder = [{"n_params": 1e5, "n_tokens": 5e5, "resources": {"gpu": 1, "accelerator": prices.gpus[gpu].ray}}]
        takes = bundle(worlds.space(ladder=ladder), 1e5, {})
        assert all(has.get(name, 0) >= amount for name, amount in takes.items()), (gpu, takes, has)


def test_every_kubernetes_is_asked_for_its_own_name_of_a_gpu() -> None:
    names = {"gke": "nvidia-l4", "eks": "a10g", "aks": "nvidia"}
    for kubernetes, name in names.items():
        text = rendered("kuberay", gpu="A10" if kubernetes == "eks" else "L4", options={"kubernetes": kubernetes})
        pods = yaml.safe_load(text.split("\n---\n")[0])["spec"]["rayClusterSpec"]["workerGroupSpecs"][0]["template"]
        assert name in pods["spec"]["nodeSelector"].values()


@pytest.mark.parametrize("kind", KINDS)
def test_unknown_options_and_gpus_are_named(kind: str) -> None:
    with pytest.raises(SpaceError, match=r"--option regoin: .* does not know it; it knows"):
        rendered(kind, options={"regoin": "x"})
    with pytest.raises(SpaceError, match="L400"):
        rendered(kind, gpu="L400")


def test_every_option_has_a_place_in_its_file() -> None:
    """An option that changes nothing would be a lie."""
    for kind, options in OPTIONS.items():
        plain = rendered(kind)
        for key in options:
            value = {"kubernetes": "aks", "vm_image": "a:b:c:d", "cpus": "77", "memory": "77Gi", "time": "77"}.get(
                key, "q7"
            )
            assert rendered(kind, options={**GIVEN[kind], key: value}) != plain, f"{kind}: {key}"


def test_cluster_names_are_safe_and_never_collide() -> None:
    labels = ["web", "Web", "w e b", "数学", "物理", "../../etc", "a" * 90, "a" * 91, "-", "no", "1web"]
    names = [cluster_name(label) for label in labels]
    assert len(set(names)) == len(labels)
    assert all(re.fullmatch(r"[a-z]([-a-z0-9]{0,38}[a-z0-9])?", name) for name in names)


def test_the_image_is_locked_pinned_and_not_root() -> None:
    text = (ROOT / "cluster" / "Dockerfile").read_text()
    lines = [line for line in re.sub(r"\\\n", " ", text).splitlines() if line and not line.startswith("#")]
    by_word = [(line.split()[0], line) for line in lines]
    assert all(re.fullmatch(r"FROM \S+:\d+\.\d+\.\d+\S*", line) for word, line in by_word if word == "FROM")
    assert [line for word, line in by_word if word == "USER"][-1].split()[1].split(":")[0] not in ("0", "root")
    assert not {"ADD", "EXPOSE"} & {word for word, _ in by_word}
    assert not re.search(r"(?i)(token|secret|password|key)\s*=\s*(?!token)\S", text.replace("RAY_AUTH_MODE=token", ""))
    for install in re.findall(r"pip install[^&;]*", " ".join(lines)):
        assert "--no-deps" in install and ("--require-hashes" in install or "/opt/raymix" in install)
    assert "curl" not in text and "| sh" not in text


@pytest.mark.parametrize("variant", ["cpu", "cuda"])
def test_the_locks_hold_what_the_project_asks_for(variant: str) -> None:
    import tomllib

    from packaging.requirements import Requirement

    lines = (ROOT / "cluster" / "lock" / f"{variant}.txt").read_text().splitlines()[1:]
    locked = {}
    for line in lines:
        found = re.fullmatch(r"([A-Za-z0-9._-]+)==(\S+) --hash=sha256:[0-9a-f]{64}", line)
        assert found, line
        locked[found[1].lower().replace("_", "-")] = found[2]
    for text in tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]:
        wanted = Requirement(text)
        assert wanted.specifier.contains(locked[wanted.name]), f"{text} is locked at {locked[wanted.name]}: run make.py"
    assert locked["ray"] == LOCKED_RAY and "aiohttp" in locked
    assert any(name.startswith("nvidia-") for name in locked) is (variant == "cuda")


def test_prices_are_dated_and_the_copy_of_a_user_wins(tmp_path: Path) -> None:
    prices = read_prices()
    assert re.fullmatch(r"\d{4}-\d\d-\d\d", prices.date)
    assert all(cloud.source.startswith("https://") for cloud in prices.clouds.values())
    assert {gpu for cloud in prices.clouds.values() for gpu in cloud.gpus} <= set(prices.gpus)
    own = tmp_path / "prices.yaml"
    own.write_text((ROOT / "raymix/clusters/prices.yaml").read_text().replace("usd: 0.805", "usd: 0.111"))
    assert read_prices(own).machine("aws", "L4").usd == 0.111
    own.write_text(own.read_text().replace("tflops: 121", "tflop: 121"))
    with pytest.raises(SpaceError, match="tflop"):
        read_prices(own)


def test_rendered_files_are_kept_private(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from raymix.clusters import submit

    monkeypatch.chdir(tmp_path)
    submit._write(Path("runs/clusters/x.yaml"), "text")
    assert stat.S_IMODE(Path("runs/clusters/x.yaml").stat().st_mode) == 0o600
    assert EDIT in ready_files()["aws.yaml"]


@pytest.mark.parametrize("cluster", ["slurm", "http://127.0.0.1:8265"])
def test_a_dry_run_answers_machines_in_json(cluster: str) -> None:
    words = ["submit", str(ROOT / "search_spaces" / "quickstart.yaml"), "--cluster", cluster, "--storage", "s3://b/x"]
    plain, asked = (CliRunner().invoke(app, [*words, "--dry-run", *more]) for more in ((), ("--json",)))
    found = json.loads(asked.stdout)
    assert found["cluster"] == cluster and found["text"] == plain.stdout
    assert (found["to_edit"] or "") == plain.stderr.strip()
    assert ("EDIT-ME" in plain.stderr) == (cluster == "slurm")


def test_the_command_that_comes_back_is_the_whole_one(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def pressed(*given: Any) -> str:
        raise KeyboardInterrupt

    words = ["submit", str(ROOT / "search_spaces" / "quickstart.yaml"), "--cluster", "http://127.0.0.1:8265"]
    words += ["--storage", "/data/a b", "--set", "budget.trials=8", "--gpu", "none"]
    monkeypatch.setattr("raymix.clusters.submit.run_job", pressed)
    monkeypatch.setattr("sys.argv", ["raymix", *words])
    with pytest.raises(SystemExit):
        app(words)
    assert f"Come back with:\n  {shlex.join(['raymix', *words])}\n" in capsys.readouterr().out
