"""A message out of a mailbox that loses, repeats, reorders and adds: what is heard, and is it whole."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import msgspec
import numpy as np
import pytest

from media import rtcp
from media.leg import Leg
from media.likeness import likeness
from media.outgoing import OutgoingStream
from media.pcm import PACKET_S, PACKET_SAMPLES, Pcm
from media.rtcp import Bye, Cname, ReceiverReport, SenderReport, is_rtcp
from media.rtp import RtpPacket
from media.samples import caller_sample, mailbox_tone, tone
from media.session import Session
from media.srtp import SendingStream
from media.stored import StoredMedia
from protocol.description import Flow
from protocol.sealing import Random
from protocol.secret import Secret
from protocol.srtp_keys import srtp_master

Change = Callable[[list[bytes]], list[bytes]]
SECONDS = 5.0
PACKETS = round(SECONDS / PACKET_S)


@pytest.fixture
def left(alice: Leg, draw: Random) -> list[bytes]:
    """What alice says to a mailbox: 250 packets, five reports, and the last one with BYE."""
    leg = msgspec.structs.replace(alice, flow=Flow.SENDONLY, to_mailbox=True)
    session = Session(leg, draw, caller_sample(), now=0.0, heard_samples_max=10**6)
    packets = [packet for tick in range(PACKETS) for packet in session.tick(tick * PACKET_S)]
    assert np.array_equal(session.heard(), mailbox_tone())
    return [*packets, session.close(SECONDS)]


def hear(leg: Leg, packets: list[bytes], heard_samples_max: int = 10**6) -> StoredMedia:
    media = StoredMedia(leg, heard_samples_max=heard_samples_max)
    for packet in packets:
        media.take(packet)
    return media


def speech(packets: list[bytes]) -> list[int]:
    """Where RTP is among the packets."""
    return [index for index, packet in enumerate(packets) if not is_rtcp(packet)]


def without(packets: list[bytes], index: int) -> list[bytes]:
    return packets[:index] + packets[index + 1 :]


def test_what_was_left_is_heard_to_its_end(bob: Leg, left: list[bytes]) -> None:
    media = hear(bob, left)
    assert media.whole
    assert (media.authentic, media.refused) == (PACKETS + 6, 0)
    assert media.heard().size == PACKETS * PACKET_SAMPLES
    assert likeness(media.heard(), caller_sample()) > 0.99


def test_under_each_suite(alice: Leg, bob: Leg, suite: Any, draw: Random) -> None:
    said = OutgoingStream(msgspec.structs.replace(alice, suite=suite), draw)
    packets = [said.packet(tone(440, PACKET_S)) for _ in range(50)]
    media = hear(msgspec.structs.replace(bob, suite=suite), [*packets, said.report((), 2.0, bye=True)])
    assert (media.whole, media.authentic) == (True, 51)


def test_the_order_of_a_mailbox_means_nothing(bob: Leg, left: list[bytes]) -> None:
    shuffled = list(left)
    random.Random(4).shuffle(shuffled)
    media = hear(bob, shuffled)
    assert media.whole
    assert np.array_equal(media.heard(), hear(bob, left).heard())


def test_a_missing_packet_is_silence_and_the_message_is_not_whole(bob: Leg, left: list[bytes]) -> None:
    index = speech(left)[100]
    media = hear(bob, without(left, index))
    assert not media.whole
    heard, expected = media.heard(), hear(bob, left).heard().copy()
    expected[100 * PACKET_SAMPLES : 101 * PACKET_SAMPLES] = 0
    assert np.array_equal(heard, expected)


@pytest.mark.parametrize("which", [0, 1, 30, -2, -1])
def test_a_message_without_any_one_packet_is_not_whole(bob: Leg, left: list[bytes], which: int) -> None:
    """Also without the first or the last: the sender says how many there were."""
    assert not hear(bob, without(left, speech(left)[which])).whole


@pytest.mark.parametrize("start", [0, 3, 200])
def test_a_message_cut_short_at_either_end_is_not_whole(bob: Leg, left: list[bytes], start: int) -> None:
    assert not hear(bob, left[:start]).whole
    assert not hear(bob, left[:-1][start:]).whole
    assert hear(bob, left[start:]).whole is (start == 0)


def test_nothing_at_all_is_not_whole(bob: Leg, left: list[bytes]) -> None:
    assert not hear(bob, []).whole
    assert hear(bob, []).heard().size == 0
    media = hear(bob, [packet for packet in left if is_rtcp(packet)])
    assert (media.whole, media.authentic, media.heard().size) == (False, 6, 0)


def test_repeats_count_once(bob: Leg, left: list[bytes]) -> None:
    media = hear(bob, [packet for packet in left for _ in range(2)])
    assert (media.whole, media.authentic, media.refused) == (True, len(left), 0)


def test_junk_is_counted_and_changes_nothing(bob: Leg, left: list[bytes]) -> None:
    chance = random.Random(5)
    junk = [chance.randbytes(chance.randrange(0, 300)) for _ in range(100)]
    strangers = [b"\x80\x00" + chance.randbytes(180) for _ in range(100)]
    changed = [packet[:-1] + bytes([packet[-1] ^ 1]) for packet in left]
    media = hear(bob, [*junk, *strangers, *changed, *left, *changed, *junk])
    assert media.whole
    assert (media.authentic, media.refused) == (len(left), 300 + 2 * len(left))
    assert np.array_equal(media.heard(), hear(bob, left).heard())


@pytest.mark.parametrize(
    "change",
    [
        {"root": Secret(bytes(32))},
        {"remote": "sip:carol@ims.example"},
        {"local": "sip:carol@ims.example"},
        {"n": 0},
        {"media_line": 1},
    ],
    ids=str,
)
def test_or_28_another_key_opens_nothing(bob: Leg, left: list[bytes], change: dict[str, Any]) -> None:
    media = hear(msgspec.structs.replace(bob, **change), left)
    assert (media.whole, media.authentic, media.refused) == (False, 0, len(left))
    assert media.heard().size == 0


def test_or_28_an_end_that_another_message_had(alice: Leg, bob: Leg, left: list[bytes], draw: Random) -> None:
    """A BYE under another key, or of another stream, is not this message's end."""
    other = OutgoingStream(msgspec.structs.replace(alice, root=Secret(bytes(32))), draw)
    assert not hear(bob, [*left[:-1], other.report((), 9.0, bye=True)]).whole
    same_key = OutgoingStream(alice, draw)
    assert not hear(bob, [*left[:-1], same_key.report((), 9.0, bye=True)]).whole


def streams(alice: Leg, draw: Random) -> tuple[list[bytes], list[bytes], Pcm]:
    """Two streams of one sender, and what she says in them."""
    said = caller_sample()[: 100 * PACKET_SAMPLES]
    halves = []
    for half in range(2):
        stream = OutgoingStream(alice, draw)
        part = said[half * 50 * PACKET_SAMPLES : (half + 1) * 50 * PACKET_SAMPLES]
        packets = [stream.packet(pcm) for pcm in np.split(part, 50)]
        halves.append([*packets, stream.report((), 1.0 + half, bye=True)])
    return halves[0], halves[1], said


def test_streams_follow_each_other_as_their_sender_says(alice: Leg, bob: Leg, draw: Random) -> None:
    first, second, said = streams(alice, draw)
    for packets in (first + second, second + first):
        media = hear(bob, packets)
        assert media.whole
        assert likeness(media.heard(), said) > 0.99
    assert not hear(bob, first[:-1] + second).whole
    assert not hear(bob, first + second[:-1]).whole
    assert not hear(bob, without(first, 10) + second).whole
    cut = hear(bob, second[:-1] + first)  # it has not told its time: it comes last
    assert likeness(cut.heard(), said) > 0.99


def test_what_is_kept_is_bounded(alice: Leg, bob: Leg, draw: Random) -> None:
    first, second, _ = streams(alice, draw)
    whole = hear(bob, first + second).heard()
    for samples in (0, 1, 8000, 9000):
        media = hear(bob, first + second, heard_samples_max=samples)
        assert np.array_equal(media.heard(), whole[:samples])
        assert media.whole  # it is all there, though not all of it is kept
        assert samples <= media._kept < samples + PACKET_SAMPLES


def test_a_gap_is_bounded(alice: Leg, bob: Leg) -> None:
    """A sender may skip numbers: that is not silence without end."""
    sender = protected(alice)
    packets = [
        sender.protect(RtpPacket(0, number, 0, 7, bytes(160)).pack()) for number in (1, 30_000, 60_000)
    ]
    assert hear(bob, packets, heard_samples_max=8000).heard().size == 8000


def protected(leg: Leg) -> SendingStream:
    """SSRC 7 of this leg's local party, for whatever it may send."""
    master = srtp_master(
        leg.root, leg.suite, sender=leg.local, receiver=leg.remote, media_line=0, ssrc=7, n=leg.n
    )
    return SendingStream(master, 7)


def test_what_a_sender_says_wrongly_does_no_harm(alice: Leg, bob: Leg) -> None:
    """Authentic, and no packet of ours: another payload, half an RTCP packet, BYE without a count."""
    sender = protected(alice)
    rtp = [
        RtpPacket(0, 1, 0, 7, bytes(160)),
        RtpPacket(0, 2, 160, 7, b"short"),
        RtpPacket(99, 3, 320, 7, bytes(160)),
    ]
    packets = [sender.protect(packet.pack()) for packet in rtp]
    cut = rtcp.compound(ReceiverReport(7), Cname(7, "a"))[:8] + b"\x81\xcb\x00\x09" + bytes(4)
    packets.append(sender.protect_rtcp(cut))
    packets.append(sender.protect_rtcp(rtcp.compound(ReceiverReport(7), Cname(7, "a"), Bye(7))))
    media = hear(bob, packets)
    assert (media.authentic, media.refused) == (5, 0)
    said, *silent = np.split(media.heard(), 3)
    assert said.any()
    assert not np.any(silent)
    assert not media.whole  # she does not say how many there were


@pytest.mark.parametrize(
    ("numbers", "said", "ended", "whole"),
    [((4, 5, 6), 7, 7, True), ((4, 6, 7), 7, 7, False), ((4, 5, 6), 8, 7, False), ((4, 5, 6), 7, 8, False)],
)
def test_a_sender_speaks_for_her_own_stream_and_skips_no_number(
    alice: Leg, bob: Leg, numbers: tuple[int, ...], said: int, ended: int, *, whole: bool
) -> None:
    """said, ended: the SSRC that her report of three packets, and her BYE, are about."""
    sender = protected(alice)
    packets = [sender.protect(RtpPacket(0, number, 0, 7, bytes(160)).pack()) for number in numbers]
    report = SenderReport(said, ntp=1, rtp_timestamp=0, packets=3, octets=480)
    last = rtcp.compound(ReceiverReport(7), report, Cname(7, "a"), Bye(ended))
    assert hear(bob, [*packets, sender.protect_rtcp(last)]).whole is whole


def test_whatever_a_mailbox_does_whole_means_whole(bob: Leg, left: list[bytes]) -> None:
    told = [index for index, packet in enumerate(left[:-1]) if is_rtcp(packet)]
    for seed in range(60):
        chance = random.Random(seed)
        lost = {index for index in range(len(left)) if chance.random() < 0.005}
        packets = [packet for index, packet in enumerate(left) if index not in lost]
        packets += [chance.choice(left) for _ in range(3)] if not lost else []
        packets += [chance.randbytes(200) for _ in range(3)]
        if chance.random() < 0.5:
            chance.shuffle(packets)
        media = hear(bob, packets)
        assert media.whole is (lost <= set(told))  # a report on the way says nothing that the last does not
