"""Mailboxes: each message is a document whose address stays when others come and go."""

import gzip
import mailbox
from datetime import UTC, datetime
from email.message import EmailMessage
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from packed_files import make_mail, make_zip

from assets.parsing.content_type import EML, MBOX, detect_media_type
from assets.parsing.extract import extract_document
from assets.parsing.formats.mail.mailbox import mailbox_messages
from assets.parsing.sandbox import ParserLimits, sandboxed_parser
from assets.sources.file_contents import source_file_contents
from assets.sources.source_schemas import ListedFile, SourceContent

SEPARATOR = b"From anna@harbour.example Mon Mar  2 09:14:00 2026\n"


def message(number: int, body: str = "The crane is let for twelve months.", identity: bool = True) -> bytes:
    found = EmailMessage()
    found["From"], found["To"] = "anna@harbour.example", "ben@harbour.example"
    found["Subject"], found["Date"] = f"Crane {number}", "Mon, 02 Mar 2026 09:14:00 +0000"
    if identity:
        found["Message-ID"] = f"<crane-{number}@lists.harbour.org>"
    found.set_content(body)
    return found.as_bytes()


def box(*messages: bytes) -> bytes:
    return b"".join(SEPARATOR + each.rstrip(b"\n") + b"\n\n" for each in messages)


def contents(body: bytes, name: str = "box.mbox") -> dict[str, SourceContent]:
    """The rows of a mailbox, by what follows the file's name."""
    listed = ListedFile(f"file:///{name}", len(body), datetime(2026, 1, 2, tzinfo=UTC))
    rows = list(source_file_contents(listed, body, ParserLimits()))
    assert [row.error for row in rows if row.error is not None] == []
    return {row.uri.removeprefix(f"file:///{name}"): row for row in rows}


def test_each_message_is_a_document_at_an_address_of_its_own() -> None:
    body = box(message(1), message(2))
    assert detect_media_type(body, "box") == MBOX
    rows = contents(body)
    assert list(rows) == ["#crane-1%40lists.harbour.org", "#crane-2%40lists.harbour.org", ""]
    assert (rows[""].media_type, rows[""].body) == (MBOX, body)
    first = rows["#crane-1%40lists.harbour.org"]
    assert first.media_type == EML
    found = extract_document(first.body or b"", EML)
    assert found.title == "Crane 1"
    assert found.text.endswith("The crane is let for twelve months.")
    assert "Crane 2" not in found.text


def test_addresses_stay_when_messages_come_and_go() -> None:
    before = contents(box(message(1), message(2, identity=False)))
    after = contents(box(message(3), message(1), message(2, identity=False), message(4)))
    kept = before.keys() - {""}
    assert len(kept) == 2
    assert {place: after[place].body for place in kept} == {place: before[place].body for place in kept}


def test_attachments_of_its_messages_are_documents() -> None:
    sent = make_mail({"docs.zip": make_zip({"a.txt": b"In the archive."}), "note.txt": b"In the mail."})
    sent = sent.replace(b"Subject:", b"Message-ID: <m1@x>\nSubject:", 1)
    rows = contents(box(sent, message(2)))
    assert rows["#m1%40x!/note.txt"].body == b"In the mail."
    assert rows["#m1%40x!/docs.zip!/a.txt"].body == b"In the archive."


@pytest.mark.parametrize("name", ["box.mbox.gz", "2026-March.txt.gz"])
def test_a_compressed_mailbox_is_one(name: str) -> None:
    body = gzip.compress(box(message(1), message(2)))
    rows = contents(body, name)
    assert len(rows) == 3
    assert rows[""].media_type == f"{MBOX}; content-coding=gzip"
    again = sandboxed_parser(ParserLimits()).container_members(body, rows[""].media_type or "")
    assert [member.name for member in again][1:] == [place[1:] for place in rows if place]


def test_a_mailbox_in_an_archive_is_opened() -> None:
    rows = contents(make_zip({"2026/box": box(message(1))}), "mail.zip")
    assert "#2026/box!/crane-1%40lists.harbour.org" in rows


def test_a_sentence_that_begins_with_from_divides_no_message() -> None:
    body = "He left.\n\nFrom there on it was quiet.\n\nFrom 9:15 to 2026 nothing\nhappened."
    [one] = mailbox_messages(box(message(1, body)))
    assert b"From there on" in one.content
    assert detect_media_type(b"From there on it was quiet.\nAll day long.\n", "a.txt") == "text/plain"
    single = b"From anna@harbour.example\n" + message(1)
    assert detect_media_type(single) == EML  # without a date it is a mail program's mark on a single message


@pytest.mark.parametrize("line_end", [b"\n", b"\r\n"])
def test_a_box_of_pythons_mailbox_module_is_read_as_it_reads_it(tmp_path: Path, line_end: bytes) -> None:
    path = tmp_path / "box.mbox"
    made = mailbox.mbox(path)
    for number in range(3):
        made.add(message(number, "Before.\n\nFrom here to there.\nAfter."))
    made.close()
    body = path.read_bytes().replace(b"\n", line_end)
    found = list(mailbox_messages(body))
    assert [each.name for each in found] == [f"crane-{number}@lists.harbour.org" for number in range(3)]
    assert all(b"\nFrom here to there." in each.content for each in found)


@given(st.lists(st.text("From 9:0126\n>a:", max_size=60), min_size=1, max_size=5))
def test_no_text_is_lost_between_messages(texts: list[str]) -> None:
    bodies = [message(number).rstrip(b"\n") + text.encode() for number, text in enumerate(texts)]
    body = box(*bodies)
    words = b"".join(each.content for each in mailbox_messages(body))
    lost = body.replace(SEPARATOR, b"").translate(None, b"\r\n>")
    assert words.translate(None, b"\r\n>") == lost


def test_a_message_without_an_end_of_its_digits_is_divided_in_bounded_time() -> None:
    hostile = b"From " + b"1:11" * 1_000_000
    assert detect_media_type(hostile, "a.txt") != MBOX
    assert len(list(mailbox_messages(SEPARATOR + b"A: b\n" + b"\n\nFrom 1:11 " * 100_000))) == 1
