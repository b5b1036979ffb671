import errno
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any, Literal, Never

import numpy as np
import pyarrow as pa
import pytest

from assets.lake.tables import EMBEDDINGS
from common.model_memory import ModelMemory
from retrieval.embedding.batches import EMBEDDING_COLUMNS, embed_batches
from retrieval.embedding.config import (
    EmbedderConfig,
    EmbeddingFault,
    EmbeddingModelNotInstalled,
    packaged_embedding_model,
)
from retrieval.embedding.embedder import Embedder, EmbedderNotPrepared, QuantizationLoss
from retrieval.embedding.embedding_model import EmbeddingModel
from retrieval.embedding.model_folder import UnsupportedEmbeddingModel, model_folder_digest, read_model_folder

PROJECT = Path(__file__).parents[2]

TEXTS = [
    "A river is a natural stream of fresh water.",
    "",
    "naïve 東京 😀 \x00 zero\u200bwidth",
    "def f(x):\n    return x ** 2",
    *[" ".join(["water flows down"] * n) for n in (1, 7, 40, 400)],
]


@pytest.fixture(scope="module")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random model of two narrow layers: all that a large one has, and converted in a second."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers import models as modules
    from transformers import BertConfig, BertModel

    folder = tmp_path_factory.mktemp("tiny")
    bert = BertModel(
        BertConfig(
            vocab_size=30522,
            hidden_size=32,
            num_hidden_layers=2,
            num_attention_heads=2,
            intermediate_size=64,
            max_position_embeddings=64,
        )
    )
    bert.save_pretrained(folder / "bert")
    for name in ("tokenizer.json", "tokenizer_config.json", "vocab.txt", "special_tokens_map.json"):
        shutil.copy(packaged_embedding_model() / name, folder / "bert")
    transformer = modules.Transformer(str(folder / "bert"), max_seq_length=64)
    pooling = modules.Pooling(32, pooling_mode="mean")
    model = SentenceTransformer(modules=[transformer, pooling], device="cpu")
    model.save(str(folder / "model"), create_model_card=False)
    return folder / "model"


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Path:
    folder = tmp_path_factory.mktemp("models")
    Embedder.prepare(EmbedderConfig(model=tiny_model), folder)
    return folder


@pytest.fixture
def tiny(tiny_model: Path, cache: Path) -> Embedder:
    return Embedder(EmbedderConfig(model=tiny_model), cache, threads=1)


def edited(tiny_model: Path, target: Path, name: str, **changes: Any) -> EmbedderConfig:
    """A copy of the model with some keys of one of its files changed."""
    shutil.copytree(tiny_model, target)
    config = json.loads((target / name).read_text())
    (target / name).write_text(json.dumps(config | changes))
    return EmbedderConfig(model=target)


def test_vectors_equal_those_of_the_packaged_models_own_library() -> None:
    from sentence_transformers import SentenceTransformer

    config = EmbedderConfig()
    Embedder.prepare(config)
    embedder = Embedder(config)
    reference = SentenceTransformer(str(config.model), device="cpu", local_files_only=True)
    expected = reference.encode(TEXTS, normalize_embeddings=True)
    vectors = embedder.encode(TEXTS)
    assert vectors.shape == (len(TEXTS), 384) == (len(TEXTS), embedder.dimension)
    least = 0.9999 if embedder.numeric_form == "f32" else config.min_cosine
    assert (vectors * expected).sum(axis=1).min() >= least
    assert embedder.max_tokens == 256


def test_a_model_without_a_normalise_module_gives_unit_vectors_too(tiny: Embedder, tiny_model: Path) -> None:
    from sentence_transformers import SentenceTransformer

    reference = SentenceTransformer(str(tiny_model), device="cpu", local_files_only=True)
    expected = reference.encode(TEXTS, normalize_embeddings=True)
    vectors = tiny.encode(TEXTS)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1.0, atol=1e-5)
    least = 0.9999 if tiny.numeric_form == "f32" else EmbedderConfig().min_cosine
    assert (vectors * expected).sum(axis=1).min() >= least


def test_the_order_and_the_batches_do_not_change_vectors(
    tiny: Embedder, tiny_model: Path, cache: Path
) -> None:
    one_by_one = Embedder(EmbedderConfig(model=tiny_model, batch_tokens=1), cache, threads=1)
    np.testing.assert_allclose(one_by_one.encode(TEXTS), tiny.encode(TEXTS), atol=1e-5)
    np.testing.assert_allclose(tiny.encode(TEXTS[::-1])[::-1], tiny.encode(TEXTS), atol=1e-5)
    np.testing.assert_array_equal(tiny.encode(TEXTS), tiny.encode(TEXTS))
    assert tiny.encode([]).shape == (0, 32)


def test_more_texts_than_one_window_keep_their_order(tiny: Embedder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("retrieval.embedding.embedder._WINDOW", 3)
    np.testing.assert_allclose(tiny.encode(TEXTS)[-1], tiny.encode(TEXTS[-1:])[0], atol=1e-5)


def test_arrow_batches_become_rows_of_the_table(tiny_model: Path, cache: Path, tiny: Embedder) -> None:
    batch = pa.RecordBatch.from_pydict(
        {"tenant": ["t", "u"], "text_sha256": ["a", "b"], "text": ["one text", "another"]}
    )
    (out,) = embed_batches(iter([batch]), EmbedderConfig(model=tiny_model), cache)
    assert out.schema == EMBEDDING_COLUMNS
    assert out.schema.names == [n for n in EMBEDDINGS.schema.names if n != "OpenLineage_RunId"]
    assert out.column("tenant").to_pylist() == ["t", "u"]
    assert set(out.column("model_digest").to_pylist()) == {tiny.digest}
    np.testing.assert_allclose(
        np.array(out.column("vector").to_pylist()), tiny.encode(["one text", "another"]), atol=1e-5
    )
    empty = batch.slice(0, 0)
    assert next(embed_batches(iter([empty]), EmbedderConfig(model=tiny_model), cache)).num_rows == 0


def test_an_unprepared_model_says_what_to_do(tiny_model: Path, tmp_path: Path) -> None:
    with pytest.raises(EmbedderNotPrepared, match="make setup"):
        Embedder(EmbedderConfig(model=tiny_model), tmp_path)


@pytest.mark.parametrize("winner_first", [False, True], ids=["alone", "another process was first"])
def test_a_conversion_is_whole_or_absent_and_the_first_of_two_is_kept(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, winner_first: bool
) -> None:
    import openvino

    config = EmbedderConfig(model=tiny_model)
    digest = model_folder_digest(read_model_folder(tiny_model), tmp_path)
    save_model = openvino.save_model

    def save(model: Any, path: Path, **options: Any) -> None:
        assert not (tmp_path / digest / "model.xml").exists()
        save_model(model, path, **options)
        if winner_first:
            (tmp_path / digest).mkdir()
            shutil.copy(path, tmp_path / digest)
            shutil.copy(path.with_suffix(".bin"), tmp_path / digest)

    monkeypatch.setattr(openvino, "save_model", save)
    Embedder.prepare(config, tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {digest, "digests"}
    assert Embedder(config, tmp_path, threads=1).encode(["text"]).shape == (1, 32)


def test_a_conversion_that_fails_leaves_nothing_behind_and_transformers_says_nothing(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    import openvino

    def full(*_: Any, **__: Any) -> Never:
        raise OSError(28, "no space left on device")

    monkeypatch.setattr(openvino, "save_model", full)
    with pytest.raises(OSError, match="no space"):
        Embedder.prepare(EmbedderConfig(model=tiny_model), tmp_path)
    assert not capfd.readouterr().err
    assert {path.name for path in tmp_path.iterdir()} == {"digests"}


def test_prepared_once_the_model_is_not_converted_again(
    tiny_model: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "retrieval.embedding.conversion", None)
    assert Embedder.prepare(EmbedderConfig(model=tiny_model), cache).is_file()


def test_the_digest_follows_content_and_not_place(tiny_model: Path, tmp_path: Path, cache: Path) -> None:
    digest = model_folder_digest(read_model_folder(tiny_model), cache)
    copy = shutil.copytree(tiny_model, tmp_path / "copy")
    assert model_folder_digest(read_model_folder(copy), tmp_path) == digest
    weights = copy / "model.safetensors"
    changed = bytearray(weights.read_bytes())
    changed[-1] ^= 1
    weights.write_bytes(changed)
    assert model_folder_digest(read_model_folder(copy), tmp_path) != digest


def test_the_digest_is_remembered(tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = read_model_folder(tiny_model)
    digest = model_folder_digest(folder, tmp_path)
    monkeypatch.setattr("hashlib.file_digest", lambda *_: pytest.fail("hashed again"))
    assert model_folder_digest(folder, tmp_path) == digest


def refuse_to_write(monkeypatch: pytest.MonkeyPatch, code: int) -> list[Path]:
    """Makes writing fail with an error code, whoever runs the tests; returns the folders that were tried."""
    tried: list[Path] = []

    def refuse(*_: Any, dir: Path, **__: Any) -> Any:
        tried.append(dir)
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr("common.atomic_files.tempfile.TemporaryDirectory", refuse)
    return tried


@pytest.mark.parametrize("code", [errno.EACCES, errno.EPERM, errno.EROFS])
def test_a_cache_that_can_not_be_written_only_costs_time(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    folder = read_model_folder(tiny_model)
    digest = model_folder_digest(folder, tmp_path / "writable")
    tried = refuse_to_write(monkeypatch, code)
    assert model_folder_digest(folder, tmp_path / "cache") == digest
    assert tried == [tmp_path / "cache" / "digests"]
    assert list((tmp_path / "cache").rglob("*")) == tried


def test_a_full_disk_is_an_error(tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    refuse_to_write(monkeypatch, errno.ENOSPC)
    with pytest.raises(OSError, match="No space left"):
        model_folder_digest(read_model_folder(tiny_model), tmp_path / "cache")


@pytest.mark.parametrize(
    ("name", "changes", "message"),
    [
        (
            "1_Pooling/config.json",
            {"pooling_mode": "max"},
            r"config\.json pools by max; supported is one of mean",
        ),
        ("1_Pooling/config.json", {"pooling_mode_max_tokens": True}, "mean and pooling_mode_max_tokens"),
        ("1_Pooling/config.json", {"pooling_mode": "attention"}, "pools by attention"),
        ("1_Pooling/config.json", {"include_prompt": False}, "leaves prompts out"),
        ("1_Pooling/config.json", {"embedding_dimension": 48}, "vectors of 32 values, and .* says 48"),
        ("sentence_bert_config.json", {"do_lower_case": True}, "do_lower_case True"),
        ("sentence_bert_config.json", {"transformer_task": "fill-mask"}, "transformer_task 'fill-mask'"),
        ("config.json", {"num_hidden_layers": 3}, "lacks 16 weights .* the first encoder.layer.2"),
        ("config.json", {"model_type": "own", "auto_map": {"AutoModel": "own.Own"}}, "own code is never run"),
        ("config.json", {"hidden_size": 48}, "transformers can not load"),
    ],
)
def test_a_model_that_would_give_other_vectors_is_refused(
    tiny_model: Path, tmp_path: Path, name: str, changes: Any, message: str
) -> None:
    config = edited(tiny_model, tmp_path / "model", name, **changes)
    with pytest.raises(UnsupportedEmbeddingModel, match=message):
        Embedder.prepare(config, tmp_path / "cache")


def test_further_modules_and_missing_files_are_refused(tiny_model: Path, tmp_path: Path) -> None:
    with pytest.raises(UnsupportedEmbeddingModel, match=r"no modules\.json"):
        read_model_folder(tmp_path)
    target = shutil.copytree(tiny_model, tmp_path / "model")
    modules = json.loads((target / "modules.json").read_text())
    added = {"idx": 2, "name": "2", "path": "2_CNN", "type": "sentence_transformers.models.CNN"}
    (target / "modules.json").write_text(json.dumps([*modules, added]))
    with pytest.raises(UnsupportedEmbeddingModel, match="Transformer, Pooling, CNN"):
        read_model_folder(target)
    dense = added | {"path": "2_Dense", "type": "sentence_transformers.models.Dense"}
    (target / "modules.json").write_text(json.dumps([*modules, dense]))
    (target / "2_Dense").mkdir()
    config = {
        "in_features": 64,
        "out_features": 16,
        "activation_function": "torch.nn.modules.activation.Tanh",
    }
    for changes, message in (
        ({"activation_function": "os.system"}, "the activation os.system, not torch's own"),
        ({}, "has no model.safetensors"),
    ):
        (target / "2_Dense" / "config.json").write_text(json.dumps(config | changes))
        with pytest.raises(UnsupportedEmbeddingModel, match=message):
            read_model_folder(target)
    (target / "2_Dense" / "model.safetensors").touch()
    with pytest.raises(UnsupportedEmbeddingModel, match=r"takes vectors of 64 values, and .* makes 32"):
        read_model_folder(target)
    (target / "modules.json").write_text(json.dumps(modules))
    (target / "model.safetensors").unlink()
    with pytest.raises(UnsupportedEmbeddingModel, match="safetensors"):
        read_model_folder(target)


@pytest.mark.parametrize(
    ("quantization", "has", "cosine", "form"),
    [
        ("none", ["BF16", "WINOGRAD"], 0.9995, "bf16"),
        ("none", ["BF16", "WINOGRAD"], 0.9, "f32"),
        ("int8", ["BF16", "WINOGRAD"], 0.995, "int8"),
        ("int8", ["BF16", "WINOGRAD"], 0.9, "f32"),
        ("int8", ["FP32", "INT8"], 0.995, "f32"),
    ],
)
def test_a_fast_form_is_used_only_where_its_vectors_are_close_enough(
    tiny_model: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    quantization: Literal["none", "int8"],
    has: list[str],
    cosine: float,
    form: str,
) -> None:
    """This machine may have no bfloat16: its name is kept, its float32 kernels stand in for it."""
    import openvino

    from retrieval.embedding import embedder as module

    config = EmbedderConfig(model=tiny_model, quantization=quantization)
    Embedder.prepare(config, tmp_path)
    compile_model = module.compile_form
    monkeypatch.setattr(openvino.Core, "get_property", lambda *a: has if "CAPAB" in a[2] else "machine")
    monkeypatch.setattr(
        module, "compile_form", lambda core, path, wanted, threads: compile_model(core, path, "f32", threads)
    )
    monkeypatch.setattr(module, "tried_cosine", lambda *_: cosine)
    assert Embedder(config, tmp_path, threads=1).numeric_form == form
    # The verdict is remembered: it is not measured again on this machine.
    monkeypatch.setattr(module, "tried_cosine", lambda *_: pytest.fail("measured again"))
    assert Embedder(config, tmp_path, threads=1).numeric_form == form


@pytest.mark.parametrize("ending", ["os.kill(os.getpid(), signal.SIGFPE)", "print('no number')"])
def test_a_form_whose_trial_ends_the_process_is_not_used(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ending: str
) -> None:
    import openvino

    config = EmbedderConfig(model=tiny_model)
    Embedder.prepare(config, tmp_path)
    has = ["BF16", "FP16"]
    monkeypatch.setattr(openvino.Core, "get_property", lambda *a: has if "CAPAB" in a[2] else "machine")
    (tmp_path / "dying_trial.py").write_text(f"import os, signal\n{ending}\n")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr("retrieval.embedding.form_trial._MODULE", "dying_trial")
    embedder = Embedder(config, tmp_path, threads=1)
    assert embedder.numeric_form == "f32"
    assert np.isfinite(embedder.encode(TEXTS)).all()


def test_float32_is_taken_where_no_loss_is_allowed(
    tiny_model: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from retrieval.embedding import embedder as module

    monkeypatch.setattr(module, "tried_cosine", lambda *_: 1.0)
    assert Embedder(EmbedderConfig(model=tiny_model, min_cosine=1.0), cache).numeric_form == "f32"


def test_int8_vectors_are_near_the_float_ones_and_named_otherwise(
    tiny_model: Path, cache: Path, tiny: Embedder
) -> None:
    config = EmbedderConfig(model=tiny_model, quantization="int8")
    path = Embedder.prepare(config, cache)
    quantised = Embedder(config, cache, threads=1)
    assert quantised.digest != tiny.digest
    assert quantised.digest == EmbeddingModel(config, cache).digest
    cosines = (quantised.encode(TEXTS) * tiny.encode(TEXTS)).sum(axis=1)
    assert cosines.min() >= 0.99
    assert "FakeQuantize" in path.read_text()
    np.testing.assert_allclose(quantised.encode(TEXTS[::-1])[::-1], quantised.encode(TEXTS), atol=1e-5)


def test_the_steps_of_an_int8_model_are_the_same_without_int8_instructions() -> None:
    """The packaged model, as a machine without AVX-512 runs it, beside how this machine does."""
    import openvino

    from retrieval.embedding.compiled_model import compile_form

    config = EmbedderConfig(quantization="int8")
    path = Embedder.prepare(config)
    embedder = Embedder(config)
    expected = Embedder(EmbedderConfig()).encode(TEXTS)
    vectors = embedder.encode(TEXTS)
    plain = compile_form(openvino.Core(), path, "f32", None)
    embedder._model = ModelMemory().model("the plain form", 0, lambda: plain)
    elsewhere = embedder.encode(TEXTS)
    assert (vectors * elsewhere).sum(axis=1).min() >= 0.997
    assert (vectors * expected).sum(axis=1).min() >= 0.99
    assert (elsewhere * expected).sum(axis=1).min() >= 0.99


def test_a_model_that_loses_too_much_is_not_quantised(tiny_model: Path, cache: Path, tmp_path: Path) -> None:
    config = EmbedderConfig(model=tiny_model, quantization="int8", min_int8_cosine=1.0)
    floats = EmbeddingModel(EmbedderConfig(model=tiny_model), cache).digest
    shutil.copytree(cache / floats, tmp_path / floats)
    with pytest.raises(QuantizationLoss, match="leave quantization at none"):
        Embedder.prepare(config, tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {floats, "digests"}


def test_weights_that_are_no_numbers_are_named(tiny_model: Path, tmp_path: Path) -> None:
    from safetensors.numpy import load_file, save_file

    folder = shutil.copytree(tiny_model, tmp_path / "model")
    weights = load_file(folder / "model.safetensors")
    name = next(each for each in weights if each.endswith("layer.1.output.dense.weight"))
    weights[name][3, 4] = np.nan
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(
        UnsupportedEmbeddingModel, match=r"no finite numbers in the weights .*layer\.1\.output"
    ):
        Embedder.prepare(EmbedderConfig(model=folder), tmp_path / "cache")
    assert list((tmp_path / "cache").glob("*/model.xml")) == []


def test_a_vector_that_is_no_number_is_an_error_and_no_row(
    tiny: Embedder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What weights of finite numbers can still give where a numeric form overflows."""
    from retrieval.embedding import embedder as module

    def overflow(*arguments: Any) -> None:
        arguments[-1][:] = 1.0
        arguments[-1][1] = np.inf

    monkeypatch.setattr(module, "run_compiled", overflow)
    with pytest.raises(EmbeddingFault, match=r"no number of 'second'.*MIN_COSINE=1"):
        tiny.encode(["first", "second"])


def test_a_conversion_of_another_dimension_is_named(tiny_model: Path, cache: Path, tmp_path: Path) -> None:
    """As after an upgrade that left an older file in the cache."""
    config = EmbedderConfig(model=tiny_model)
    Embedder.prepare(EmbedderConfig())
    digest = EmbeddingModel(config, cache).digest
    older = EmbeddingModel.of(EmbedderConfig(), tmp_path).converted_path.parent
    shutil.copytree(older, tmp_path / digest)
    with pytest.raises(EmbeddingFault, match=f"vectors of 384 values, .* has 32: remove {tmp_path / digest}"):
        Embedder(config, tmp_path)


def test_truncated_vectors_and_prompts_are_of_another_digest(tiny_model: Path, cache: Path) -> None:
    plain = EmbedderConfig(model=tiny_model)
    configs = [
        plain,
        EmbedderConfig(model=tiny_model, dimension=8),
        EmbedderConfig(model=tiny_model, document_prompt="passage: "),
        EmbedderConfig(model=tiny_model, query_prompt="passage: "),
    ]
    whole, short, passages, queries = (Embedder(config, cache, threads=1) for config in configs)
    digests = {each.digest for each in (whole, short, passages, queries)}
    assert len(digests) == 4
    assert digests == {EmbeddingModel(config, cache).digest for config in configs}
    first = whole.encode(TEXTS)[:, :8]
    first /= np.linalg.norm(first, axis=1, keepdims=True)
    np.testing.assert_allclose(short.encode(TEXTS), first, atol=1e-5)
    prefixed = whole.encode(["passage: " + text for text in TEXTS])
    np.testing.assert_allclose(passages.encode(TEXTS), prefixed, atol=1e-5)
    np.testing.assert_allclose(passages.encode_queries(TEXTS), whole.encode(TEXTS), atol=1e-5)
    np.testing.assert_allclose(queries.encode_queries(TEXTS), prefixed, atol=1e-5)
    np.testing.assert_allclose(queries.encode(TEXTS), whole.encode(TEXTS), atol=1e-5)
    with pytest.raises(UnsupportedEmbeddingModel, match="vectors of 32 values, and 33 are wanted"):
        Embedder.prepare(EmbedderConfig(model=tiny_model, dimension=33), cache)


def test_texts_are_no_wider_than_the_model_reads(tiny_model: Path, tmp_path: Path) -> None:
    """Widths are multiples of eight, and a model of 61 positions has none for the sixty-second token."""
    from safetensors.numpy import load_file, save_file

    config = edited(tiny_model, tmp_path / "model", "config.json", max_position_embeddings=61)
    weights = load_file(config.model / "model.safetensors")
    name = next(each for each in weights if each.endswith("position_embeddings.weight"))
    weights[name] = weights[name][:61].copy()
    save_file(weights, config.model / "model.safetensors", metadata={"format": "pt"})
    Embedder.prepare(config, tmp_path / "cache")
    embedder = Embedder(config, tmp_path / "cache", threads=1)
    assert embedder.max_tokens == 61
    assert np.isfinite(embedder.encode(TEXTS)).all()


def test_a_named_model_that_is_not_installed_says_how(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("retrieval.embedding.config.sys.prefix", str(tmp_path))
    config = EmbedderConfig.model_validate({"model": "bge-small-en-v1.5"})
    with pytest.raises(EmbeddingModelNotInstalled, match="make setup EXTRAS=bge"):
        EmbeddingModel.of(config, tmp_path).prepare()


def test_threads_are_not_pinned_to_cores_that_another_process_pins_its_own_to(tiny: Embedder) -> None:
    with tiny._model.in_use() as model:
        assert model.get_property("ENABLE_CPU_PINNING") is False


def test_encoding_needs_no_torch_and_nothing_is_reported_home(
    tiny_model: Path, cache: Path, tmp_path: Path
) -> None:
    code = """
import sys, pathlib
from retrieval.embedding.config import EmbedderConfig
from retrieval.embedding.embedder import Embedder
model, cache = map(pathlib.Path, sys.argv[1:])
Embedder(EmbedderConfig(model=model), cache).encode(["a text"])
loaded = {name.split(".")[0] for name, module in sys.modules.items() if module is not None}
assert not loaded & {"torch", "transformers", "openvino_telemetry"}, loaded
"""
    environment = os.environ | {"HOME": str(tmp_path), "PYTHONPATH": str(PROJECT)}
    subprocess.run([sys.executable, "-c", code, str(tiny_model), str(cache)], env=environment, check=True)
    assert not (tmp_path / "intel").exists()
