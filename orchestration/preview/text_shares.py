"""How much of the bytes of each kind of file is text: time goes by text, and a picture has none."""

import mimetypes
from collections.abc import Mapping
from dataclasses import dataclass, field

from assets.lake.lake import Lake
from assets.lake.tables import DOCUMENTS, QUARANTINE, RAW_DOCUMENTS

SUFFIX_SQL = (
    "coalesce(nullif(lower(regexp_extract(split_part({0}, '#', 1), '[.][^./]*$')), ''), 'no extension')"
)
"""SQL for the kind of a file, as previews name it: the last extension of a URI's file."""

_NAMES = mimetypes.MimeTypes()
"""Python's own names: those of a machine differ."""
_WITHOUT_TEXT = ("image/", "audio/", "video/", "font/", "application/octet-stream", "application/java")
"""Media types of names of which no text is expected where a lake has read none of their kind."""

_SHARES = f"""
    with files as (
        select {SUFFIX_SQL.format("r.uri")} as kind, split_part(r.uri, '#', 1) as file, r.source as source,
               sum(r.size_bytes) as read_bytes, max(r.file_size_bytes) as file_bytes,
               sum(coalesce(d.char_count, 0)) as text_bytes
        from (select * from raw where content_sha256 is not null
              qualify row_number() over (partition by doc_id order by revision desc) = 1) as r
        left join documents as d using (doc_id) left join quarantine as q using (doc_id)
        where not r.deleted and (d.doc_id is not null or q.doc_id is not null)
        group by all
    )
    select kind, sum(text_bytes) / greatest(1, sum(coalesce(file_bytes, read_bytes))) as share
    from files group by kind
"""
"""Of the files that were parsed: of those only read nobody knows yet."""


@dataclass(frozen=True)
class TextShares:
    """The share of text in the bytes of each kind of file.

    Attributes:
        measured: The share by kind, of the files that a lake has parsed: characters of text per byte. It is
            above 1 where files are compressed.
    """

    measured: Mapping[str, float] = field(default_factory=dict)

    def text_bytes(self, sizes: Mapping[str, int]) -> int:
        """Returns about how many of some bytes are text, by their kinds."""
        return round(sum(size_bytes * self._share(kind) for kind, size_bytes in sizes.items()))

    def _share(self, kind: str) -> float:
        if kind in self.measured:
            return self.measured[kind]
        named = _NAMES.guess_type(f"a{kind}")[0] or ""
        return 0.0 if named.startswith(_WITHOUT_TEXT) else 1.0


def measured_text_shares(lake: Lake) -> TextShares:
    """Returns the shares of the files that a lake has parsed; none for a lake that has not been made."""
    try:
        tables = {
            name: lake.delta(table.name)
            for name, table in (("raw", RAW_DOCUMENTS), ("documents", DOCUMENTS), ("quarantine", QUARANTINE))
        }
    except KeyError:
        return TextShares()
    rows = lake.query(_SHARES, **tables).to_pylist()
    return TextShares({row["kind"]: float(row["share"]) for row in rows})
