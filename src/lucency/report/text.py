"""Free text made safe to look at: no control, bidirectional or invisible character survives."""

from __future__ import annotations

import unicodedata

MAX_LENGTH = 160
MAX_MARKS = 3
"""Combining marks allowed in a row; more would paint over the neighbouring lines."""

_HIDDEN = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})


def plain(text: str, limit: int = MAX_LENGTH, *, lines: bool = False) -> str:
    """Return `text` with every character visible, cut to about `limit` characters.

    Control, format (bidirectional, zero-width), surrogate, private and unassigned characters become
    escapes such as ``\\u202e``. lines: keep newlines and turn a tab into four spaces. What was cut
    is counted at the end.

    >>> plain("a\\u202eb")
    'a\\\\u202eb'
    >>> plain("x" * 30, limit=20)
    'xxxxxxxxxxxxxxxxxxxx… (10 more characters)'
    """
    kept = text[:limit].replace("\r\n", "\n") if lines else text[:limit]
    pieces: list[str] = []
    marks = 0
    for character in kept:
        category = unicodedata.category(character)
        marks = marks + 1 if category in {"Mn", "Me"} else 0
        if lines and character in "\n\t":
            pieces.append("\n" if character == "\n" else "    ")
        elif category in _HIDDEN or marks > MAX_MARKS:
            pieces.append(_escape(character))
        else:
            pieces.append(character)
    if len(text) > limit:
        pieces.append(f"… ({len(text) - limit:,} more characters)")
    return "".join(pieces)


def _escape(character: str) -> str:
    code = ord(character)
    if code <= 0xFF:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code <= 0xFFFF else f"\\U{code:08x}"
