"""One definition of the decoders that the Llama family shares, with weights from a transformers model.

Llama, SmolLM2, Mistral, Qwen2, Qwen3 and Gemma 3 differ in few places: biases, norms, which positions a layer
attends to and how it rotates them. What a model has beyond that is refused.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from inference.engines.generation import Quantization
from inference.engines.protocol import EngineError
from inference.engines.torch.adapters import PRODUCTS, DecoderAdapter, RowAdapters, read_adapter
from inference.engines.torch.linear import Linear, build_linear

FAMILIES = ("llama", "mistral", "qwen2", "qwen3", "gemma3_text")
_ROPE_TYPES = ("default", "linear", "llama3", "yarn")  # the others change with the length of the text

Attend = Callable[[int, Tensor, Tensor, Tensor], Tensor]
"""Takes a layer's number, queries (tokens, heads, head_dim), keys and values (tokens, kv_heads, head_dim);
keeps the keys and values and returns what the queries attend to, (tokens, heads * head_dim)."""


class UnknownDecoder(EngineError):
    """The batch decoder does not know this kind of model; transformers' `generate` may."""


def _check_model(model: Any) -> None:
    """Raises `UnknownDecoder` if a model is of another family, or asks for what is not built here."""
    config = model.config
    if config.model_type not in FAMILIES:
        raise UnknownDecoder(
            f"the batch decoder reads models of {', '.join(FAMILIES)}, not {config.model_type!r}"
        )
    layers, said_layers, ropes = len(model.model.layers), config.num_hidden_layers, config.rope_parameters
    for rope in [ropes] if "rope_type" in ropes else filter(None, ropes.values()):
        if rope["rope_type"] not in _ROPE_TYPES or rope.get("partial_rotary_factor", 1.0) != 1.0:
            raise UnknownDecoder(f"the batch decoder does not rotate positions as this model does: {rope}")
    for fault, said in (
        (layers != said_layers, f"has {layers} layers, and its configuration says {said_layers} layers"),
        (not all(each.is_floating_point() for each in model.parameters()), "has quantized weights"),
        (getattr(config, "attn_logit_softcapping", None), "caps the logits of attention"),
        (getattr(config, "use_bidirectional_attention", None), "attends in both directions"),
        (set(_layer_kinds(config)) - {"sliding_attention", "full_attention"}, "has layers of another kind"),
    ):
        if fault:
            raise UnknownDecoder(f"the model {said}, which the batch decoder does not read")


def _layer_kinds(config: Any) -> list[str]:
    kinds: list[str] | None = getattr(config, "layer_types", None)
    if kinds is None:  # Llama has no window, and Mistral has one for every layer or none
        window = getattr(config, "sliding_window", None)
        kinds = ["sliding_attention" if window else "full_attention"] * config.num_hidden_layers
    return kinds


@dataclass(frozen=True)
class _Layer:
    """The weights of a layer; norms that its family does not have are None."""

    input_norm: Tensor
    qkv: Linear
    query_key_norm: Tensor | None
    output: Linear
    attention_norm: Tensor | None
    feedforward_norm: Tensor
    gate_up: Linear
    down: Linear
    output_norm: Tensor | None


class Decoder:
    """A decoder's computation, which does not know where keys and values are kept.

    Args:
        model: A causal language model of transformers in evaluation mode. Its layers' weights are taken over:
            it can not be used after.
        rows: How many rows a decoding step has.
        quantization: The numbers that products with weights are computed in; None for the model's own.

    Attributes:
        dtype: The type of its weights.
        device: Where they are.
        layers: Number of layers.
        kv_heads: Number of key and value heads of a layer.
        group: Number of query heads that share one of them.
        head_dim: Length of a head's vectors.
        vocabulary: Number of token ids.
        context_tokens: Number of tokens that it can read and write together.
        attention_scale: Multiplies the products of queries and keys.
        windows: For each layer, how many of the last tokens it attends to; None for all.

    Raises:
        UnknownDecoder: The model is of another family, or asks for what is not built here.
    """

    def __init__(self, model: Any, rows: int, quantization: Quantization | None = None) -> None:
        _check_model(model)
        config, first = model.config, model.model.layers[0]
        gemma = config.model_type == "gemma3_text"
        kinds = _layer_kinds(config)
        self.dtype: torch.dtype = model.dtype
        self.device: torch.device = model.device
        self.layers, self.vocabulary = len(kinds), int(config.vocab_size)
        self.context_tokens = int(config.max_position_embeddings)
        self._heads, self.kv_heads = config.num_attention_heads, config.num_key_value_heads
        self.head_dim: int = first.self_attn.head_dim
        self.group: int = self._heads // self.kv_heads
        self.attention_scale: float = first.self_attn.scaling
        self.windows = tuple(config.sliding_window if kind == "sliding_attention" else None for kind in kinds)
        self._epsilon, self._logit_cap = config.rms_norm_eps, getattr(config, "final_logit_softcapping", None)
        self._norm_offset = 1.0 if gemma else 0.0  # Gemma stores the weights of norms less 1
        self._embed, self._activation = model.get_input_embeddings(), first.mlp.act_fn
        self._rotary = model.model.rotary_emb
        # Gemma's layers rotate positions by their kind.
        self._rotations: list[tuple[str, ...]] = [(kind,) if gemma else () for kind in kinds]
        half = torch.ones(self.head_dim // 2, dtype=self.dtype, device=self.device)
        self._sine_signs = torch.cat([-half, half])
        self._norm = self._norm_weight(model.model.norm)
        self._head = build_linear(model.get_output_embeddings().weight.detach(), None, rows, quantization)
        self._shapes = {
            name: tuple(first.get_submodule(name).weight.shape)
            for modules in PRODUCTS.values()
            for name in modules
        }
        self._layers = []
        for layer in model.model.layers:
            self._layers.append(self._read_layer(layer, rows, quantization))
            layer.to("meta")  # so that there is one copy of the weights

    def _read_layer(self, layer: Any, rows: int, quantization: Quantization | None) -> _Layer:
        attention, after = layer.self_attn, layer.post_attention_layernorm
        sandwich = hasattr(layer, "pre_feedforward_layernorm")  # Gemma norms what leaves a block as well

        def linear(product: str) -> Linear:
            modules = [layer.get_submodule(name) for name in PRODUCTS[product]]
            bias = None if modules[0].bias is None else torch.cat([each.bias.detach() for each in modules])
            weight = torch.cat([module.weight.detach() for module in modules])
            return build_linear(weight, bias, rows, quantization)

        query_key_norm = None
        if hasattr(attention, "q_norm"):
            query, key = self._norm_weight(attention.q_norm), self._norm_weight(attention.k_norm)
            query_key_norm = torch.cat([query.expand(self._heads, -1), key.expand(self.kv_heads, -1)])
        return _Layer(
            input_norm=self._norm_weight(layer.input_layernorm),
            qkv=linear("qkv"),
            query_key_norm=query_key_norm,
            output=linear("output"),
            attention_norm=self._norm_weight(after) if sandwich else None,
            feedforward_norm=self._norm_weight(layer.pre_feedforward_layernorm if sandwich else after),
            gate_up=linear("gate_up"),
            down=linear("down"),
            output_norm=self._norm_weight(layer.post_feedforward_layernorm) if sandwich else None,
        )

    @property
    def kv_bytes_per_token(self) -> int:
        """Number of bytes that the keys and values of one token take, in all layers."""
        return 2 * self.layers * self.kv_heads * self.head_dim * self.dtype.itemsize

    def read_adapter(self, folder: Path) -> DecoderAdapter:
        """Returns the adapter in a folder, ready for `hidden`.

        Raises:
            InvalidAdapter: It can not be read, or is for another model.
        """
        return read_adapter(folder, self._shapes, self.layers, self.dtype, self.device)

    def hidden(
        self, token_ids: Tensor, positions: Tensor, attend: Attend, adapters: RowAdapters | None = None
    ) -> Tensor:
        """Returns the last hidden states of tokens, (tokens, hidden size), in the model's dtype.

        Args:
            token_ids: Of shape (tokens,), int64.
            positions: Where each stands in its text, of the same shape.
            attend: Attention, with the keys and values of the tokens before.
            adapters: The adapters of the tokens; None where no token has one.
        """

        def product(number: int, name: str, linear: Linear, x: Tensor) -> Tensor:
            y = linear(x)
            return y if adapters is None else adapters.add(number, name, x, y)

        heads, kv_heads, half = self._heads, self.kv_heads, self.head_dim // 2
        x = self._embed(token_ids)
        rotations = {kind: self._rotation(x, positions, kind) for kind in set(self._rotations)}
        for number, layer in enumerate(self._layers):
            qkv = product(number, "qkv", layer.qkv, self._normed(x, layer.input_norm))
            qkv = qkv.view(len(x), -1, self.head_dim)
            query_key, value = qkv.split((heads + kv_heads, kv_heads), 1)
            if layer.query_key_norm is not None:
                query_key = F.rms_norm(query_key, (self.head_dim,), eps=self._epsilon) * layer.query_key_norm
            cosine, sine = rotations[self._rotations[number]]
            query_key = torch.addcmul(query_key * cosine, query_key.roll(half, -1), sine)
            query, key = query_key.split((heads, kv_heads), 1)
            attended = attend(number, query, key, value)
            output = product(number, "output", layer.output, attended)
            x = x + self._normed(output, layer.attention_norm)
            gated = product(number, "gate_up", layer.gate_up, self._normed(x, layer.feedforward_norm))
            gate, up = gated.chunk(2, -1)
            down = product(number, "down", layer.down, self._activation(gate) * up)
            x = x + self._normed(down, layer.output_norm)
        return x

    def logits(self, hidden: Tensor) -> Tensor:
        """Returns the logits after each hidden state, float32 of shape (tokens, vocabulary)."""
        logits = self._head(self._normed(hidden, self._norm)).float()
        cap = self._logit_cap
        return logits if cap is None else torch.tanh(logits / cap) * cap

    def _norm_weight(self, module: Any) -> Tensor:
        weight: Tensor = module.weight.detach() + self._norm_offset
        return weight

    def _normed(self, x: Tensor, weight: Tensor | None) -> Tensor:
        return x if weight is None else F.rms_norm(x, weight.shape, weight, self._epsilon)

    def _rotation(self, x: Tensor, positions: Tensor, kind: tuple[str, ...]) -> tuple[Tensor, Tensor]:
        """Returns cosines and sines of shape (tokens, 1, head_dim); the sines of the first half negated."""
        cosine, sine = self._rotary(x, positions[None], *kind)
        return cosine[0, :, None], sine[0, :, None] * self._sine_signs
