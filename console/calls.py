"""The commands that need the media libraries: `otway demo`, `otway call`, `otway run ue`."""

from __future__ import annotations

import asyncio
import os
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Final, Literal

import msgspec
import typer
from typer import Argument, Option

from chaos.tampering import Part
from console import logs
from console.calling import CallFailed, Calling, CallWish, find
from console.demo import CallDemo, DemoSettings, account, keep
from console.outside import clock, random
from console.running import Lab, served, settings_to_run
from console.settings import SETTINGS_FILE, read_settings
from console.ue_host import run_ue_host
from media.likeness import likeness
from media.pcm import SAMPLE_HZ
from media.samples import callee_sample, caller_sample, tone
from media.wav import SoundUnreadable, read_sound, write_wav
from protocol.description import SrtpSuite
from protocol.names import Suite
from protocol.profile import HARDENED, PROFILES, admit
from storage.users_file import UsersBroken, read_directory, read_users

MISTAKES: Final = (CallFailed, SoundUnreadable)


class Scenario(StrEnum):
    """What `otway demo` can show."""

    CALL = "call"


class Seals(StrEnum):
    """The suites by the names of their ciphers."""

    AES_256_GCM = "aes-256-gcm"
    CHACHA20_POLY1305 = "chacha20-poly1305"


ProfileName = Literal["hardened", "literal"]
Json = Annotated[bool, Option("--json", help="Print the outcome as JSON and nothing else.")]
Wav = Annotated[Path | None, Option(help="A sound file to say, up to 10 minutes.")]
Users = Annotated[Path, Option(help="The users file, for the handsets' keys.")]
SealSuite = Annotated[Seals, Option(help="The AEAD of tokens and grants.")]


def add_to(app: typer.Typer, run_app: typer.Typer) -> None:
    """Register the commands."""
    app.command()(demo)
    app.command()(call)
    run_app.command("ue")(ue)


def demo(
    scenario: Annotated[Scenario, Argument(help="What to show.")] = Scenario.CALL,
    *,
    out: Annotated[
        Path | None, Option(help="Keep alice-heard.wav, bob-heard.wav, ladder.txt and call.json here.")
    ] = None,
    wav: Wav = None,
    profile: Annotated[ProfileName, Option(help="literal: the ten steps as first written.")] = "hardened",
    lab: Lab = False,
    suite: SealSuite = Seals.AES_256_GCM,
    srtp: Annotated[SrtpSuite | None, Option(help="Offer this SRTP suite only.")] = None,
    tamper: Annotated[
        Part | None, Option(help="Change one bit of this part on its way: who notices?")
    ] = None,
    as_json: Json = False,
) -> None:
    """A call with no server and no configuration: real agents, real SRTP on loopback.

    Exit code 0: the call was up, both heard each other, and nobody else could. 1: something was refused.
    """
    del scenario  # there is one
    _make(out)
    admitted = admit(PROFILES[profile], lab=lab)
    logs.configure("text", admitted, quiet=True)
    settings = DemoSettings(
        profile=admitted,
        suite=Suite[suite.name],
        srtp_suites=(srtp,) if srtp else tuple(SrtpSuite),
        sound=read_sound(wav) if wav else None,
        tampered=tamper,
    )
    lines: list[str] = []

    def show(line: str) -> None:
        lines.append(line)
        if not as_json:
            typer.echo(line)

    call = CallDemo(settings, clock=clock, random=random, show=show)
    outcome = asyncio.run(call.run())
    for line in account(outcome):
        show(line)
    if out is not None:
        keep(out, outcome, lines, call.heard)
        show(f"kept in {out}")
    if as_json:
        typer.echo(msgspec.json.encode(outcome))
    raise typer.Exit(0 if outcome.good else 1)


def ue(
    *,
    host: Annotated[str, Option(help="The name of the UE host.")],
    users: Users = Path("users.toml"),
    wav: Wav = None,
    hertz: Annotated[float, Option(help="Say a tone of so many hertz instead.")] = 0.0,
    heard: Annotated[Path | None, Option(help="Keep what is heard in this directory.")] = None,
    answer_after: Annotated[int, Option(min=0, help="Seconds of ringing.")] = 0,
    decline: Annotated[bool, Option("--decline", help="Decline every call.")] = False,
    lab: Lab = False,
) -> None:
    """The handsets of one UE host, with real media."""
    settings, profile = settings_to_run(lab=lab)
    devices = tuple(device for device in read_users(users) if device.host == host)
    if not devices:
        raise UsersBroken(f"{users}: no device on the UE host {host!r}; choose one with --host")
    _make(heard)
    sound = read_sound(wav) if wav else tone(hertz, 600.0) if hertz else callee_sample()
    served(
        run_ue_host(
            host,
            devices,
            settings,
            profile,
            sound=sound,
            heard=heard,
            answer_after_s=None if decline else answer_after,
            clock=clock,
            random=random,
        )
    )


def call(
    caller: Annotated[str, Argument(help="Who calls: a name, an identity or an IMPI of the directory.")],
    callee: Annotated[str, Argument(help="Who is called.")],
    *,
    directory: Annotated[
        Path | None, Option(help="Who lives where: a users file; OTWAY_DIRECTORY by default.")
    ] = None,
    wav: Wav = None,
    seconds: Annotated[float | None, Option(min=0.0, help="How long to talk; as long as the sound.")] = None,
    out: Annotated[
        Path | None, Option(help="Keep what each side heard, ladder.txt and call.json here.")
    ] = None,
    as_json: Json = False,
) -> None:
    """A call between two UE hosts on Kafka, each an `otway run ue` or a container of the cluster.

    Exit code 0: the call was up and both ends confirmed it.
    """
    _make(out)
    settings = read_settings(os.environ, SETTINGS_FILE)
    logs.configure(settings.log, HARDENED, quiet=True)
    devices = read_directory(directory or settings.directory)
    said = read_sound(wav) if wav else caller_sample()
    wish = CallWish(
        caller=find(devices, caller),
        callee=find(devices, callee),
        sound=said,
        seconds=said.size / SAMPLE_HZ if seconds is None else seconds,
    )
    lines: list[str] = []

    def show(line: str) -> None:
        lines.append(line)
        if not as_json:
            typer.echo(line)

    calling = Calling(wish, settings, random=random, show=show)
    outcome = asyncio.run(calling.run())
    for identity, media in outcome.statistics.items():
        show(
            f"{identity}: {media.sent} packets sent, {media.received} received, {media.lost} lost, "
            f"{media.refused} refused, jitter {media.jitter_ms:.1f} ms"
        )
    for device, sound, sample in (
        (wish.callee, said, f"what {caller} said"),
        (wish.caller, callee_sample(), "the built-in sample"),
    ):
        heard = calling.heard.get(device.impi)
        if heard is not None:
            show(f"what {device.impi} heard is {likeness(heard, sound):.2f} like {sample}")
            if out is not None:
                both = wish.caller.host == wish.callee.host
                write_wav(out / f"{device.impi if both else device.host}-heard.wav", heard)
    show(f"call {outcome.call[:4]} came up after {outcome.set_up_ms:.0f} ms and ended: {outcome.ended}")
    if out is not None:
        (out / "ladder.txt").write_text("\n".join(lines) + "\n")
        (out / "call.json").write_bytes(msgspec.json.format(msgspec.json.encode(outcome)) + b"\n")
    if as_json:
        typer.echo(msgspec.json.encode(outcome))
    raise typer.Exit(0 if outcome.confirmed else 1)


def _make(directory: Path | None) -> None:
    """A directory for what is kept, before anything is worth keeping. Raises OSError."""
    if directory is not None:
        directory.mkdir(parents=True, exist_ok=True)
