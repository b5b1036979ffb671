"""Random decoders of a few thousand weights, of each family that the batch decoder reads; a tokenizer."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    AutoModelForCausalLM,
    Gemma3TextConfig,
    LlamaConfig,
    MistralConfig,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen3Config,
)

from inference.engines.torch.batch import Geometry

VOCABULARY = 258
"""Bytes, and two tokens more: 256 ends a text, 257 pads."""
END = 256
SMALL = Geometry(slots=16, chunk_tokens=16, chunks=2)

_SIZES: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 48,
    "intermediate_size": 96,
    "num_hidden_layers": 3,
    "num_attention_heads": 6,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "max_position_embeddings": 512,
    "initializer_range": 0.4,  # far apart logits: which is the largest is not a matter of rounding
    "eos_token_id": END,
    "bos_token_id": None,
    "pad_token_id": 257,
}
_LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 10000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}
_YARN = {
    "rope_type": "yarn",
    "rope_theta": 10000.0,
    "factor": 4.0,
    "original_max_position_embeddings": 128,
}
_QWEN2 = {"num_attention_heads": 4, "hidden_size": 64}
CONFIGS: dict[str, Callable[..., Any]] = {
    "llama": lambda **sizes: LlamaConfig(**_SIZES | sizes),
    "llama tied, with biases and llama3 positions": lambda **sizes: LlamaConfig(
        **_SIZES | sizes,
        tie_word_embeddings=True,
        attention_bias=True,
        mlp_bias=True,
        rope_parameters=_LLAMA3,
    ),
    "mistral with a window": lambda **sizes: MistralConfig(**_SIZES | sizes, sliding_window=24),
    "qwen2": lambda **sizes: Qwen2Config(**_SIZES | _QWEN2 | sizes),
    "qwen2 with windows": lambda **sizes: Qwen2Config(
        **_SIZES | _QWEN2 | sizes,
        hidden_act="relu",
        use_sliding_window=True,
        sliding_window=20,
        max_window_layers=1,
    ),
    "qwen3 with yarn": lambda **sizes: Qwen3Config(**_SIZES | sizes, rope_parameters=_YARN),
    "gemma3": lambda **sizes: Gemma3TextConfig(
        **_SIZES | {"hidden_size": 96, "num_hidden_layers": 4} | sizes,
        sliding_window=24,
        layer_types=["sliding_attention", "full_attention"] * 2,
        query_pre_attn_scalar=24,
        final_logit_softcapping=30.0,
    ),
}


def tiny_decoder(name: str = "llama", dtype: torch.dtype = torch.float32, **sizes: int) -> Any:
    """Returns a random model of transformers, the same at each call; `sizes` are of its configuration."""
    torch.manual_seed(7)
    model = AutoModelForCausalLM.from_config(CONFIGS[name](**sizes)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 1:  # norms and biases that are all alike would hide where they are left out
                parameter.add_(torch.randn_like(parameter) * 0.2)
    return model.to(dtype)


def byte_tokenizer() -> PreTrainedTokenizerFast:
    """Returns a tokenizer whose tokens are the bytes of UTF-8."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE({letter: number for number, letter in enumerate(alphabet)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<end>", pad_token="<pad>")


def random_prompts(count: int, seed: int = 0, longest: int = 150) -> list[np.ndarray]:
    """Returns prompts of random bytes, of lengths from 1."""
    random = np.random.default_rng(seed)
    return [random.integers(0, 256, random.integers(1, longest + 1)) for _ in range(count)]
