"""Writes the locks of the image from what pip would install: versions and hashes for Linux x86_64, Python 3.11.

python cluster/lock/make.py cuda > cluster/lock/cuda.txt
python cluster/lock/make.py cpu INDEX > cluster/lock/cpu.txt        # INDEX: the address of PyTorch's CPU wheels
"""

import json
import subprocess
import sys
import tomllib
from pathlib import Path

PROJECT = Path(__file__).parents[2] / "pyproject.toml"
RAY = "ray[default,tune]==2.60.0"
TORCH = {"cuda": "torch==2.13.0", "cpu": "torch==2.13.0+cpu"}


def main(variant: str, *index: str) -> None:
    """Print the lock."""
    project = tomllib.loads(PROJECT.read_text())["project"]["dependencies"]
    wanted = [name for name in project if not name.startswith(("ray[", "torch"))] + [RAY, TORCH[variant]]
    words = [sys.executable, "-m", "pip", "install", "--quiet", "--dry-run", "--ignore-installed"]
    words.append("--only-binary=:all:")
    words += [f"--extra-index-url={address}" for address in index]
    said = subprocess.run([*words, "--report", "-", *wanted], capture_output=True, text=True, check=True)
    print(f"# Written by make.py {variant}. One wheel per package: Linux x86_64, Python 3.11.")
    for line in sorted(locked(json.loads(said.stdout)), key=str.lower):
        print(line)


def locked(report: dict[str, list[dict[str, dict[str, object]]]]) -> list[str]:
    """Lines of a requirements file: name, version, hash."""
    lines = []
    for item in report["install"]:
        about, archive = item["metadata"], item["download_info"]["archive_info"]
        assert isinstance(archive, dict)
        lines.append(f"{about['name']}=={about['version']} --hash=sha256:{archive['hashes']['sha256']}")
    return lines


if __name__ == "__main__":
    main(*sys.argv[1:])
