"""Hand a recommendation to a trainer, in the trainer's own terms.

A target is a writer and a reader: every export is read back and compared with the mixture before anybody sees it.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from raymix.formats.export import row_weights as rows
from raymix.formats.export import token_weights as tokens
from raymix.formats.export.blend import SUMMARY, Blend, ExportError, blend_of, read_paths, summary, write_files

__all__ = ["TARGETS", "Blend", "ExportError", "blend_of", "export", "read_paths", "write_files"]

Writer = Callable[[Blend], dict[str, str]]
Reader = Callable[[Mapping[str, str], Blend], dict[str, float]]
TOLERANCE = 1e-4  # of a share of tokens, after rounding: millionths of rows, scaled by the ratio of row lengths


@dataclass(frozen=True)
class Target:
    """A trainer's format: how to write it, how to read it back, what its numbers count, what goes wrong with it."""

    write: Writer
    read: Reader
    unit: str
    trap: str


_FIXED = "sequences of one length, so tokens"
_ROWS = "rows (samples, documents): converted from tokens by mean tokens per row"

TARGETS: dict[str, Target] = {
    "hf-datasets": Target(
        rows.hf_datasets, rows.listed("interleave.json", "probabilities"), _ROWS, "probabilities are per row"
    ),
    "ray-data": Target(
        rows.ray_data,
        rows.listed("mix.json", "weights"),
        _ROWS,
        "per row; ends with the first dataset that does, as ray.data.MixStoppingCondition(stopping_condition)",
    ),
    "megatron": Target(tokens.megatron, tokens.read_megatron, _FIXED, "a small set repeats silently: see the epochs"),
    "megatron-split": Target(
        tokens.megatron_split, tokens.read_megatron_split, _FIXED, "valid and test are to fill in"
    ),
    "megatron-core": Target(
        tokens.megatron_core, tokens.read_megatron_core, _FIXED, "Bridge's source_weights are epochs, not these"
    ),
    "automodel": Target(
        tokens.automodel, tokens.read_automodel, _FIXED, "keep the order of domain_mixture and dataset.paths"
    ),
    "energon": Target(
        rows.energon,
        rows.read_energon,
        _ROWS,
        "relative paths are relative to the file; newer versions say Recipe for MetadatasetV2, and read both",
    ),
    "olmo-core": Target(
        tokens.olmo_core, tokens.read_olmo_core, "tokens", "global_batch_size is to fill in; repetition is as planned"
    ),
    "levanter": Target(
        tokens.levanter, tokens.read_levanter, _FIXED, "names are those of data.components (or, before, data.configs)"
    ),
    "nanotron": Target(tokens.nanotron, tokens.read_nanotron, _FIXED, "older versions take a mapping of folders"),
    "torchtitan": Target(
        rows.torchtitan,
        rows.read_torchtitan,
        _ROWS,
        "samples are mixed, then packed, and what a filter rejects of a map dataset counts; mix() takes your datasets",
    ),
    "mosaic": Target(rows.mosaic, rows.read_mosaic, _ROWS, "all streams must use proportion; remote is to fill in"),
    "litdata": Target(
        rows.litdata, rows.listed("combined.json", "weights"), _ROWS, "a pass ends with the first dataset that does"
    ),
    "tinyllama": Target(
        tokens.tinyllama,
        tokens.read_tinyllama,
        _FIXED,
        "it skips a domain of fewer files than GPUs; valid is to fill in",
    ),
    "axolotl": Target(
        rows.axolotl, rows.read_axolotl, "part of each dataset that is kept", "the same part is read num_epochs times"
    ),
    "llama-factory": Target(rows.llama_factory, rows.read_llama_factory, _ROWS, "probabilities are per row"),
    "doremi": Target(tokens.doremi, tokens.read_doremi, "tokens", "the evaluation weights repeat those of training"),
    "olmix": Target(tokens.olmix, tokens.read_olmix, "tokens", "domains of share zero are left out"),
}


def export(blend: Blend, target: str) -> dict[str, str]:
    """File name -> text, with a summary of units, epochs and rounding beside the trainer's own files.

    Raises:
        ExportError: no such target, or it cannot express this mixture.
    """
    if target not in TARGETS:
        raise ExportError(f"no such target: {target}; there are {', '.join(TARGETS)}")
    found = TARGETS[target]
    files = found.write(blend)
    read = found.read(files, blend)
    worst = max(abs(read.get(name, 0.0) - share) for name, share in blend.shares.items())
    if worst > TOLERANCE:
        raise ExportError(f"{target} cannot express this mixture: read back, a share is off by {worst:.4f}")
    return files | {SUMMARY: summary(blend, target, found.unit, found.trap)}
