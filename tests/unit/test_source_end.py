"""A source that says where it ends is not taken for cut off, and one that leaves something open is."""

import gzip

import pytest
from hypothesis import given
from hypothesis import strategies as st

from assets.parsing.extract import extract_document
from assets.parsing.source_end import source_end
from assets.text.damage import SourceEnd, detect_cut_off

LIST = "<h1>Throws</h1><dl><dt>Throws:</dt><dd>IOException - if the file can not be read by the</dd></dl>"
PAGE = (
    f"<!DOCTYPE html><html><head><title>T</title></head><body><div>{LIST}</div></body></html>\n"
    "<!-- made by hand -->\n"
)
SENTENCE = "The service reads its settings from a file that stands beside the program."
HTML, TEXT = "text/html", "text/plain"


def cut_off(body: bytes, media_type: str) -> int:
    found = extract_document(body, media_type)
    return detect_cut_off(found.text, found.end)


@pytest.mark.parametrize(
    ("body", "media_type", "end"),
    [
        (PAGE.encode(), HTML, SourceEnd.WHOLE),
        (PAGE.encode("utf-16-le"), HTML, SourceEnd.WHOLE),
        (PAGE.upper().encode(), "application/xhtml+xml", SourceEnd.WHOLE),
        (b"<body><p>One<p>Two</body>", HTML, SourceEnd.WHOLE),
        (b"<html><p>One</body></html><script>let last = '<div>'</script>", HTML, SourceEnd.WHOLE),
        (b"<p>A part of a page</p>", HTML, SourceEnd.UNKNOWN),
        (b"<ul><li>one<li>two</ul>", HTML, SourceEnd.UNKNOWN),
        (b"<p>One <a hre", HTML, SourceEnd.TORN),
        (b"<p>One <", HTML, SourceEnd.TORN),
        (b"<div><p>One</p><p>Two</p>", HTML, SourceEnd.TORN),
        (b"<div><p>One</p><p>Two</p>\n", HTML, SourceEnd.LINE),
        (b"<div><p>One</p>\n<p cla\n", HTML, SourceEnd.TORN),
        (b"<p>One</p><!-- and", HTML, SourceEnd.TORN),
        (b"<p>One</p><script>let a = '</body></html>'", HTML, SourceEnd.TORN),
        (b"One line.\n", TEXT, SourceEnd.LINE),
        ("One line.\n".encode("utf-32-be"), TEXT, SourceEnd.LINE),
        ("One line.\r\n".encode("utf-16-le"), TEXT, SourceEnd.LINE),
        (b"One li", TEXT, SourceEnd.UNKNOWN),
        (b"", TEXT, SourceEnd.UNKNOWN),
        (b"%PDF-1.7\n", "application/pdf", SourceEnd.UNKNOWN),
    ],
)
def test_what_a_source_says_about_its_end(body: bytes, media_type: str, end: SourceEnd) -> None:
    assert source_end(body, media_type) is end


def test_a_whole_page_is_not_cut_off_whatever_its_last_words_are() -> None:
    assert cut_off(PAGE.encode(), HTML) == 0
    assert cut_off(LIST.encode(), HTML) == 1  # nothing says that it ends here
    packed = gzip.compress(f"{SENTENCE}\n\n* Changes by the".encode())
    assert cut_off(packed, "text/plain; content-coding=gzip") == 0


@given(st.integers(60, len(PAGE) - 40))
def test_a_page_that_breaks_off_is_cut_off(at: int) -> None:
    body = PAGE[:at].encode()
    assert source_end(body, HTML) is SourceEnd.TORN or body.endswith(b"\n")


@pytest.mark.parametrize(
    "text",
    [
        'int main(void)\n{\n\treturn 0;\n}\n\nchar license[] = ("GPL");\n',
        f"{SENTENCE}\n\nSee also:\n",
        f"{SENTENCE}\n\nreset (options,\n",
        f"{SENTENCE}\n\nrsa_hash.c     Compute and verify an RSA signature over a buffer with it\n",
        f"{SENTENCE}\n\n.. automodule:: widget\n   :members:\n   :undoc-members:",
    ],
)
def test_a_file_that_ends_in_code_a_list_or_a_heading_is_whole(text: str) -> None:
    assert cut_off(text.encode(), TEXT) == 0


def test_a_line_that_was_ended_in_the_middle_of_a_sentence_is_cut_off() -> None:
    text = f"{SENTENCE}\n\n{SENTENCE[:-1]}, and nobody may change it without the consent of the\n"
    assert cut_off(text.encode(), TEXT) == 1
    assert cut_off(text.encode() + b"owner.\n", TEXT) == 0


@given(st.binary(max_size=200), st.sampled_from([HTML, TEXT]))
def test_any_bytes_have_an_end(body: bytes, media_type: str) -> None:
    assert source_end(body, media_type) in SourceEnd
