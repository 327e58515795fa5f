"""A message outlives everything: the callee is away, every process dies, and it is heard all the same."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Final

import numpy as np
import pytest

from media.likeness import likeness
from media.pcm import SAMPLE_HZ
from media.samples import caller_sample
from media.wav import read_sound, write_wav
from tests.cluster.cluster import AGENTS, BROKERS, Cluster

pytestmark = pytest.mark.cluster

SECONDS: Final = 20
PACKETS_MIN: Final = 45 * SECONDS


async def test_a_message_survives_every_process(cluster: Cluster, measured: Callable[[str], None]) -> None:
    said = np.resize(caller_sample(), SECONDS * SAMPLE_HZ)
    write_wav(cluster.directory / "message.wav", said)
    cluster.compose("stop", "ue-bob")
    left = json.loads(await cluster.otway("call", "alice", "bob", "--wav", "message.wav", "--json"))
    assert left["answered_by"] is None
    assert left["kept"] > PACKETS_MIN

    cluster.compose("kill")
    cluster.compose("up", "-d", "--wait", "--wait-timeout", "240")
    await cluster.until_healthy(*AGENTS, *BROKERS, "valkey")

    [listed] = json.loads(await cluster.otway("mailbox", "bob", "list", "--json"))
    assert (listed["message"], listed["direction"]) == (left["call"], "received")
    assert listed["packets"] == left["kept"]
    assert listed["kept_until"] == left["kept_until"]
    played = json.loads(await cluster.otway("mailbox", "bob", "play", "--out", "heard", "--json"))
    assert played["whole"]
    assert played["deleted"]
    alike = likeness(read_sound(cluster.directory / "heard" / "voicemail-heard.wav"), said)
    measured(f"a {SECONDS} s message, every process killed, heard afterwards: {alike:.2f} like what was said")
    assert alike > 0.9

    assert json.loads(await cluster.otway("mailbox", "bob", "list", "--json")) == []
    again = await cluster.otway("mailbox", "bob", "play", expect=1)
    assert "there is no message" in again
    told = await cluster.otway("keys", "list", "--stored", "--json")
    stored = [json.loads(line) for line in told.splitlines()]
    assert [(key["callee"], key["fetched"]) for key in stored if key["call"] == left["call"]] == [
        ("sip:bob@ims.example", 1)
    ]


async def test_what_a_user_does_wrong_with_a_mailbox_is_told_in_a_line(cluster: Cluster) -> None:
    for arguments, told in (
        (("mailbox", "zoe", "list"), "nobody is called"),
        (("mailbox", "voicemail", "list"), "nobody is called"),
        (("mailbox", "alice", "delete"), "say which message"),
        (("mailbox", "alice", "delete", "abcdef"), "there is no message 'abcdef'"),
        (("mailbox", "load-0", "list"), "is it running"),
    ):
        said = await cluster.otway(*arguments, expect=1)
        assert told in said
        assert "Traceback" not in said
