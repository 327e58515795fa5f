"""Dead letters: what was buried can be read back, is closed for good, and is sent only where it may be."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import pytest

from protocol.checks import Check, RefusalCode, Refused
from topics.bus import Inbound, Outbound
from topics.catalogue import AUDIT, BSF, CSCF, DEAD_LETTERS, KMS, ORDERS, Party, ue_inbox
from topics.codec import encode
from topics.dead_letters import (
    Closed,
    Letter,
    NoLetter,
    NotReplayable,
    bury,
    closing,
    original,
    read_letter,
    sort_letters,
)
from topics.messages import Dial, HangUp

RECORD = Inbound(CSCF.name, 3, 17, b"a \xff key", b"\xc1 garbage", (("trace", b"1"), ("trace", b"2")))
WHY = Refused(Check.OR_01, RefusalCode.MALFORMED, "not the canonical form")


def written(*records: Outbound, at_ms: int = 0) -> list[Inbound]:
    """As they stand in the topic."""
    return [
        Inbound(each.topic, each.partition, offset, each.key, each.value, each.headers, at_ms + offset)
        for offset, each in enumerate(records)
    ]


def letter_of(record: Inbound) -> Letter:
    [found] = written(bury(record, Party.CSCF, WHY))
    return read_letter(found)


def opened(*records: Outbound) -> Iterable[str]:
    return sort_letters(written(*records)).open.keys()


@pytest.mark.parametrize(
    "record",
    [
        RECORD,
        replace(RECORD, value=None),
        replace(RECORD, value=b"", key=b"", headers=()),
        replace(RECORD, headers=(("original-x", b""), ("closed", b"dropped"), ("cut", b"key"))),
        replace(RECORD, topic=ue_inbox("a.b-c").name, partition=0, offset=2**62),
        replace(RECORD, key=bytes(4096), headers=tuple((f"{n}", bytes(200)) for n in range(16))),
    ],
    ids=["plain", "tombstone", "empty", "names of ours", "of a UE host", "as large as fits"],
)
def test_the_original_comes_back_octet_for_octet(record: Inbound) -> None:
    letter = letter_of(record)
    assert letter.id == f"{record.topic}/{record.partition}/{record.offset}"
    assert (letter.buried_by, letter.check, letter.reason) == ("cscf", "OR-01", "not the canonical form")
    assert original(letter) == Outbound(
        record.topic, record.partition, record.key or b"", record.value, record.headers
    )


def test_burying_twice_gives_the_same_octets_and_one_letter() -> None:
    once, twice = bury(RECORD, Party.CSCF, WHY), bury(RECORD, Party.CSCF, WHY)
    assert once == twice
    [letter] = sort_letters(written(once, twice, at_ms=1000)).open.values()
    assert (letter.id, letter.timestamp_ms) == ("ims.cscf/3/17", 1000), "of its first burial"


@pytest.mark.parametrize(
    ("record", "cut"),
    [
        (replace(RECORD, key=bytes(4097)), "key"),
        (replace(RECORD, headers=tuple((f"{n}", b"") for n in range(17))), "headers"),
        (replace(RECORD, headers=(("small", b""), ("large", bytes(4096)))), "headers"),
        (replace(RECORD, key=bytes(4097), headers=(("large", bytes(4096)),)), "key, headers"),
    ],
    ids=["key", "many headers", "large header", "both"],
)
def test_what_was_cut_is_said_and_not_replayed(record: Inbound, cut: str) -> None:
    letter = letter_of(record)
    assert letter.cut == cut
    assert letter.value == record.value
    with pytest.raises(NotReplayable, match=cut):
        original(letter)


@pytest.mark.parametrize("how", Closed)
def test_a_closed_letter_stays_closed(how: Closed) -> None:
    first = bury(RECORD, Party.CSCF, WHY)
    other = bury(replace(RECORD, offset=18), Party.CSCF, WHY)
    close = closing(letter_of(RECORD), how)
    assert (close.topic, close.key, close.partition) == (DEAD_LETTERS.name, first.key, first.partition)
    assert close.value is None
    for records in ([first, close, other], [first, close, other, first], [close, first, other]):
        found = sort_letters(written(*records))
        assert found.open.keys() == {"ims.cscf/3/18"}
        assert found.closed == {"ims.cscf/3/17": how}


def test_a_tombstone_that_was_buried_is_open() -> None:
    """Only the header closes a letter: its value may be missing for another reason."""
    assert opened(bury(replace(RECORD, value=None), Party.CSCF, WHY)) == {"ims.cscf/3/17"}


def test_the_oldest_comes_first() -> None:
    letters = [bury(replace(RECORD, offset=offset), Party.CSCF, WHY) for offset in (5, 9, 7)]
    late, early = written(*letters, at_ms=1000), written(bury(replace(RECORD, offset=8), Party.KMS, WHY))
    assert list(sort_letters([*late, *early]).open) == [f"ims.cscf/3/{offset}" for offset in (8, 5, 9, 7)]


GOOD = bury(RECORD, Party.CSCF, WHY)


@pytest.mark.parametrize(
    "record",
    [
        replace(GOOD, key=b""),
        replace(GOOD, key=b"ims.cscf/3"),
        replace(GOOD, key=b"ims.cscf/3/17\n"),
        replace(GOOD, key=b"ims.cscf/-3/17"),
        replace(GOOD, key=b"ims.cscf/3/\xd9\xa1"),
        replace(GOOD, key=b"\x1b[2J/3/17"),
        replace(GOOD, headers=tuple(each for each in GOOD.headers if each[0] != "origin-key")),
        replace(GOOD, headers=()),
    ],
    ids=str,
)
def test_what_nobody_has_buried_is_no_letter(record: Outbound) -> None:
    [found] = written(record)
    with pytest.raises(NoLetter):
        read_letter(found)
    sorted_out = sort_letters([found])
    assert (sorted_out.open, sorted_out.others) == ({}, 1)


@pytest.mark.parametrize(
    "record",
    [
        replace(GOOD, value=b"x", headers=(("closed", b"dropped"),)),
        replace(GOOD, value=None, headers=(("closed", b"burnt"),)),
        replace(GOOD, value=None, headers=(("closed", b"\xff"),)),
        replace(GOOD, value=None, key=b"?", headers=(("closed", b"dropped"),)),
    ],
    ids=["with a value", "another word", "no text", "of nothing"],
)
def test_what_does_not_close_a_letter(record: Outbound) -> None:
    found = sort_letters(written(GOOD, record))
    assert (list(found.open), found.closed, found.others) == (["ims.cscf/3/17"], {}, 1)


@pytest.mark.parametrize("topic", [KMS.name, BSF.name, CSCF.name, ue_inbox("bob").name])
def test_an_inbox_takes_its_letters_back(topic: str) -> None:
    assert original(letter_of(replace(RECORD, topic=topic))).topic == topic


@pytest.mark.parametrize("topic", [ORDERS.name, AUDIT.name, DEAD_LETTERS.name, "other"])
def test_an_invented_letter_is_not_sent_where_only_its_replayer_may_write(topic: str) -> None:
    """Every agent may bury: a UE host must not have an operator send what it may not send itself."""
    with pytest.raises(NotReplayable):
        original(letter_of(replace(RECORD, topic=topic)))


def test_what_a_user_would_say_is_not_replayed() -> None:
    """Any UE host may write dead letters: it must not get an operator to dial for it."""
    dial = Dial(request=bytes(16), to="bob-1@ims.example", callee="sip:mallory@ims.example")
    hang_up = HangUp(to="bob-1@ims.example", caller="sip:bob@ims.example", call=bytes(16))
    for wish in (dial, hang_up):
        forged = Inbound(ue_inbox("bob").name, 0, 1, b"bob", encode(wish))
        with pytest.raises(NotReplayable, match="said anew"):
            original(letter_of(forged))


def test_what_the_bus_could_not_show_is_not_replayed() -> None:
    letter = letter_of(Inbound(CSCF.name, 3, 18, None, None, unreadable="a header is no text"))
    assert letter.cut
    with pytest.raises(NotReplayable):
        original(letter)
