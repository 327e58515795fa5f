"""How long a busy machine has kept this process waiting: what is not heard then is not the demo's doing."""

from __future__ import annotations

import threading
import time
from collections import deque
from types import TracebackType
from typing import Final, Self

_BEAT_S: Final = 0.01
_BEATS: Final = 20  # looked at together: short waits that follow each other are one gap to who listens


class Waiting:
    """A thread of its own that wants to run each 10 ms, as a media engine does, and sees how late it is. What
    blocks the event loop does not delay it."""

    def __init__(self) -> None:
        self._longest_s = 0.0
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._beat, daemon=True)

    @property
    def longest_ms(self) -> int:
        """The most that it was late within 0.2 s."""
        return round(1000 * self._longest_s)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._thread.join()

    def _beat(self) -> None:
        beats = deque([time.monotonic()], maxlen=_BEATS + 1)
        while not self._over.wait(_BEAT_S):
            beats.append(time.monotonic())
            late = beats[-1] - beats[0] - (len(beats) - 1) * _BEAT_S
            self._longest_s = max(self._longest_s, late)
