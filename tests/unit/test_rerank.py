import json
import logging
import math
import socket
import threading
import time
import traceback
from collections.abc import Iterator, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import torch
from cross_encoders import save_cross_encoder
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import SecretStr

from retrieval.embedding.config import packaged_embedding_model
from retrieval.rerank.cross_encoder import CrossEncoderReranker
from retrieval.rerank.endpoint_reranker import EndpointReranker
from retrieval.rerank.reranker import RerankerConfig, RerankError
from retrieval.rerank.reranking import RerankedHits, build_reranker, rerank_hits
from retrieval.search.searcher import SearchHit

TEXTS = ["Bread rises.", "The Danube rises in the Black Forest.", "Rivers are old.", "Salt is cheap."]


def hits(texts: Sequence[str] = TEXTS) -> list[SearchHit]:
    return [
        SearchHit(i, 1 / i, f"c{i}", f"d{i}", f"file:///{i}", "A title", None, "0" * 64, 0, len(text), text)
        for i, text in enumerate(texts, 1)
    ]


class Fixed:
    """A reranker whose scores are known."""

    name = "fixed"

    def __init__(self, scores: list[float]) -> None:
        self.given = scores

    def scores(self, query: str, texts: Sequence[str], deadline: float) -> list[float]:
        if isinstance(self.given, Exception):
            raise self.given
        return self.given


def order(outcome: RerankedHits) -> list[str]:
    return [hit.chunk_id for hit in outcome.hits]


def fallback_reason(outcome: RerankedHits) -> str:
    assert outcome.fallback_reason is not None
    return outcome.fallback_reason


# The order.


@settings(max_examples=100, deadline=None)
@given(
    scores=st.lists(st.floats(allow_nan=False, allow_infinity=False), max_size=12),
    behind=st.integers(0, 4),
)
def test_the_same_hits_come_back_best_first_and_those_not_looked_at_behind(
    scores: list[float], behind: int
) -> None:
    found = hits([f"text {i}" for i in range(len(scores) + behind)])
    config = RerankerConfig(candidates=max(1, len(scores)))
    given_scores = scores or ([0.0] if behind else [])
    outcome = rerank_hits("q", found, Fixed(given_scores), config)
    assert outcome.fallback_reason is None
    assert sorted(order(outcome)) == sorted(hit.chunk_id for hit in found)
    assert [hit.rank for hit in outcome.hits] == list(range(1, len(found) + 1))
    head = outcome.hits[: len(given_scores)]
    assert [hit.score for hit in head] == sorted(given_scores, reverse=True)
    assert outcome.hits[len(given_scores) :] == found[len(given_scores) :]


def test_equal_scores_stay_in_the_fused_order() -> None:
    assert order(rerank_hits("q", hits(), Fixed([1.0] * 4), RerankerConfig())) == ["c1", "c2", "c3", "c4"]


@pytest.mark.parametrize("scores", [[1.0], [1.0] * 5, [1.0, math.nan, 1.0, 1.0], [math.inf] * 4])
def test_scores_that_are_none_leave_the_fused_order_untouched(scores: list[float]) -> None:
    outcome = rerank_hits("q", hits(), Fixed(scores), RerankerConfig())
    assert outcome.hits == hits()
    assert outcome.by is None
    assert "finite score" in fallback_reason(outcome)


def test_what_takes_too_long_is_left_behind() -> None:
    release = threading.Event()

    class Slow:
        name = "slow"

        def scores(self, query: str, texts: Sequence[str], deadline: float) -> list[float]:
            release.wait(60)
            return [0.0] * len(texts)

    outcome = rerank_hits("q", hits(), Slow(), RerankerConfig(budget_s=0.05))
    release.set()
    assert outcome.hits == hits()
    assert "slow was not done in 0.05 s" in fallback_reason(outcome)


# A cross-encoder on this machine.


@pytest.fixture(scope="module")
def cross_encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_cross_encoder(tmp_path_factory.mktemp("cross-encoder"))


def test_a_folder_orders_as_sentence_transformers_does(cross_encoder: Path) -> None:
    from sentence_transformers import CrossEncoder as Reference

    texts = [
        *TEXTS,
        *(f"{text} {text} A river, number {i}." for i, text in enumerate(TEXTS * 4)),
        "long " * 200,
    ]
    ours = CrossEncoderReranker(cross_encoder, batch=3).scores("Where does it rise?", texts, math.inf)
    reference = Reference(str(cross_encoder), device="cpu", activation_fn=torch.nn.Identity())
    theirs = reference.predict([("Where does it rise?", text) for text in texts], show_progress_bar=False)
    assert ours == pytest.approx(theirs.tolist(), abs=1e-4)
    assert max(ours) - min(ours) > 0.01


def test_a_folder_reranks(cross_encoder: Path) -> None:
    config = RerankerConfig(model=cross_encoder, budget_s=30)
    reranker = build_reranker(config)
    outcome = rerank_hits("Where?", hits(), reranker, config)
    assert outcome.by == f"cross-encoder {cross_encoder.name}"
    shown = [f"A title\n{text}" for text in TEXTS]
    scores = dict(zip(("c1", "c2", "c3", "c4"), reranker.scores("Where?", shown, math.inf), strict=True))
    assert order(outcome) == sorted(scores, key=lambda chunk_id: scores[chunk_id], reverse=True)


def test_a_deadline_that_has_passed_stops_it(cross_encoder: Path) -> None:
    with pytest.raises(TimeoutError):
        CrossEncoderReranker(cross_encoder, 2).scores("q", TEXTS, time.monotonic() - 1)


def test_a_query_longer_than_the_model_reads_leaves_the_fused_order(cross_encoder: Path) -> None:
    config = RerankerConfig(model=cross_encoder, budget_s=30)
    outcome = rerank_hits("word " * 100, hits(), build_reranker(config), config)
    assert outcome.hits == hits()
    assert "failed" in fallback_reason(outcome)


def test_a_wrong_folder_is_refused_and_named(tmp_path: Path, cross_encoder: Path) -> None:
    with pytest.raises(RerankError, match="no reranker at"):
        build_reranker(RerankerConfig(model=tmp_path / "none"))
    with pytest.raises(RerankError, match="can not be loaded"):
        build_reranker(RerankerConfig(model=tmp_path))
    with pytest.raises(RerankError, match=r"lacks classifier\.bias.*CrossEncoder's folder"):
        build_reranker(RerankerConfig(model=packaged_embedding_model()))
    with pytest.raises(RerankError, match="3 labels"):
        build_reranker(RerankerConfig(model=save_cross_encoder(tmp_path / "three", labels=3)))
    (tmp_path / "damaged").mkdir()
    for file in cross_encoder.iterdir():
        (tmp_path / "damaged" / file.name).write_bytes(file.read_bytes()[:100])
    with pytest.raises(RerankError, match="can not be loaded"):
        build_reranker(RerankerConfig(model=tmp_path / "damaged"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"model": "x", "endpoint": "http://h"}, "choose one"),
        ({"api_key": "k"}, "no endpoint"),
        ({"endpoint_model": "m"}, "no endpoint"),
        ({"budget_s": 0}, "greater than 0"),
        ({"candidates": 0}, "greater than or equal to 1"),
    ],
)
def test_a_reranker_that_is_half_named_is_refused(options: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        RerankerConfig(**options)


def test_without_a_reranker_the_cure_is_named() -> None:
    assert not RerankerConfig().configured
    with pytest.raises(RerankError, match="HEADWATER_RERANKER__MODEL"):
        build_reranker(RerankerConfig())


# An endpoint that speaks the protocol.


class Service(ThreadingHTTPServer):
    """A service of rerankers: what it was asked, and how it is to reply."""

    daemon_threads = True

    def __init__(self, handler: type[BaseHTTPRequestHandler]) -> None:
        super().__init__(("127.0.0.1", 0), handler)
        self.asked: list[tuple[str, dict[str, str], dict[str, Any]]] = []
        self.reply: object = None
        self.status = 200
        self.drip_s = 0.0
        self.stop = threading.Event()
        self.url = f"http://127.0.0.1:{self.server_port}/v1/rerank"


@pytest.fixture
def service() -> Iterator[Service]:
    """Ranks by the length of a document unless it is given another reply; keeps what it was asked."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            server.asked.append((self.path, dict(self.headers), body))
            results = [
                {"index": i, "relevance_score": len(text) / 100} for i, text in enumerate(body["documents"])
            ]
            results.sort(key=lambda result: -result["relevance_score"])
            reply = server.reply if server.reply is not None else {"results": results[: body["top_n"]]}
            self.send_response(server.status)
            self.end_headers()
            payload = reply if isinstance(reply, bytes) else json.dumps(reply).encode()
            try:
                for at in range(0, len(payload), max(1, len(payload) if not server.drip_s else 1)):
                    self.wfile.write(payload[at : at + (1 if server.drip_s else len(payload))])
                    server.stop.wait(server.drip_s)
            except OSError:
                pass  # the client left

        def log_message(self, *_: object) -> None:
            pass

    server = Service(Handler)
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    yield server
    server.stop.set()
    server.shutdown()
    server.server_close()


def at(service: Service, budget_s: float = 30, **options: Any) -> RerankedHits:
    config = RerankerConfig(endpoint=service.url, budget_s=budget_s, **options)
    return rerank_hits("Where does the Danube rise?", hits(), build_reranker(config), config)


def test_a_service_is_asked_in_its_protocol_and_orders(service: Service) -> None:
    outcome = at(service, endpoint_model="river-rerank")
    path, headers, body = service.asked[0]
    assert path == "/v1/rerank"
    assert body == {
        "model": "river-rerank",
        "query": "Where does the Danube rise?",
        "documents": [f"A title\n{text}" for text in TEXTS],
        "top_n": 4,
    }
    assert "Authorization" not in headers
    assert order(outcome) == ["c2", "c3", "c4", "c1"]
    assert outcome.hits[0].score == len(f"A title\n{TEXTS[1]}") / 100
    assert outcome.hits[0].text == TEXTS[1]


def test_only_the_candidates_are_sent(service: Service) -> None:
    outcome = at(service, candidates=2)
    assert len(service.asked[0][2]["documents"]) == service.asked[0][2]["top_n"] == 2
    assert order(outcome) == ["c2", "c1", "c3", "c4"]


def result(index: object, score: object = 0.5) -> dict[str, object]:
    return {"index": index, "relevance_score": score}


@pytest.mark.parametrize(
    "reply",
    [
        b"<html>",
        b"",
        b"\xff",
        b"[" * 100_000,
        {},
        [],
        {"results": None},
        {"results": []},
        {"results": [result(0), result(1), result(2)]},
        {"results": [result(0), result(1), result(2), result(2)]},
        {"results": [result(0), result(1), result(2), result(4)]},
        {"results": [result(0), result(1), result(2), result(-1)]},
        {"results": [result(0), result(1), result(2), result("3")]},
        {"results": [result(0), result(1), result(2), result(True)]},
        {"results": [result(0), result(1), result(2), result(3, "high")]},
        {"results": [result(0), result(1), result(2), result(3, None)]},
        {"results": [result(0), result(1), result(2), result(3, math.nan)]},
        {"results": [result(0), result(1), result(2), result(3, 10**400)]},
    ],
)
def test_nonsense_leaves_the_fused_order_and_is_told(service: Service, reply: object) -> None:
    service.reply = reply
    outcome = at(service)
    assert outcome.hits == hits()
    assert "rerank form" in fallback_reason(outcome) or "finite score" in fallback_reason(outcome)


@pytest.mark.parametrize(
    ("status", "said"),
    [(401, "check the key"), (404, "check the URL"), (413, "fewer candidates"), (500, "500")],
)
def test_a_refusal_leaves_the_fused_order_and_names_the_cure(
    service: Service, status: int, said: str
) -> None:
    service.status = status
    outcome = at(service)
    assert outcome.hits == hits()
    assert said in fallback_reason(outcome)
    assert len(service.asked) == 1


def test_a_service_that_drips_is_left_when_the_time_is_over(service: Service) -> None:
    service.drip_s = 0.02
    began = time.monotonic()
    outcome = at(service, budget_s=0.2)
    assert outcome.hits == hits()
    assert "not done in 0.2 s" in fallback_reason(outcome)
    assert time.monotonic() - began < 20  # the whole reply would take minutes more than its budget


def test_a_reply_without_end_is_not_read(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("retrieval.rerank.endpoint_reranker._LARGEST_REPLY_BYTES", 1000)
    service.reply = b" " * 100_000
    assert "more than" in fallback_reason(at(service))


def test_a_service_that_is_not_there_is_told() -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    config = RerankerConfig(endpoint=f"http://127.0.0.1:{port}/rerank", budget_s=30)
    outcome = rerank_hits("q", hits(), build_reranker(config), config)
    assert outcome.hits == hits()
    assert f"127.0.0.1:{port}" in fallback_reason(outcome)
    assert "check that the service runs" in fallback_reason(outcome)


def test_the_key_is_sent_and_never_shown(service: Service, caplog: pytest.LogCaptureFixture) -> None:
    service.status, service.reply = 401, b"bad key sk-secret"
    with caplog.at_level(logging.DEBUG):
        config = RerankerConfig(endpoint=service.url, api_key=SecretStr("sk-secret"), budget_s=30)
        outcome = rerank_hits("q", hits(), build_reranker(config), config)
    assert service.asked[0][1]["Authorization"] == "Bearer sk-secret"
    for shown in (fallback_reason(outcome), caplog.text, str(config), config.model_dump_json()):
        assert "sk-secret" not in shown


@pytest.mark.parametrize("url", ["river", "ftp://river/rerank", "http://", "file:///etc/passwd"])
def test_what_is_not_a_url_is_refused(url: str) -> None:
    with pytest.raises(RerankError, match="URL"):
        build_reranker(RerankerConfig(endpoint=url))


def test_an_address_that_no_request_can_be_sent_to_leaves_the_fused_order() -> None:
    config = RerankerConfig(endpoint="http://[bad", budget_s=30)
    assert "can not be asked" in fallback_reason(rerank_hits("q", hits(), build_reranker(config), config))


def test_secrets_in_the_address_or_odd_keys_are_not_shown() -> None:
    named = EndpointReranker("http://me:hidden@h/rerank?key=hidden").name
    assert named == "http://h/rerank"
    with pytest.raises(RerankError) as error:
        EndpointReranker("http://h/rerank", api_key=SecretStr("ключ\n"))
    assert "ключ" not in str(error.value)
    url = "http://me:" + "hid/den@h/rerank"
    with pytest.raises(RerankError) as error:
        EndpointReranker(url)
    assert "hid/den" not in "".join(traceback.format_exception(error.value))
