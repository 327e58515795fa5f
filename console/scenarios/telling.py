"""The account of a scenario as it happens: messages as a ladder, with notes of what they lead to."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from console.calls.ladder import Ladder
from console.embedded import Hop
from console.instances import role_of


class Telling:
    """Draws once it is begun, and but for where it pauses; notes are always told."""

    def __init__(self, show: Callable[[str], None], parties: Sequence[str]) -> None:
        """show: takes each line. parties: a column for each; all instances of a network function have one."""
        self._show = show
        self._ladder = Ladder(parties)
        self._drawing = False

    def begin(self, remark: str) -> None:
        """What this is about, and the head of the ladder."""
        self._show(remark)
        self._show(self._ladder.head())
        self._drawing = True

    def pause(self) -> None:
        """What is said until `go_on` is not drawn."""
        self._drawing = False

    def go_on(self) -> None:
        """Draw again."""
        self._drawing = True

    def note(self, text: str) -> None:
        """Something that happened at one party."""
        self._show(self._ladder.note(text))

    def draw(self, hop: Hop) -> None:
        """A message, if both its parties have a column."""
        if self._drawing:
            line = self._ladder.hop(role_of(hop.sender) or hop.sender, hop.receiver, hop.message)
            if line is not None:
                self._show(line)
