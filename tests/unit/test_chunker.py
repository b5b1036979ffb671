import hashlib
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers

from assets.lake.tables import CHUNKS
from retrieval.chunking.chunker import (
    CHUNK_COLUMNS,
    Chunk,
    ChunkerConfig,
    chunk_document_batches,
    load_chunk_tokenizer,
    split_into_chunks,
)
from retrieval.chunking.headings import MAX_HEADING_CHARACTERS, MAX_HEADING_PATH_CHARACTERS
from retrieval.chunking.sentences import sentence_spans
from retrieval.embedding.config import packaged_embedding_model

TOKENIZER_PATH = packaged_embedding_model() / "tokenizer.json"
TOKENIZER = load_chunk_tokenizer(TOKENIZER_PATH)
SMALL = ChunkerConfig(max_tokens=16, min_tokens=4)


def count(text: str) -> int:
    return len(TOKENIZER.encode(text, add_special_tokens=False))


def bodies(text: str, headings: Sequence[dict[str, Any]] = (), config: ChunkerConfig = SMALL) -> list[str]:
    return [text[c.char_start : c.char_end] for c in split_into_chunks(text, headings, TOKENIZER, config)]


def assert_exact(text: str, headings: Sequence[dict[str, Any]], config: ChunkerConfig) -> list[Chunk]:
    """What holds for every text: order, no overlap, no loss, tight spans, the budget."""
    chunks = split_into_chunks(text, headings, TOKENIZER, config)
    position = 0
    for piece in chunks:
        body = text[piece.char_start : piece.char_end]
        assert piece.char_start >= position
        assert body
        assert body == body.strip()
        assert not text[position : piece.char_start].strip(), "characters between chunks"
        assert piece.token_count <= config.max_tokens
        position = piece.char_end
    assert not text[position:].strip(), "characters after the last chunk"
    return chunks


words = st.text(st.sampled_from("abéZ.!?世。😀𝒳-\u200b\u0301\x0c"), min_size=1, max_size=12)
gaps = st.sampled_from([" ", "  ", "\n", "\n\n", "\n\n\n", "\t", ". ", "! ", "\u2028", ""])
texts = st.lists(st.tuples(words, gaps)).map(lambda pairs: "".join(w + g for w, g in pairs)) | st.text()
outlines = st.lists(
    st.fixed_dictionaries(
        {
            "char_start": st.integers(-3, 200),
            "level": st.integers(-1, 7),
            "title": st.none() | st.text(max_size=5),
        }
    ),
    max_size=6,
)


@settings(max_examples=300, deadline=None)
@given(text=texts, headings=outlines)
@example(text="", headings=[])
@example(text="\n" * 50, headings=[{"char_start": 3, "level": 1, "title": "x"}])
@example(text="x" * 5000, headings=[])
@example(text="ab" * 60 + " " + "世" * 90 + "😀" * 40, headings=[])
def test_every_character_is_in_exactly_one_chunk(text: str, headings: Sequence[dict[str, Any]]) -> None:
    assert_exact(text, headings, SMALL)


@settings(max_examples=150, deadline=None)
@given(
    text=st.lists(st.sampled_from(["the", "river", "rises,", "flows.", "\n", "\n\n", "😀", "世界", "(no)"]))
)
def test_token_count_is_what_the_tokenizer_gives_for_the_chunk_alone(text: str) -> None:
    text = " ".join(text)
    for piece in split_into_chunks(text, [], TOKENIZER, SMALL):
        assert piece.token_count == count(text[piece.char_start : piece.char_end])


def test_a_full_chunk_is_cut_at_a_paragraph_rather_than_at_a_sentence() -> None:
    text = "One two three four five. Six seven eight.\n\nNine ten eleven. Twelve thirteen fourteen fifteen."
    assert bodies(text) == [
        "One two three four five. Six seven eight.",
        "Nine ten eleven. Twelve thirteen fourteen fifteen.",
    ]


def test_a_full_chunk_is_cut_at_a_sentence_rather_than_in_one() -> None:
    text = (
        "One two three four five six seven. Eight nine ten eleven twelve thirteen fourteen fifteen sixteen."
    )
    assert bodies(text)[0] == "One two three four five six seven."


def outline(text: str, *titles: tuple[int, str]) -> list[dict[str, Any]]:
    return [{"char_start": text.index(title), "level": level, "title": title} for level, title in titles]


def test_a_heading_opens_a_chunk_and_its_path_travels_with_it() -> None:
    text = (
        "Guide\nThis is about rivers.\n\nSource\nA river has a source high up.\n\nMouth\nIt ends in the sea."
    )
    headings = outline(text, (1, "Guide"), (2, "Source"), (2, "Mouth"))
    chunks = split_into_chunks(text, headings, TOKENIZER, SMALL)
    assert [text[c.char_start : c.char_end].split("\n")[0] for c in chunks] == ["Guide", "Source", "Mouth"]
    assert [c.heading for c in chunks] == ["Guide", "Guide > Source", "Guide > Mouth"]


def test_a_heading_is_not_left_alone_at_the_end_of_a_chunk() -> None:
    text = "One two three four five six seven eight nine ten eleven.\n\nTitle\n\nTwelve thirteen fourteen."
    for config in (SMALL, ChunkerConfig(max_tokens=40, min_tokens=20)):
        for body in bodies(text, outline(text, (1, "Title")), config):
            assert not body.endswith("Title")


def test_a_term_is_not_left_alone_at_the_end_of_a_chunk() -> None:
    # The explanation's line is too long to be wrapped by hand: without the term it would be a paragraph.
    explained = f"--track-origins=<yes|no>\n    {'Controls whether the origin is tracked. ' * 5}".rstrip()
    text = f"--other=<n>\n    {'Says how many frames are shown. ' * 6}\n{explained}"
    config = ChunkerConfig(max_tokens=80, min_tokens=16)
    assert bodies(text, [], config)[1:] == [explained]


def test_a_line_too_long_to_be_wrapped_is_a_paragraph() -> None:
    long = "Rivers rise in hills, and they end in the sea, as all of them do. " * 3
    text = f"{long}Short end. \n Bread is baked. Salt is cheap.\n{long}"
    cut = bodies(text, config=ChunkerConfig(max_tokens=57, min_tokens=8))
    assert cut == [f"{long}Short end.", "Bread is baked. Salt is cheap.", long.strip()]
    wrapped = "Rivers rise in hills, and they\nend in the sea, as all of them do."
    assert sentence_spans(wrapped) == [(0, len(wrapped))]


def test_a_paragraph_too_long_for_a_chunk_is_divided_evenly_and_stands_alone() -> None:
    sentence = "Rivers rise in hills and end in seas."
    before, long, after = "Before it. " * 4, " ".join([sentence] * 4), "After it. " * 4
    assert count(long) == 36
    cut = bodies(f"{before}\n\n{long}\n\n{after}", config=ChunkerConfig(max_tokens=32, min_tokens=8))
    assert cut == [before.strip(), *[f"{sentence} {sentence}"] * 2, after.strip()]


def test_a_paragraph_too_long_for_a_chunk_takes_in_what_is_too_small_before_it() -> None:
    sentence = "Rivers rise in hills and end in seas."
    long = " ".join([sentence] * 4)
    cut = bodies(f"Rivers\n\n{long}\n\nBread", config=ChunkerConfig(max_tokens=32, min_tokens=8))
    assert cut == [f"Rivers\n\n{sentence} {sentence}", f"{sentence} {sentence}\n\nBread"]


def test_a_character_of_more_tokens_than_the_budget_is_lost_nowhere() -> None:
    tokenizer = Tokenizer(models.WordLevel({"[UNK]": 0}, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.NFKC()
    tokenizer.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    text = "\n\n".join(["a \ufdfa\ufdfa b", "\ufdfa", "\ufdfa" * 3])
    chunks = split_into_chunks(text, [], tokenizer, SMALL)
    assert max(piece.token_count for piece in chunks) > SMALL.max_tokens
    parts = [text[c.char_start : c.char_end] for c in chunks]
    assert all(parts)
    assert "".join("".join(parts).split()) == "".join(text.split())


def test_a_small_rest_joins_the_chunk_before_it() -> None:
    text = "One two three four five six seven.\n\nEnd\nBye."
    assert len(bodies(text, outline(text, (1, "End")))) == 1


def test_sections_below_the_least_size_share_a_chunk() -> None:
    text = "A\none two\n\nB\nthree four\n\nC\nfive six"
    headings = outline(text, (1, "A"), (1, "B"), (1, "C"))
    assert len(bodies(text, headings, ChunkerConfig(max_tokens=60, min_tokens=30))) == 1


def test_headings_that_do_not_begin_a_word_are_ignored() -> None:
    text = "alpha beta gamma"
    for start in (-1, 2, 5, 16, 10**6):
        assert (
            split_into_chunks(text, [{"char_start": start, "level": 1, "title": "x"}], TOKENIZER, SMALL)[
                0
            ].heading
            is None
        )


@pytest.mark.parametrize(
    "text",
    [
        "x" * 1_000_000,
        "\n" * 1_000_000,
        "a" + " " * 1_000_000 + "b",
        "世" * 100_000,
        "." * 100_000,
        "a\n" * 30_000,
        "." + " \n" * 300_000,
        "a. " * 30_000,
    ],
    ids=["word", "newlines", "spaces", "cjk", "dots", "lines", "space-newline", "initials"],
)
def test_hostile_megabytes_stay_exact_and_of_readable_size(text: str) -> None:
    config = ChunkerConfig()
    for piece in assert_exact(text, [], config):
        body = text[piece.char_start : piece.char_end]
        assert len("".join(body.split())) <= config.max_tokens * 8


def test_time_grows_with_the_length_and_not_faster() -> None:
    def seconds(text: str) -> float:
        began = time.process_time()
        split_into_chunks(text, [{"char_start": 0, "level": 1, "title": "A"}], TOKENIZER, ChunkerConfig())
        return time.process_time() - began

    paragraph = (
        "The river rises in the hills, and it falls. It is a long way to the sea!\nno stop here " * 3 + "\n\n"
    )
    seconds(paragraph)
    small = min(seconds(paragraph * 250) for _ in range(2))
    large = seconds(paragraph * 2000)  # about half a megabyte
    assert large < 8 * small * 3 + 0.5


def test_batches_have_the_columns_of_the_table_and_stable_ids() -> None:
    text = (
        "😀 One two three four five. Six seven eight.\n\n𝒳 Nine ten eleven. Twelve thirteen fourteen fifteen."
    )
    headings = [[{"char_start": 0, "level": 1, "title": "One"}], None]
    batch = pa.RecordBatch.from_pydict(
        {"doc_id": ["d1", "d2"], "tenant": ["t", "t"], "text": [text, ""], "headings": headings}
    )
    (out,) = chunk_document_batches(iter([batch]), SMALL, TOKENIZER_PATH)
    assert out.schema == CHUNK_COLUMNS
    assert out.schema.names == [n for n in CHUNKS.schema.names if n != "OpenLineage_RunId"]
    rows = out.to_pylist()
    assert [row["ordinal"] for row in rows] == list(range(len(rows)))
    assert len(rows) > 1
    for row in rows:
        assert text[row["char_start"] : row["char_end"]] == row["text"]
        assert row["text_sha256"] == hashlib.sha256(row["text"].encode()).hexdigest()
        identity = "\x1f".join(["d1", row["text_sha256"], str(row["char_start"])])
        assert row["chunk_id"] == hashlib.sha256(identity.encode()).hexdigest()


def test_a_heading_of_a_megabyte_is_not_copied_whole_into_every_chunk() -> None:
    heading = "word " * 200_000
    text = "Top\n\n" + heading + "\n\n" + "Seven words stand here in a row.\n\n" * 50
    headings = [
        {"char_start": 0, "level": 1, "title": "Top"},
        {"char_start": 5, "level": 2, "title": heading},
    ]
    chunks = split_into_chunks(text, headings, TOKENIZER, SMALL)
    last = chunks[-1]
    assert "Seven words" in text[last.char_start : last.char_end]
    assert last.heading is not None
    assert last.heading.startswith("Top > word word")
    assert last.heading.endswith("…")
    assert max(len(each.heading or "") for each in chunks) <= MAX_HEADING_CHARACTERS + len("Top > ")
    # The text itself holds it whole.
    assert "".join(text[c.char_start : c.char_end] for c in chunks).count("word") == 200_000 + 50


def test_of_many_nested_headings_the_innermost_are_shown() -> None:
    titles = [f"{'title ' * 40}{level}" for level in range(20)]
    text, headings = "", []
    for level, title in enumerate(titles):
        headings.append({"char_start": len(text), "level": level, "title": title})
        text += title + "\n\n"
    text += "The end."
    heading = split_into_chunks(text, headings, TOKENIZER, SMALL)[-1].heading
    assert heading is not None
    assert heading.split(" > ") == titles[-4:]
    assert len(heading) <= MAX_HEADING_PATH_CHARACTERS


def test_configuration_is_checked_and_has_a_digest() -> None:
    with pytest.raises(ValueError, match="at most half"):
        ChunkerConfig(max_tokens=100, min_tokens=60)
    assert ChunkerConfig().digest == ChunkerConfig().digest != SMALL.digest


def test_a_missing_tokenizer_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="no tokenizer at"):
        load_chunk_tokenizer(tmp_path / "tokenizer.json")


@pytest.mark.parametrize(
    ("text", "sentences"),
    [
        ("One is. Two is! Three?", ["One is.", "Two is!", "Three?"]),
        ("A hard\nwrapped line. Next one.", ["A hard\nwrapped line.", "Next one."]),
        ("Dr. J. Smith wrote e.g. this. Then that.", ["Dr. J. Smith wrote e.g. this.", "Then that."]),
        ("Title\n\nBody here.", ["Title", "Body here."]),
        ("Choose:\n- one\n- two", ["Choose:", "- one", "- two"]),
        ("こんにちは。世界。", ["こんにちは。", "世界。"]),
        ('He said "no." Then he left.', ['He said "no."', "Then he left."]),
        ("version 3.11 is out", ["version 3.11 is out"]),
        (
            "彼は「もう行く。」と言った。「はい。」そう？",
            ["彼は「もう行く。」", "と言った。", "「はい。」", "そう？"],
        ),
        ("他说：“你好。”然后走了。真的吗？", ["他说：“你好。”", "然后走了。", "真的吗？"]),
        ("यह एक है। यह दूसरा है। क्या?", ["यह एक है।", "यह दूसरा है।", "क्या?"]),
        ("هل هذا سؤال؟ نعم. حسنا!", ["هل هذا سؤال؟", "نعم.", "حسنا!"]),
        ("Das ist z. B. am 3. Mai so. Dr. Müller kam.", ["Das ist z. B. am 3. Mai so.", "Dr. Müller kam."]),
        ("« Bien. » Il part. Vraiment ?", ["« Bien. » Il part.", "Vraiment ?"]),
        (
            "การศึกษาจะต้องให้เปล่าอย่างน้อยในขั้นประถมศึกษาและขั้นพื้นฐาน การศึกษาระดับประถม บังคับ",
            ["การศึกษาจะต้องให้เปล่าอย่างน้อยในขั้นประถมศึกษาและขั้นพื้นฐาน", "การศึกษาระดับประถม บังคับ"],
        ),
        (" \n ", []),
    ],
)
def test_sentences_are_exact_spans(text: str, sentences: list[str]) -> None:
    assert [text[start:end] for start, end in sentence_spans(text)] == sentences
