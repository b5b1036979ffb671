"""One definition of the decoders that the Llama family shares, with weights from a transformers model.

Llama, SmolLM2, Mistral, Qwen2, Qwen3 and Gemma 3 differ in few places: biases, norms, which positions a layer
attends to and how it rotates them. Those are fields here; what a model has beyond them is refused.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

from inference.engines.generation import Quantization
from inference.engines.protocol import EngineError
from inference.engines.torch.adapters import PRODUCTS, DecoderAdapter, RowAdapters, read_adapter
from inference.engines.torch.linear import Linear, build_linear

FAMILIES = ("llama", "mistral", "qwen2", "qwen3", "gemma3_text")
_ROPE_TYPES = ("default", "linear", "llama3", "yarn")  # the others change with the length of the text
_ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "silu": F.silu,
    "gelu_pytorch_tanh": lambda gate: F.gelu(gate, approximate="tanh"),
}

Attend = Callable[[int, Tensor, Tensor, Tensor], Tensor]
"""Takes a layer's number, queries (tokens, heads, head_dim), keys and values (tokens, kv_heads, head_dim);
keeps the keys and values and returns what the queries attend to, (tokens, heads * head_dim)."""


class UnknownDecoder(EngineError):
    """The batch decoder does not know this kind of model; transformers' `generate` may."""


@dataclass(frozen=True, eq=False)
class Rope:
    """How positions rotate queries and keys: float32 frequencies (head_dim / 2,) and a factor (YaRN's)."""

    frequencies: Tensor
    factor: float


@dataclass(frozen=True)
class DecoderShape:
    """What a model's configuration says of its computation.

    Attributes:
        layers: Number of layers.
        heads: Number of query heads of a layer.
        kv_heads: Number of its key and value heads.
        head_dim: Length of a head's vectors.
        vocabulary: Number of token ids.
        context_tokens: Number of tokens that it can read and write together.
        norm_epsilon: Is added to the mean square in norms.
        activation: The gate's activation.
        attention_scale: Multiplies the products of queries and keys.
        windows: For each layer, how many of the last tokens it attends to; None for all.
        ropes: The rotation of each layer; equal ones are one object.
        embedding_scale: Multiplies token embeddings.
        norm_offset: Is added to the weights of norms (1 in Gemma, whose weights are stored less 1).
        logit_cap: Bounds logits by its tanh; None for no bound.
    """

    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    vocabulary: int
    context_tokens: int
    norm_epsilon: float
    activation: str
    attention_scale: float
    windows: tuple[int | None, ...]
    ropes: tuple[Rope, ...]
    embedding_scale: float
    norm_offset: float
    logit_cap: float | None


def read_shape(config: Any) -> DecoderShape:
    """Returns the shape that a transformers configuration describes.

    Raises:
        UnknownDecoder: It is of another family, or asks for what is not built here.
    """
    family = config.model_type
    if family not in FAMILIES:
        raise UnknownDecoder(f"the batch decoder reads models of {', '.join(FAMILIES)}, not {family!r}")
    gemma = family == "gemma3_text"
    kinds = getattr(config, "layer_types", None)
    window = getattr(config, "sliding_window", None)
    if kinds is None:  # Llama has no window, and Mistral has one for every layer or none
        kinds = ["sliding_attention" if window else "full_attention"] * config.num_hidden_layers
    activation = config.hidden_activation if gemma else config.hidden_act
    for asked, what in (
        (getattr(config, "attn_logit_softcapping", None), "caps the logits of attention"),
        (getattr(config, "use_bidirectional_attention", None), "attends in both directions"),
        (activation not in _ACTIVATIONS, f"has the activation {activation!r}"),
        (len(kinds) != config.num_hidden_layers, f"names {len(kinds)} kinds of layers for another number"),
        (set(kinds) - {"sliding_attention", "full_attention"}, "has layers of another kind"),
    ):
        if asked:
            raise UnknownDecoder(f"the model {what}, which the batch decoder does not")
    ropes = {kind: _read_rope(config, kind if gemma else None) for kind in set(kinds)}
    if not gemma:
        ropes = dict.fromkeys(kinds, next(iter(ropes.values())))
    head_dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    return DecoderShape(
        layers=config.num_hidden_layers,
        heads=config.num_attention_heads,
        kv_heads=config.num_key_value_heads,
        head_dim=head_dim,
        vocabulary=config.vocab_size,
        context_tokens=config.max_position_embeddings,
        norm_epsilon=config.rms_norm_eps,
        activation=activation,
        attention_scale=(config.query_pre_attn_scalar if gemma else head_dim) ** -0.5,
        windows=tuple(window if kind == "sliding_attention" else None for kind in kinds),
        ropes=tuple(ropes[kind] for kind in kinds),
        embedding_scale=config.hidden_size**0.5 if gemma else 1.0,
        norm_offset=1.0 if gemma else 0.0,
        logit_cap=getattr(config, "final_logit_softcapping", None),
    )


def _read_rope(config: Any, kind: str | None) -> Rope:
    said = config.rope_parameters if kind is None else config.rope_parameters[kind]
    if said["rope_type"] not in _ROPE_TYPES or said.get("partial_rotary_factor", 1.0) != 1.0:
        raise UnknownDecoder(f"the batch decoder does not rotate positions as this model does: {said}")
    if said["rope_type"] != "default":
        frequencies, factor = ROPE_INIT_FUNCTIONS[said["rope_type"]](config, "cpu", layer_type=kind)
        return Rope(frequencies.float(), factor)
    dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    return Rope(1.0 / (said["rope_theta"] ** (torch.arange(0, dim, 2, dtype=torch.float) / dim)), 1.0)


@dataclass(frozen=True)
class _Layer:
    """The weights of a layer; norms that its family does not have are None."""

    input_norm: Tensor
    qkv: Linear
    query_norm: Tensor | None
    key_norm: Tensor | None
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
    """

    def __init__(self, model: Any, rows: int, quantization: Quantization | None = None) -> None:
        self.shape = read_shape(model.config)
        self.dtype: torch.dtype = model.dtype
        self.device: torch.device = model.device
        if len(model.model.layers) != self.shape.layers:
            raise UnknownDecoder(
                f"the configuration says {self.shape.layers} layers, the model has {len(model.model.layers)}"
            )
        embedding = model.get_input_embeddings().weight.detach()
        head = model.get_output_embeddings().weight.detach()
        self._embedding = embedding
        self._head = build_linear(head, None, rows, quantization)
        self._norm = model.model.norm.weight.detach() + self.shape.norm_offset
        self._frequencies = {rope: rope.frequencies.to(self.device) for rope in set(self.shape.ropes)}
        self._activation = _ACTIVATIONS[self.shape.activation]
        self._layers = []
        first = model.model.layers[0]
        self._shapes = {
            name: tuple(first.get_submodule(name).weight.shape)
            for modules in PRODUCTS.values()
            for name in modules
        }
        for layer in model.model.layers:
            self._layers.append(self._read_layer(layer, rows, quantization))
            layer.to("meta")  # so that there is one copy of the weights

    def _read_layer(self, layer: Any, rows: int, quantization: Quantization | None) -> _Layer:
        attention, mlp = layer.self_attn, layer.mlp
        sandwich = hasattr(layer, "pre_feedforward_layernorm")  # Gemma norms what leaves a block as well

        def norm(module: Any) -> Tensor:
            return module.weight.detach() + self.shape.norm_offset

        def linear(*modules: Any) -> Linear:
            biases = [module.bias for module in modules]
            if not modules[0].weight.is_floating_point():
                raise UnknownDecoder(
                    "the model's weights are quantized, which the batch decoder does not read"
                )
            bias = torch.cat([each.detach() for each in biases]) if biases[0] is not None else None
            weight = torch.cat([module.weight.detach() for module in modules])
            return build_linear(weight, bias, rows, quantization)

        return _Layer(
            input_norm=norm(layer.input_layernorm),
            qkv=linear(attention.q_proj, attention.k_proj, attention.v_proj),
            query_norm=norm(attention.q_norm) if hasattr(attention, "q_norm") else None,
            key_norm=norm(attention.k_norm) if hasattr(attention, "k_norm") else None,
            output=linear(attention.o_proj),
            attention_norm=norm(layer.post_attention_layernorm) if sandwich else None,
            feedforward_norm=norm(
                layer.pre_feedforward_layernorm if sandwich else layer.post_attention_layernorm
            ),
            gate_up=linear(mlp.gate_proj, mlp.up_proj),
            down=linear(mlp.down_proj),
            output_norm=norm(layer.post_feedforward_layernorm) if sandwich else None,
        )

    @property
    def kv_bytes_per_token(self) -> int:
        """Number of bytes that the keys and values of one token take, in all layers."""
        return 2 * self.shape.layers * self.shape.kv_heads * self.shape.head_dim * self.dtype.itemsize

    def read_adapter(self, folder: Path) -> DecoderAdapter:
        """Returns the adapter in a folder, ready for `hidden`.

        Raises:
            InvalidAdapter: It can not be read, or is for another model.
        """
        return read_adapter(folder, self._shapes, self.shape.layers, self.dtype, self.device)

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
        shape = self.shape

        def product(number: int, name: str, linear: Linear, x: Tensor) -> Tensor:
            y = linear(x)
            return y if adapters is None else adapters.add(number, name, x, y)

        x = F.embedding(token_ids, self._embedding)
        if shape.embedding_scale != 1.0:
            x = x * torch.tensor(shape.embedding_scale, dtype=self.dtype)  # rounded as transformers rounds it
        rotations = {rope: self._rotation(positions, rope) for rope in self._frequencies}
        heads, kv_heads = shape.heads, shape.kv_heads
        for number, layer in enumerate(self._layers):
            qkv = product(number, "qkv", layer.qkv, self._normed(x, layer.input_norm))
            qkv = qkv.view(len(x), -1, shape.head_dim)
            query_key, value = qkv[:, : heads + kv_heads], qkv[:, heads + kv_heads :]
            if layer.query_norm is not None and layer.key_norm is not None:
                query_key = torch.cat(
                    [
                        self._normed(query_key[:, :heads], layer.query_norm),
                        self._normed(query_key[:, heads:], layer.key_norm),
                    ],
                    1,
                )
            cosine, sine = rotations[shape.ropes[number]]
            query_key = torch.addcmul(query_key * cosine, query_key.roll(shape.head_dim // 2, -1), sine)
            attended = attend(number, query_key[:, :heads], query_key[:, heads:], value)
            output = product(number, "output", layer.output, attended)
            x = x + self._maybe_normed(output, layer.attention_norm)
            gated = product(number, "gate_up", layer.gate_up, self._normed(x, layer.feedforward_norm))
            gate, up = gated.chunk(2, -1)
            down = product(number, "down", layer.down, self._activation(gate) * up)
            x = x + self._maybe_normed(down, layer.output_norm)
        return x

    def logits(self, hidden: Tensor) -> Tensor:
        """Returns the logits after each hidden state, float32 of shape (tokens, vocabulary)."""
        logits = self._head(self._normed(hidden, self._norm)).float()
        cap = self.shape.logit_cap
        return logits if cap is None else torch.tanh(logits / cap) * cap

    def _normed(self, x: Tensor, weight: Tensor) -> Tensor:
        return F.rms_norm(x, weight.shape, weight, self.shape.norm_epsilon)

    def _maybe_normed(self, x: Tensor, weight: Tensor | None) -> Tensor:
        return x if weight is None else self._normed(x, weight)

    def _rotation(self, positions: Tensor, rope: Rope) -> tuple[Tensor, Tensor]:
        """Returns cosines and sines of shape (tokens, 1, head_dim); the sines of the first half negated."""
        angles = positions[:, None, None].float() * self._frequencies[rope]
        cosine, sine = angles.cos() * rope.factor, angles.sin() * rope.factor
        return (
            torch.cat([cosine, cosine], -1).to(self.dtype),
            torch.cat([-sine, sine], -1).to(self.dtype),
        )
