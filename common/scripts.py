"""Which scripts are written without spaces between words."""

import re

UNSPACED_SCRIPTS = (
    *((0x0E00, 0x0EFF), (0x1000, 0x109F), (0x1780, 0x17FF)),  # Thai and Lao, Burmese, Khmer
    *((0x2E80, 0x2FDF), (0x3040, 0x30FF), (0x3400, 0x4DBF), (0x4E00, 0x9FFF), (0xF900, 0xFAFF)),  # CJK
    (0x20000, 0x3FFFF),  # CJK beyond the basic plane
)
"""The first and last code point of blocks whose scripts are written without spaces between words."""

UNSPACED = re.compile("[" + "".join(f"{chr(first)}-{chr(last)}" for first, last in UNSPACED_SCRIPTS) + "]")
"""A character of one of these scripts."""
