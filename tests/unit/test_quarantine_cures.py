"""A cure fits the reason, the kind of the source and the name: a person can act on it."""

import pytest

from orchestration.quarantine.cures import _CURES, QuarantineReason, quarantine_cure


def reason(
    expectation: str, said: str = "", uri: str = "file:///docs/a.md", kind: str | None = "files"
) -> QuarantineReason:
    return QuarantineReason("0123456789abcdef" * 4, uri, "docs", kind, expectation, said)


@pytest.mark.parametrize(
    ("found", "cure"),
    [
        (reason("link", kind="git"), "in the repository: that is read at its own path"),
        (reason("link"), "add the folder that it leads to as a source of its own"),
        (reason("link", uri="file:///a.zip#b"), "in the archive too"),
        (reason("lfs_pointer", kind="git"), "git lfs pull"),
        (reason("submodule", kind="git"), "headwater source add git URL"),
        (reason("unreachable", "HTTP 503", "https://e.org/a", "sitemap"), "`headwater run` asks again"),
        (reason("unreachable", "HTTP 403", "https://e.org/a", "sitemap"), "nobody without a login"),
        (reason("unreachable", "it is a partial clone", kind="git"), "git fetch --refetch"),
        (reason("empty", uri="sqlite:///a/1", kind="sql"), "with another --query"),
        (reason("empty", uri="file:///a.csv#1", kind="rows"), "its text column holds nothing"),
        (reason("empty"), "source add` with a --glob"),
        (reason("unsupported_media_type", "?", "file:///docs/Thumbs.db"), "delete it"),
        (reason("unsupported_media_type", "?", "file:///docs.zip#x/Thumbs.db"), "delete it"),
        (reason("unsupported_media_type", "?", "file:///docs/notes.txt.lzma"), "xz --format=lzma -d"),
        (reason("unsupported_media_type", "Pictures are not read without OCR"), "EXTRAS=ocr"),
        (reason("unsupported_media_type", "Sound recordings are not read"), "transcript"),
        (reason("unreadable", "Permission denied"), "chmod"),
        (reason("unreadable", "The PDF can not be read: Data format error"), "save it again"),
        (reason("unreadable", "it leads to https://b.o", "https://e.o/a", "sitemap"), "source add sitemap"),
        (reason("oversize", "The ZIP archive unpacks to 9 MiB: it is a zip bomb."), "if it is no bomb"),
        (reason("min_letter_coincidence"), "headwater quarantine release 0123456789ab"),
        (reason("an_expectation_of_tomorrow"), "mend what the reason names"),
    ],
)  # fmt: skip
def test_a_cure_fits_its_reason(found: QuarantineReason, cure: str) -> None:
    assert cure in quarantine_cure(found)


@pytest.mark.parametrize("kind", ["files", "rows", "git", "sql", "sitemap", "python-environment", None])
def test_no_kind_of_source_is_told_what_it_has_not(kind: str | None) -> None:
    """Only files are chosen by a glob."""
    for expectation in _CURES:
        for uri in ("https://e.org/a", "https://e.org/a#b"):
            cure = quarantine_cure(reason(expectation, uri=uri, kind=kind))
            assert "{" not in cure
            assert "--glob" not in cure or kind not in ("rows", "sql", "sitemap")
