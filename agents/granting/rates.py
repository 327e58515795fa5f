"""Limits on requests a second (OR-11): the one thing that a refusal may change."""

from __future__ import annotations

from typing import Any

from agents.decision import Put, Records
from protocol.checks import Check, RefusalCode, Refused
from storage.kms_records import Rate

_KEPT_S = 60  # a counter of a past second is of no use


class Rates:
    """The counters of one request; `puts` writes those that were counted."""

    def __init__(self, records: Records, now: int) -> None:
        self._records = records
        self._now = now
        self._counted: dict[str, Rate] = {}

    def admit(self, what: str, most: int) -> None:
        """Raises Refused(OR-11) when `what` has had its `most` requests in this second."""
        if self._rate(what).count >= most:  # OR-11
            raise Refused(Check.OR_11, RefusalCode.TOO_MANY)

    def count(self, what: str) -> None:
        """One more."""
        self._counted[what] = Rate(second=self._now, count=self._rate(what).count + 1)

    def puts(self) -> tuple[Put[Any], ...]:
        """What to write."""
        return tuple(
            Put(Rate.key_for(what), rate, self._now + _KEPT_S) for what, rate in self._counted.items()
        )

    def _rate(self, what: str) -> Rate:
        rate = self._counted.get(what) or self._records.get(Rate.key_for(what))
        return rate if rate is not None and rate.second == self._now else Rate(second=self._now, count=0)
