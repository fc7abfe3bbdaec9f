"""GPT-2, Llama and BERT as transformers knows them: their configurations, classes and parameters."""

from collections.abc import Callable
from typing import Any

from raymix.proxy.shape import ProxyShape

POSITIONS = ("wpe.weight", "position_embeddings.weight", "token_type_embeddings.weight")


def auto_class(family: str) -> Any:
    """The class of transformers that has the family's head."""
    import transformers

    return transformers.AutoModelForMaskedLM if family == "bert" else transformers.AutoModelForCausalLM


def count(model: Any) -> int:
    """Parameters without embeddings: of tokens, positions and segments, and a head's bias per token."""
    head = model.get_output_embeddings()
    left_out = {id(head.weight), id(head.bias), id(model.get_input_embeddings().weight)}
    named = model.named_parameters()
    return sum(p.numel() for name, p in named if id(p) not in left_out and not name.endswith(POSITIONS))


def _gpt2(shape: ProxyShape) -> Any:
    from transformers import GPT2Config

    return GPT2Config(
        vocab_size=shape.vocab,
        n_positions=shape.context,
        n_embd=shape.width,
        n_layer=shape.n_layers,
        n_head=shape.n_heads,
        n_inner=shape.mlp_width,
        activation_function="gelu",  # exact, as nanoGPT: within 5e-4 of the tanh form and 3 x as fast on a CPU
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
        use_cache=False,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=None,
    )


def _llama(shape: ProxyShape) -> Any:
    from transformers import LlamaConfig

    return LlamaConfig(
        vocab_size=shape.vocab,
        max_position_embeddings=shape.context,
        hidden_size=shape.width,
        intermediate_size=shape.mlp_width,
        num_hidden_layers=shape.n_layers,
        num_attention_heads=shape.n_heads,
        use_cache=False,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=None,
    )


def _bert(shape: ProxyShape) -> Any:
    from transformers import BertConfig

    return BertConfig(
        vocab_size=shape.vocab,
        max_position_embeddings=shape.context,
        type_vocab_size=1,  # packed text has one segment
        hidden_size=shape.width,
        intermediate_size=shape.mlp_width,
        num_hidden_layers=shape.n_layers,
        num_attention_heads=shape.n_heads,
        hidden_act="gelu",
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
        tie_word_embeddings=True,
        pad_token_id=None,
        mask_token_id=shape.mask_token,  # kept in its config.json, for whoever goes on from it
    )


CONFIGS: dict[str, Callable[[ProxyShape], Any]] = {"gpt2": _gpt2, "llama": _llama, "bert": _bert}
