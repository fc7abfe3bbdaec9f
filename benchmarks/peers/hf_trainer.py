"""`transformers.Trainer` as shipped around GPT-2 as shipped (dropout .1), of the size asked for."""

import contextlib
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch


class Rows(torch.utils.data.Dataset[Any]):
    """Consecutive sequences of a file of uint16 tokens."""

    def __init__(self, path: Path, context: int) -> None:
        self.tokens, self.context = np.memmap(path, dtype=np.uint16, mode="r"), context

    def __len__(self) -> int:
        return len(self.tokens) // self.context

    def __getitem__(self, i: int) -> dict[str, Any]:
        row = torch.from_numpy(self.tokens[i * self.context : (i + 1) * self.context].astype(np.int64))
        return {"input_ids": row, "labels": row}


def train(shape: tuple[int, int, int, int, int], batch: int, tokens: Path, after_step: Callable[[], bool]) -> None:
    """Train until `after_step`, called after every step, says that it is enough."""
    from transformers import GPT2Config, GPT2LMHeadModel, Trainer, TrainerCallback, TrainingArguments

    class Watch(TrainerCallback):  # type: ignore[misc]
        """Calls back."""

        def on_step_end(self, args: Any, state: Any, control: Any, **rest: Any) -> Any:
            control.should_training_stop = after_step()
            return control

    layers, width, heads, context, vocab = shape
    config = GPT2Config(
        vocab_size=vocab,
        n_positions=context,
        n_embd=width,
        n_layer=layers,
        n_head=heads,
        bos_token_id=0,
        eos_token_id=0,
    )
    torch.manual_seed(0)
    with contextlib.redirect_stdout(sys.stderr), tempfile.TemporaryDirectory() as folder:
        arguments = TrainingArguments(
            output_dir=folder, max_steps=10**6, per_device_train_batch_size=batch, use_cpu=True, report_to=[],
            save_strategy="no", disable_tqdm=True,
        )  # fmt: skip
        Trainer(GPT2LMHeadModel(config), arguments, train_dataset=Rows(tokens, context), callbacks=[Watch()]).train()
