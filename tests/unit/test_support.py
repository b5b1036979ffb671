"""Does a span support a sentence? Agreement of numbers, units, names, negation and modality."""

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from retrieval.support.agreement import support, supports
from retrieval.support.statement import read_statement

SPAN = "The limit is 500 jobs and can not be raised."
GERMAN = "Das Limit beträgt 500 Aufträge und kann nicht erhöht werden."
WORDS = st.lists(st.sampled_from(["the", "limit", "jobs", "is", "raised", "server", "logs"]), min_size=4)


@pytest.mark.parametrize(
    "sentence",
    [
        "The limit is 500 jobs.",
        "The limit is five hundred jobs.",
        "The limit can't be raised.",
        "The limit of 500 jobs cannot be raised",
        "The limit may not be raised.",
        "- **The limit** is 500 jobs",
    ],
)
def test_what_a_span_says_in_other_words_is_supported(sentence: str) -> None:
    assert supports(sentence, SPAN)


@pytest.mark.parametrize(
    "sentence",
    [
        "The limit is 900 jobs.",
        "The limit is not 500 jobs.",
        "The limit can be raised.",
        "The limit must be raised.",
        "The Oracle limit is 500 jobs.",
        "The limit is 500 MB of jobs.",
        "",
    ],
)
def test_what_disagrees_with_a_span_is_not(sentence: str) -> None:
    assert not supports(sentence, SPAN)


@pytest.mark.parametrize(
    ("sentence", "span", "supported"),
    [
        ("It waits 5 s.", "It waits 5 seconds.", True),
        ("It waits 60 s.", "It waits 1 min.", True),
        ("It waits 5 minutes.", "It waits 5 seconds.", False),
        ("It is 5 MB.", "It is 5 GB.", False),
        ("It keeps 1,000 rows.", "It keeps 1 000 rows.", True),
        ("It keeps 1.000 Zeilen.", "It keeps 1000 Zeilen.", True),
        ("The dose is 5 to 10 mg.", "The dose is 5-10 mg.", True),
        ("It costs 5 million euros.", "It costs €5,000,000.", True),
        ("There are 20 jobs and 500 users.", "There are 500 jobs and 20 users.", False),
        ("Logging is disabled by default.", "Logging is enabled by default.", False),
        ("Logging is not enabled by default.", "Logging is disabled by default.", True),
        ("The values are invalid here.", "The values are valid here.", False),
        ("Aspirin decreases the risk.", "Aspirin increases the risk.", False),
        ("Restart before the upgrade.", "Restart after the upgrade.", False),
        ("You can set the limit.", "Set the limit.", True),
        ("The server restarts.", "The server may restart.", False),
        ("Users must set a limit.", "Users should set a limit.", False),
        ("In version 12 it flies.", "In version 11 it flies.", False),
        ("Kestrel-12 flies at night.", "Kestrel-11 flies at night.", False),
        ("The Debian archive is signed.", "The Fedora archive is signed.", False),
        ("The US archive is signed.", "The U.S. archive is signed.", True),
        ("Das Limit beträgt 900 Aufträge.", GERMAN, False),
        ("Das Limit beträgt nicht 500 Aufträge.", GERMAN, False),
        ("Das Limit kann erhöht werden.", GERMAN, False),
        ("Das Limit kann nicht erhöht werden.", GERMAN, True),
        ("La limite ne peut pas être relevée.", "La limite peut être relevée.", False),
        ("Le journal doit être gardé.", "Le journal peut être gardé.", False),
        ("El límite no puede aumentarse.", "El límite puede aumentarse.", False),
        ("保修期为24个月。", "保修期为24个月。", True),
        ("保修期为25个月。", "保修期为24个月。", False),
        ("Nitric oxide (NO) is released there.", "NO, nitric oxide, is released there.", True),
    ],
)
def test_units_directions_names_and_languages(sentence: str, span: str, supported: bool) -> None:
    assert supports(sentence, span) is supported


def test_a_title_names_the_subject_and_adds_no_fact() -> None:
    span = "It keeps the logs for 30 days."
    assert not supports("Headwater keeps the logs for 30 days.", span)
    assert supports("Headwater keeps the logs for 30 days.", span, "Headwater. Logs")
    assert not supports("It keeps the logs for 40 days.", span, "40 days of logs")


def test_two_spans_do_not_add_up() -> None:
    spans = ["The limit is 500 jobs.", "The quota can not be raised, it is 20 jobs."]
    assert not any(supports("The limit is 500 jobs and can not be raised", span) for span in spans)


@given(st.text(max_size=200))
def test_a_sentence_supports_itself(text: str) -> None:
    assert supports(text, text) is bool(text.strip())


@given(WORDS, st.integers(0, 10**9), st.integers(0, 10**9), st.integers(0, 30))
def test_another_number_is_never_supported(words: list[str], one: int, other: int, place: int) -> None:
    said, held = ([*words[:place], str(number), *words[place:]] for number in (one, other))
    assert supports(" ".join(said), " ".join(held)) is (one == other)


@given(st.text(max_size=100), st.text(max_size=100), st.text(max_size=30))
def test_support_is_a_share_of_any_texts(sentence: str, span: str, context: str) -> None:
    assert 0 <= support(sentence, span, context) <= 1


@pytest.mark.parametrize(
    "hostile",
    [
        "1 000" * 20_000,
        "1,1.1'" * 20_000,
        "a-" * 40_000,
        "a.b." * 20_000,
        "n't'" * 20_000,
        "two hundred " * 9_000,
        "1" * 100_000,
        "-" * 100_000,
        "5 to " * 20_000,
        "not can " * 10_000,
        "°" * 50_000,
        "one and " * 20_000,
    ],
    ids=lambda text: text[:8],
)
def test_hostile_text_is_read_in_linear_time(hostile: str) -> None:
    began = time.perf_counter()
    read_statement(hostile)
    assert time.perf_counter() - began < 5
