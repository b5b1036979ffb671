"""bge-small-en-v1.5: its folder is made from the weights of an ONNX graph, and gives its authors' vectors."""

import json
from pathlib import Path

import numpy as np
import pytest

from orchestration.environment.bge import BGE_QUERY_PROMPT, write_bge_folder
from retrieval.embedding.config import BGE_SMALL, EmbedderConfig, installable_embedding_models
from retrieval.embedding.embedder import Embedder
from retrieval.embedding.embedding_model import EmbeddingModel
from retrieval.embedding.model_folder import read_model_folder

INSTALLED = installable_embedding_models()[BGE_SMALL]
TEXTS = ["The Danube rises in the Black Forest.", "", "naïve 東京", "water flows " * 400]


def test_weights_are_found_by_their_name_or_by_the_product_that_they_are_in(tmp_path: Path) -> None:
    import openvino
    from openvino import opset13 as ops
    from safetensors.numpy import load_file

    numbers = np.random.default_rng(0)
    words, inner, bias = (numbers.normal(size=s).astype(np.float32) for s in ((10, 4), (4, 6), (6,)))
    ids = ops.parameter([-1, -1], np.int64, name="input_ids")
    table = ops.constant(words)
    table.set_friendly_name("embeddings.word_embeddings.weight")
    factor = ops.constant(inner)
    factor.set_friendly_name("onnx::MatMul_1525")
    product = ops.matmul(ops.gather(table, ids, ops.constant(0)), factor, False, False)
    product.set_friendly_name("/encoder/layer.0/intermediate/dense/MatMul")
    added = ops.constant(bias)
    added.set_friendly_name("encoder.layer.0.intermediate.dense.bias")
    graph = tmp_path / "graph.xml"
    openvino.save_model(openvino.Model(ops.add(product, added), [ids]), graph, compress_to_fp16=False)
    folder = tmp_path / "folder"
    folder.mkdir()
    write_bge_folder(graph, b"{}", folder)
    found = load_file(folder / "model.safetensors")
    assert found.keys() == {
        "embeddings.word_embeddings.weight",
        "encoder.layer.0.intermediate.dense.weight",
        "encoder.layer.0.intermediate.dense.bias",
    }
    np.testing.assert_array_equal(found["encoder.layer.0.intermediate.dense.weight"], inner.T)
    np.testing.assert_array_equal(found["embeddings.word_embeddings.weight"], words)
    np.testing.assert_array_equal(found["encoder.layer.0.intermediate.dense.bias"], bias)
    read = read_model_folder(folder)
    assert (read.pooling, read.dimension, read.max_tokens) == ("cls", 384, 512)
    assert (read.query_prompt, read.document_prompt) == (BGE_QUERY_PROMPT, "")
    assert json.loads((folder / "config.json").read_text())["model_type"] == "bert"


@pytest.mark.skipif(not INSTALLED.is_dir(), reason="make setup EXTRAS=bge")
def test_the_real_model_gives_the_vectors_of_sentence_transformers(tmp_path: Path) -> None:
    from sentence_transformers import SentenceTransformer

    config = EmbedderConfig.model_validate({"model": BGE_SMALL, "min_cosine": 1.0})
    model = EmbeddingModel.of(config, tmp_path)
    assert isinstance(model.embedder, Embedder)
    assert model.embedder.numeric_form == "f32"
    reference = SentenceTransformer(str(INSTALLED), device="cpu", local_files_only=True)
    asked = reference.encode([BGE_QUERY_PROMPT + text for text in TEXTS], normalize_embeddings=True)
    told = reference.encode(TEXTS, normalize_embeddings=True)
    assert (model.embedder.encode_queries(TEXTS) * asked).sum(axis=1).min() >= 0.9999
    assert (model.embedder.encode(TEXTS) * told).sum(axis=1).min() >= 0.9999
    assert list(tmp_path.iterdir()) == []  # converted at set-up, in the environment
