"""What a user or an operator can put right, where no other error says it."""

from __future__ import annotations


class Mistake(Exception):  # noqa: N818
    """The message says what is wrong and how to put it right; it is told in a line, without a traceback."""
