"""An encoder with masked language modelling, the whole way: AutoScale's other setting, made small."""

import json
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors.torch import load_file

WORDS = {"colours": "red green blue amber violet teal black white", "animals": "cat dog owl fox hen cow bee ant elk"}
SPACE = """
name: encoder
domains: [{name: colours, source: {files: "colours.jsonl"}}, {name: animals, source: {files: "animals.jsonl"}}]
eval_domains: [{name: colours, own: colours}, {name: animals, own: animals}]
ladder: [{n_params: 2e4, n_tokens: 6e3}, {n_params: 4e4, n_tokens: 9e3}]
target: {n_params: 1e6, n_tokens: 2e4, max_epochs: 4}
budget: {trials: 4, per_round: 4, replicates: 1}
recipe: {family: bert, context: 32, batch: 4, checkpoints: 2, eval_tokens: 512, keep_weights: true}
tokenizer: {train: {vocab: 300}}
"""


@pytest.mark.slow
def test_an_encoder_space_runs_to_its_recommendation(tmp_path: Path) -> None:
    rng = random.Random(0)
    for name, words in WORDS.items():
        lines = [json.dumps({"text": " ".join(rng.choices(words.split(), k=40))}) for _ in range(250)]
        (tmp_path / f"{name}.jsonl").write_text("\n".join(lines))
    (tmp_path / "space.yaml").write_text(SPACE)
    done = subprocess.run(
        [sys.executable, "-m", "raymix", "run", "space.yaml", "--study", "study", "--json"],
        cwd=tmp_path,
        env={**os.environ, "RAYMIX_CACHE": str(tmp_path / "cache"), "RAYMIX_MALLOC": "default"},
        capture_output=True,
        text=True,
        timeout=500,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads((tmp_path / "study" / "recommendation.json").read_text())
    assert sum(found["mixture"].values()) == pytest.approx(1)
    assert all(0 < loss["mean"] < 5.7 for loss in found["losses"].values())  # guessing: log 301
    kept = sorted((tmp_path / "study" / "checkpoints").iterdir())
    assert len(kept) == 4
    assert [path.name for path in kept[0].iterdir()] == ["final"]  # the checkpoints are gone, the model is not
    assert json.loads((kept[0] / "final" / "config.json").read_text())["mask_token_id"] == 300
    assert any("query" in name for name in load_file(kept[0] / "final" / "model.safetensors"))
