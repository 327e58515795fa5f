"""Where a key id is in use: each grant notes its call or conference for each of its key ids, so that the
custodian knows whom a revocation concerns.

The record is of the shard of the call. The custodian writes it too when it revokes: so a grant that was
judged before and would be written after it meets a conflict, and is judged again.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import msgspec

from agents.decision import Decision, Keys, Put, Records
from protocol.names import Run
from protocol.sharding import call_key
from storage.kms_records import Uses
from storage.records import Key

_USES_MAX: Final = 1_000  # in one record; what ends first is left to end by itself


def uses_keys(shard_by: str, *key_ids: str) -> Keys:
    """What is read for a grant with these key ids. shard_by: names the call, or is G in hexadecimal."""
    return tuple(Uses.key_for(key_id, shard_by) for key_id in key_ids)


def note_call(records: Records, run: Run, key_ids: Iterable[str], until: int, now: int) -> Decision:
    """These key ids have a key in this call until then."""
    about = (run.caller, run.callee, run.call)
    puts = []
    for key in uses_keys(call_key(run.caller, run.call), *key_ids):
        uses = records.get(key) or Uses()
        ends = {use[:3]: use[3] for use in uses.calls}
        ends[about] = max(until, ends.get(about, 0))
        calls = tuple((*use, end) for use, end in ends.items())
        puts.append(put_uses(key, msgspec.structs.replace(uses, calls=calls), now))
    return Decision(puts=tuple(puts))


def note_conference(
    records: Records, focus: str, group: bytes, key_ids: Iterable[str], until: int, now: int
) -> Decision:
    """These key ids have a key in this conference until then."""
    puts = []
    for key in uses_keys(group.hex(), *key_ids):
        uses = records.get(key) or Uses()
        ends = {use[:2]: use[2] for use in uses.conferences}
        ends[focus, group] = max(until, ends.get((focus, group), 0))
        conferences = tuple((*use, end) for use, end in ends.items())
        puts.append(put_uses(key, msgspec.structs.replace(uses, conferences=conferences), now))
    return Decision(puts=tuple(puts))


def put_uses(key: Key[Uses], uses: Uses, now: int) -> Put[Uses]:
    """Write it, without what is over."""
    calls = sorted((use for use in uses.calls if use[3] >= now), key=lambda use: use[3])[-_USES_MAX:]
    conferences = sorted((use for use in uses.conferences if use[2] >= now), key=lambda use: use[2])
    conferences = conferences[-_USES_MAX:]
    ends = max((*(use[3] for use in calls), *(use[2] for use in conferences)), default=now)
    return Put(key, Uses(calls=tuple(calls), conferences=tuple(conferences)), ends)
