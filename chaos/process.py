"""The processes of a simulated world: who runs which agent with which settings, and what dies with it."""

from __future__ import annotations

import random as seeded
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from agents.bsf import Bsf
from agents.conference import FocusSettings
from agents.cscf import Cscf, CscfSettings
from agents.custodian import Custodian
from agents.decision import Agent
from agents.handset.ue_call import UeSettings
from agents.kms import Kms, KmsSettings
from agents.runtime import Loop
from agents.transcoder import TranscoderSettings
from agents.ue import Ue
from agents.voicemail import VoicemailSettings
from chaos.faults import Revoked
from chaos.silent_media import SilentBridge, SilentMedia, SilentRecorder
from chaos.wire import FaultyBus, Fuse
from protocol.names import Permit
from protocol.profile import HARDENED
from protocol.transport import MediaAddress
from storage.memory import MemoryStore
from storage.users_file import Device
from topics.catalogue import BSF, CONFERENCE, CSCF, KMS, ORDERS, TRANSCODER, VOICEMAIL, Party, ue_inbox

if TYPE_CHECKING:
    from chaos.simulator import World

LINES: Final = 4
BRIDGE_LINES: Final = 8
SECONDS_MAX: Final = 30  # of a message


@dataclass(slots=True)
class Member:
    """One process: its agent, its memory, and whether it runs."""

    name: str
    party: Party
    inbox: str
    group: str
    make: Callable[[str], Agent]
    """Of the process's own name, which no other has had."""
    store: MemoryStore
    loop_type: type[Loop] = Loop
    devices: tuple[Device, ...] = ()  # of a UE host
    lines: tuple[MediaAddress, ...] = ()
    media: SilentMedia | SilentRecorder | SilentBridge | None = None
    loop: Loop | None = None
    bus: FaultyBus | None = None
    instance: str = ""  # that name, of the process that runs or has run last
    fuse: Fuse = field(default_factory=Fuse)
    step_due: bool = False
    soon_at: float | None = None  # for when a step was planned, as the loop has an alarm of its own then
    crashed_at: list[float] = field(default_factory=list)


def processes(world: World, answer_after_s: Callable[[str], int | None]) -> list[Member]:
    """All of them, none started. Network functions that have nothing to do in this world are not there."""
    found = [_kms(world, "kms#1"), _kms(world, "kms#2")]
    found.append(Member("bsf", Party.BSF, BSF.name, Party.BSF, lambda _: Bsf(), world.network))
    found.append(Member("cscf", Party.CSCF, CSCF.name, Party.CSCF, lambda _: _cscf(world), world.network))
    found += [_mailbox(world, "voicemail#1"), _mailbox(world, "voicemail#2")]
    if world.transcoder is not None:
        found += [_transcoder(world, each, world.transcoder) for each in ("transcoder#1", "transcoder#2")]
    if world.focus is not None:
        found += [_focus(world, each, world.focus) for each in ("conference#1", "conference#2")]
    if world.faults.revoke is not Revoked.NOTHING:
        custodian = Member(
            "custodian", Party.CUSTODIAN, ORDERS.name, Party.CUSTODIAN, lambda _: Custodian(), world.network
        )
        found.append(custodian)
    return [*found, *(_ue(world, device, answer_after_s(device.host)) for device in world.devices)]


def _kms(world: World, name: str) -> Member:
    settings = KmsSettings(life_s=world.faults.life_s)
    make = world.cast.kms or (lambda: Kms(HARDENED, settings))
    return Member(name, Party.KMS, KMS.name, Party.KMS, lambda _: make(), world.network, world.cast.kms_loop)


def _cscf(world: World) -> Agent:
    return Cscf(
        CscfSettings(
            mailbox=world.mailbox.identity if world.diverts else "",
            transcoder=world.transcoder.identity if world.transcoder else "",
            focus=world.focus.identity if world.focus else "",
        )
    )


def _mailbox(world: World, name: str) -> Member:
    lines = _lines(name, 50_000, LINES)

    def settings(instance: str) -> VoicemailSettings:
        assert world.mailbox.psk is not None
        return VoicemailSettings(
            identity=world.mailbox.identity,
            key_id=world.mailbox.psk_id,
            key=world.mailbox.psk,
            instance=instance,
            lines=lines,
            message_s=SECONDS_MAX,
            keep_s=world.faults.keep_s,
        )

    make = world.cast.voicemail
    member = Member(
        name,
        Party.VOICEMAIL,
        VOICEMAIL.name,
        Party.VOICEMAIL,
        lambda each: make(settings(each)),
        world.network,
    )
    member.lines, member.media = lines, SilentRecorder(world, name, lines)
    return member


def _transcoder(world: World, name: str, device: Device) -> Member:
    lines = _lines(name, 52_000, BRIDGE_LINES)

    def settings(instance: str) -> TranscoderSettings:
        assert device.psk is not None
        return TranscoderSettings(
            identity=device.identity,
            key_id=device.psk_id,
            key=device.psk,
            instance=instance,
            lines=lines,
        )

    make = world.cast.transcoder
    member = Member(
        name,
        Party.TRANSCODER,
        TRANSCODER.name,
        Party.TRANSCODER,
        lambda each: make(settings(each)),
        world.network,
    )
    return _with_bridge(world, member, lines)


def _focus(world: World, name: str, device: Device) -> Member:
    lines = _lines(name, 54_000, BRIDGE_LINES)

    def settings(instance: str) -> FocusSettings:
        assert device.psk is not None
        return FocusSettings(
            identity=device.identity,
            key_id=device.psk_id,
            key=device.psk,
            instance=instance,
            lines=lines,
            codecs=("PCMU", "PCMA"),
        )

    make = world.cast.focus
    member = Member(
        name,
        Party.CONFERENCE,
        CONFERENCE.name,
        Party.CONFERENCE,
        lambda each: make(settings(each)),
        world.network,
    )
    return _with_bridge(world, member, lines)


def _with_bridge(world: World, member: Member, lines: tuple[MediaAddress, ...]) -> Member:
    bridge = SilentBridge(world, member.name, lines)
    world.sessions.append(bridge.media)
    world.bridges[member.name] = bridge.media
    member.lines, member.media = lines, bridge
    return member


def _ue(world: World, device: Device, answer_after_s: int | None) -> Member:
    lines = _lines(device.host, 40_000, LINES)
    settings = UeSettings(
        host=device.host,
        lines=lines,
        codecs=("PCMA",) if is_foreign(world, device) else ("PCMU",),
        permits=_permits(world, device),
        answer_after_s=answer_after_s,
    )
    profile = world.cast.ue_profile
    member = Member(
        device.host,
        Party.UE,
        ue_inbox(device.host).name,
        f"ue.{device.host}",
        lambda _: Ue(profile, settings),
        MemoryStore(),
    )
    media = SilentMedia(world, member.name)
    world.sessions.append(media)
    world.handsets.append(media)
    member.devices, member.lines, member.media = (device,), lines, media
    return member


def is_foreign(world: World, device: Device) -> bool:
    """Whether this device shares no codec with those of other users."""
    return world.faults.foreign and device.identity == world.devices[-1].identity


def _permits(world: World, device: Device) -> tuple[Permit, ...]:
    """With a transcoder about nearly everybody permits one."""
    chance = seeded.Random(f"permits {world.seed} {device.identity}")
    if world.faults.foreign and chance.random() < 0.95:
        return (Permit.DEFERRED, Permit.TRANSCODE)
    return (Permit.DEFERRED,)


def _lines(name: str, first: int, count: int) -> tuple[MediaAddress, ...]:
    return tuple(MediaAddress(name.replace("#", "-"), first + line) for line in range(count))
