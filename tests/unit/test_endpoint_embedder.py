"""An embeddings endpoint, by a local server that speaks OpenAI's protocol and can change its model."""

import hashlib
import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import dagster as dg
import numpy as np
import pyarrow as pa
import pytest
from index_rows import NO_LINEAGE
from pydantic import ValidationError
from tokenizers import Tokenizer

from assets import gold
from assets.lake.audits import record_audit
from assets.lake.tables import CHUNKS
from assets.recipe import Recipe
from orchestration.settings import Settings, open_configured_lake
from retrieval.embedding.batches import embed_batches
from retrieval.embedding.config import EmbedderConfig, EmbeddingFault, packaged_embedding_model
from retrieval.embedding.embedding_model import EmbeddingModel
from retrieval.embedding.endpoint_embedder import EndpointEmbedder
from retrieval.embedding.endpoint_identity import PROBES

KEY = "sk-of-the-tests"


def vector(text: str, model: str, dimension: int) -> list[float]:
    """A vector that depends on the text and the model alone, and is not of length 1."""
    seed = int.from_bytes(hashlib.sha256(f"{model}/{text}".encode()).digest()[:8])
    return [round(float(value) * 3, 6) for value in np.random.default_rng(seed).normal(size=dimension)]


class Service:
    """The server: what it serves, what it was asked, and how it misbehaves next."""

    def __init__(self) -> None:
        self.weights, self.dimension = "first", 16
        self.asked: list[dict[str, Any]] = []
        self.keys: list[str | None] = []
        self.next: list[Callable[[BaseHTTPRequestHandler], None]] = []
        self.twist: Callable[[dict[str, Any]], Any] = lambda reply: reply
        service = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["content-length"])))
                service.asked.append(body | {"path": self.path})
                service.keys.append(self.headers.get("authorization"))
                if service.next:
                    service.next.pop(0)(self)
                    return
                data = [
                    {
                        "object": "embedding",
                        "index": i,
                        "embedding": vector(text, service.weights, service.dimension),
                    }
                    for i, text in enumerate(body["input"])
                ]
                # In another order than asked: the protocol has an index for that.
                send(self, 200, service.twist({"object": "list", "data": data[::-1], "model": body["model"]}))

            def log_message(self, *_: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


def send(handler: BaseHTTPRequestHandler, status: int, reply: Any, **headers: str) -> None:
    payload = reply if isinstance(reply, bytes) else json.dumps(reply).encode()
    handler.send_response(status)
    for name, value in headers.items():
        handler.send_header(name.replace("_", "-"), value)
    handler.send_header("content-length", str(len(payload)))
    handler.end_headers()
    handler.wfile.write(payload)


def refusal(status: int, **headers: str) -> Callable[[BaseHTTPRequestHandler], None]:
    return lambda handler: send(handler, status, {"error": f"no, {KEY}"}, **headers)


@pytest.fixture
def service() -> Iterator[Service]:
    started = Service()
    yield started
    started.server.shutdown()
    started.server.server_close()


def config(service: Service, **settings: Any) -> EmbedderConfig:
    of_embedder = {
        key: settings.pop(key) for key in ("query_prompt", "document_prompt", "dimension") if key in settings
    }
    endpoint = {"url": service.url, "model": "small", **settings}
    return EmbedderConfig.model_validate(of_embedder | {"endpoint": endpoint})


def unit(text: str, service: Service) -> np.ndarray:
    found = np.array(vector(text, service.weights, service.dimension))
    return found / np.linalg.norm(found)


def test_texts_go_in_batches_and_come_back_in_order_as_unit_vectors(service: Service, tmp_path: Path) -> None:
    embedder = EndpointEmbedder(config(service, batch_texts=3), tmp_path)
    assert embedder.dimension == 16
    texts = [f"text {i}" for i in range(7)]
    vectors = embedder.encode(texts)
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(vectors, [unit(text, service) for text in texts], atol=1e-5)
    assert [len(body["input"]) for body in service.asked] == [len(PROBES), 4, 4, 2]
    assert {(body["path"], body["model"]) for body in service.asked} == {("/v1/embeddings", "small")}
    assert embedder.encode([]).shape == (0, 16)
    assert service.keys == [None] * 4


def test_prompts_and_truncation_are_as_for_a_folder(service: Service, tmp_path: Path) -> None:
    plain = EndpointEmbedder(config(service), tmp_path)
    set_up = config(service, query_prompt="query: ", document_prompt="passage: ", dimension=4)
    embedder = EndpointEmbedder(set_up, tmp_path)
    assert embedder.digest != plain.digest
    for vectors, text in (
        (embedder.encode(["a"]), "passage: a"),
        (embedder.encode_queries(["a"]), "query: a"),
    ):
        first = unit(text, service)[:4]
        np.testing.assert_allclose(vectors[0], first / np.linalg.norm(first), atol=1e-5)
    with pytest.raises(EmbeddingFault, match="vectors of 16 values, and 17 are wanted"):
        EndpointEmbedder(config(service, dimension=17), tmp_path)


def test_the_identity_is_stored_and_another_start_asks_nothing(service: Service, tmp_path: Path) -> None:
    first = EndpointEmbedder(config(service), tmp_path)
    asked = len(service.asked)
    moved = EndpointEmbedder(config(service, url=f"{service.url}/v1/"), tmp_path)
    assert moved.digest == first.digest
    assert len(service.asked) == asked
    elsewhere = EndpointEmbedder(config(service), tmp_path / "another state folder")
    assert elsewhere.digest == first.digest
    service.weights = "second"
    assert EndpointEmbedder(config(service), tmp_path / "a third").digest != first.digest


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"dimension": 12}, "changed its dimension: it answers with vectors of 12 values, .* before had 16"),
        (
            {"weights": "second"},
            r"another model than when it was first asked: .* cosine -?0\.\d+ to the stored",
        ),
    ],
    ids=["another dimension", "other weights"],
)
def test_a_model_that_changes_is_noticed_by_the_next_answer(
    service: Service, tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    embedder = EndpointEmbedder(config(service), tmp_path)
    before = embedder.encode(["a text"])
    for name, value in change.items():
        setattr(service, name, value)
    cure = r"Serve the former model again; or, .*ENDPOINT__MODEL, or remove .*/endpoints/\w+\.json"
    for again in (embedder, EndpointEmbedder(config(service), tmp_path)):
        for encode in (again.encode, again.encode_queries):
            with pytest.raises(EmbeddingFault, match=message) as error:
                encode(["a text"])
            assert error.match(cure)
    service.dimension, service.weights = 16, "first"
    np.testing.assert_array_equal(embedder.encode(["a text"]), before)


def test_numbers_may_differ_by_rounding(service: Service, tmp_path: Path) -> None:
    embedder = EndpointEmbedder(config(service), tmp_path)

    def rounded(reply: dict[str, Any]) -> dict[str, Any]:
        for item in reply["data"]:
            item["embedding"] = [round(value, 1) for value in item["embedding"]]
        return reply

    service.twist = rounded
    assert embedder.encode(["a text"]).shape == (1, 16)


def test_what_may_pass_is_tried_again_and_what_may_not_is_said_at_once(
    service: Service, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KEY_OF_TESTS", KEY)
    embedder = EndpointEmbedder(config(service, api_key_env="KEY_OF_TESTS"), tmp_path, first_wait_s=0.01)
    service.next = [
        refusal(503),
        refusal(429, retry_after="0.01"),
        lambda handler: handler.connection.close(),
    ]
    assert embedder.encode(["a text"]).shape == (1, 16)
    assert len(service.asked) == 1 + 4
    assert set(service.keys) == {f"Bearer {KEY}"}
    service.next = [refusal(500)] * 4
    with pytest.raises(
        EmbeddingFault, match="failed 4 times, last with HTTP 500: check that the service runs"
    ):
        embedder.encode(["a text"])
    for status, cure in ((401, "check the key"), (404, "the model's name"), (413, "BATCH_TEXTS lower")):
        service.next = [refusal(status)]
        with pytest.raises(EmbeddingFault, match=f"HTTP {status}; .*{cure}") as error:
            embedder.encode(["a secret text"])
        assert KEY not in str(error.value)
        assert "a secret text" not in str(error.value)
    monkeypatch.delenv("KEY_OF_TESTS")
    with pytest.raises(EmbeddingFault, match="KEY_OF_TESTS holds no key"):
        embedder.encode(["a text"])


@pytest.mark.parametrize(
    ("twist", "message"),
    [
        (lambda reply: b"<html>", "embeddings form"),
        (lambda reply: {"data": reply["data"][1:]}, r"embeddings form.*1 vectors for 2 texts"),
        (lambda reply: {"data": [*reply["data"][1:], reply["data"][1]]}, "embeddings form"),
        (
            lambda reply: {"data": [{"index": i, "embedding": [[1.0]]} for i in range(2)]},
            "no list of numbers",
        ),
        (
            lambda reply: {"data": [{"index": i, "embedding": [1.0] * (i + 1)} for i in range(2)]},
            "one length",
        ),
        (
            lambda reply: {"data": [{"index": i, "embedding": [0.0] * 16} for i in range(2)]},
            "NaN, infinite or",
        ),
        (lambda reply: {"data": [{"index": i, "embedding": [float("nan")] * 16} for i in range(2)]}, "NaN"),
    ],
)
def test_a_reply_in_another_form_is_named(
    service: Service, tmp_path: Path, twist: Callable[[dict[str, Any]], Any], message: str
) -> None:
    embedder = EndpointEmbedder(config(service), tmp_path)
    service.twist = twist
    with pytest.raises(EmbeddingFault, match=message):
        embedder.encode(["a text"])


def test_the_days_budget_is_shared_and_nothing_is_sent_beyond_it(
    service: Service, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokenizer = Tokenizer.from_file(str(packaged_embedding_model() / "tokenizer.json"))
    count = [len(tokenizer.encode(text)) for text in (*PROBES, "a text")]
    limit = sum(count[:3]) + count[0] + count[3]
    limited = config(service, tokens_per_day=limit)
    EndpointEmbedder(limited, tmp_path).encode(["a text"])
    asked = len(service.asked)
    another_process = EndpointEmbedder(limited, tmp_path)
    with pytest.raises(EmbeddingFault, match=f"{limit} of the {limit} tokens .* run again tomorrow"):
        another_process.encode(["a text"])
    assert len(service.asked) == asked
    (spent,) = tmp_path.glob("endpoints/*-tokens")
    spent.write_text(spent.read_text().replace("2", "1", 1))  # of a day long ago
    assert another_process.encode(["a text"]).shape == (1, 16)


def test_it_stands_in_the_same_slot_as_a_folder(service: Service, tmp_path: Path) -> None:
    model = EmbeddingModel.of(config(service), tmp_path)
    model.prepare()
    assert model.tokenizer_path == packaged_embedding_model() / "tokenizer.json"
    assert model.name == f"small at {service.url}"
    batch = pa.RecordBatch.from_pydict({"tenant": ["t"], "text_sha256": ["a"], "text": ["one text"]})
    (out,) = embed_batches(iter([batch]), model.config, model.cache)
    assert out.column("model_digest").to_pylist() == [model.digest]
    np.testing.assert_allclose(out.column("vector").to_pylist()[0], unit("one text", service), atol=1e-5)


def test_a_damaged_identity_is_named_and_not_asked_for_anew(service: Service, tmp_path: Path) -> None:
    EndpointEmbedder(config(service), tmp_path)
    (stored,) = tmp_path.glob("endpoints/*.json")
    stored.write_text(stored.read_text()[:-40])
    with pytest.raises(EmbeddingFault, match=f"{stored} does not hold the identity"):
        EndpointEmbedder(config(service), tmp_path)


@pytest.mark.parametrize(
    ("endpoint", "message"),
    [
        ({"url": "http://127.0.0.1:1"}, "both its url and the name of its model"),
        ({"model": "small"}, "both its url and the name of its model"),
        ({"url": "http://me:secret@127.0.0.1:1", "model": "small"}, "holds credentials"),
        ({"url": "ftp://127.0.0.1", "model": "small"}, "begins with http"),
    ],
)
def test_a_wrong_configuration_is_named(endpoint: dict[str, str], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        EmbedderConfig.model_validate({"endpoint": endpoint})
    with pytest.raises(ValidationError, match="leave quantization at none"):
        EmbedderConfig.model_validate({"endpoint": {"url": "http://a", "model": "b"}, "quantization": "int8"})


def chunk_rows(texts: list[str]) -> list[dict[str, Any]]:
    """Rows of gold.chunks, one document each."""
    return [
        {
            "chunk_id": text,
            "doc_id": f"document of {text}",
            "tenant": "default",
            "ordinal": 0,
            "char_start": 0,
            "char_end": len(text),
            "text": text,
            "text_sha256": hashlib.sha256(text.encode()).hexdigest(),
            "token_count": 1,
            "OpenLineage_RunId": "run",
        }
        for text in texts
    ]


def test_what_was_embedded_before_a_stop_is_kept_and_the_next_run_goes_on(
    service: Service, tmp_path: Path
) -> None:
    lake = open_configured_lake(Settings(home=tmp_path))
    first, more = [f"text number {i}" for i in range(7)], [f"a later text {i}" for i in range(3)]
    tokenizer = Tokenizer.from_file(str(packaged_embedding_model() / "tokenizer.json"))

    def tokens(texts: list[str]) -> int:
        return sum(len(tokenizer.encode(text)) for text in texts)

    def add(texts: list[str]) -> None:
        rows = pa.Table.from_pylist(chunk_rows(texts), CHUNKS.schema)
        record_audit(lake, CHUNKS.name, lake.append(CHUNKS, rows, NO_LINEAGE), True, [], "run")

    def embed(budget: int | None) -> tuple[bool, list[str], set[str]]:
        """Returns whether the run succeeded, the texts that it sent, and those with a vector after it."""
        service.asked.clear()
        settings = config(service, batch_texts=2, tokens_per_day=budget)
        recipe = Recipe(embedder=settings)
        given = {"lake": lake, "recipe": recipe, "model": EmbeddingModel.of(settings, tmp_path)}
        done = dg.materialize([gold.embeddings_asset], resources=given, raise_on_error=False).success
        sent = [text for body in service.asked for text in body["input"] if text not in PROBES]
        kept = lake.query("select text_sha256 from e", e=lake.delta("gold.embeddings"))
        known = {row["text_sha256"]: row["text"] for row in chunk_rows(first + more)}
        return done, sent, {known[key] for key in kept["text_sha256"].to_pylist()}

    add(first)
    budget = tokens([*PROBES, *first[:4], PROBES[0], PROBES[0]])
    done, sent, kept = embed(budget)
    assert not done
    assert len(sent) == 4
    assert kept == set(sent)
    done, again, kept = embed(10 * budget)
    assert done
    assert {*sent, *again} == kept == set(first)
    assert not {*sent} & {*again}
    embedded = lake.version("gold.embeddings")
    assert embed(10 * budget)[:2] == (True, [])
    assert lake.version("gold.embeddings") == embedded
    # Where chunks came to those that were embedded, it is the same; the vectors of before stay.
    add(more)
    service.next = [refusal(401)]
    assert embed(None)[2] == set(first)
    service.twist = lambda reply: reply if len(service.asked) < 2 else {}
    done, sent, kept = embed(None)
    assert (done, len(sent), len(kept)) == (False, 3, 9)
    service.twist = lambda reply: reply
    done, again, kept = embed(None)
    assert (done, len(again), kept) == (True, 1, {*first, *more})
