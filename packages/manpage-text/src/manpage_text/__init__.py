"""Reads the text of Unix manual pages from their source, written in man(7) or mdoc(7), without groff."""

from manpage_text.blocks import Block, ManualPage
from manpage_text.page import declared_encoding, is_manual_page, read_manual_page

__all__ = ["Block", "ManualPage", "declared_encoding", "is_manual_page", "read_manual_page"]
