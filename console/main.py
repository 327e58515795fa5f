"""The command `otway`: what a user types and reads. What it does stands in the modules that it calls."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Coroutine
from enum import StrEnum
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any, Final, Literal, NoReturn, TypeVar

import msgspec
import structlog
import typer
from typer import Argument, Option

from agents.runtime import GaveUp
from chaos.tampering import Part
from console import logs
from console.administration import keys_app, provision, topics_app
from console.demo import CallDemo, DemoSettings, account, keep
from console.doctor import examine
from console.outside import clock, random
from console.roles import run_network, run_ue_host
from console.settings import SettingsBroken, read_settings
from console.simulation import simulate
from console.softphone import CallFailed, CallWish, Softphone, find
from media.likeness import likeness
from media.pcm import SAMPLE_HZ
from media.samples import callee_sample, caller_sample, tone
from media.wav import SoundUnreadable, read_sound, write_wav
from protocol.description import SrtpSuite
from protocol.names import Suite
from protocol.profile import HARDENED, PROFILES, LabOnly, admit
from storage.key_file import KeyFileBroken
from storage.records import RecordBroken
from storage.store import StoreRefused, StoreUnavailable
from storage.users_file import UsersBroken, read_users
from topics.bus import BusRefused, BusUnavailable

MISTAKES: Final = (
    BusRefused,
    BusUnavailable,
    CallFailed,
    GaveUp,
    KeyFileBroken,
    LabOnly,
    OSError,
    RecordBroken,
    SettingsBroken,
    SoundUnreadable,
    StoreRefused,
    StoreUnavailable,
    UsersBroken,
)
"""What a user or an operator can put right: told in a line, without a traceback."""

T = TypeVar("T")

app = typer.Typer(
    name="otway",
    help="Keys for voice calls by an Otway-Rees exchange: agents on a message bus, real SRTP media.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.add_typer(topics_app, name="topics")
app.add_typer(keys_app, name="keys")
app.command()(provision)


class Scenario(StrEnum):
    """What `otway demo` can show."""

    CALL = "call"


class Seals(StrEnum):
    """The suites by the names of their ciphers."""

    AES_256_GCM = "aes-256-gcm"
    CHACHA20_POLY1305 = "chacha20-poly1305"


ProfileName = Literal["hardened", "literal"]
Role = Literal["kms", "bsf", "cscf", "ue"]
Lab = Annotated[bool, Option("--lab", help="Admit the literal profile, which protects nothing.")]
Json = Annotated[bool, Option("--json", help="Print the outcome as JSON and nothing else.")]
Wav = Annotated[Path | None, Option(help="A sound file to say, up to 10 minutes.")]
Users = Annotated[Path, Option(help="The users file, for the handsets' keys.")]
SealSuite = Annotated[Seals, Option(help="The AEAD of tokens and grants.")]


@app.callback()
def otway() -> None:
    """Each command has its own --help."""


@app.command()
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


@app.command()
def run(
    role: Annotated[Role, Argument(help="Which agent this process is.")],
    *,
    host: Annotated[str, Option(help="ue: the name of the UE host.")] = "",
    users: Users = Path("users.toml"),
    wav: Wav = None,
    hertz: Annotated[float, Option(help="ue: say a tone of so many hertz instead.")] = 0.0,
    heard: Annotated[Path | None, Option(help="ue: keep what is heard in this directory.")] = None,
    answer_after: Annotated[int, Option(min=0, help="ue: seconds of ringing.")] = 0,
    decline: Annotated[bool, Option("--decline", help="ue: decline every call.")] = False,
    lab: Lab = False,
) -> None:
    """One agent on Kafka and Redis, until SIGTERM: it finishes its batch, commits and leaves.

    Any number of processes may run the same role; a UE host runs once. Settings: see `otway doctor`.
    """
    settings = read_settings(os.environ)
    profile = settings.admitted(lab=lab)
    logs.configure(settings.log, profile)
    if profile.lab_only:
        structlog.get_logger().warning("literal profile", means="it shows attacks and protects nothing")
    if role != "ue":
        _served(run_network(role, settings, profile, clock=clock, random=random))
        return
    devices = tuple(device for device in read_users(users) if device.host == host)
    if not devices:
        raise UsersBroken(f"{users}: no device on the UE host {host!r}; choose one with --host")
    _make(heard)
    sound = read_sound(wav) if wav else tone(hertz, 600.0) if hertz else callee_sample()
    _served(
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


@app.command()
def call(
    caller: Annotated[str, Argument(help="Who calls: a name, an identity or an IMPI of the users file.")],
    callee: Annotated[str, Argument(help="Who is called.")],
    *,
    users: Users = Path("users.toml"),
    wav: Wav = None,
    seconds: Annotated[float | None, Option(min=0.0, help="How long to talk; as long as the sound.")] = None,
    out: Annotated[Path | None, Option(help="Keep heard.wav, ladder.txt and call.json here.")] = None,
    suite: SealSuite = Seals.AES_256_GCM,
    lab: Lab = False,
    as_json: Json = False,
) -> None:
    """A call on Kafka and Redis: the caller's handset is this process, the callee's is an `otway run ue`.

    Exit code 0: the call was up and both ends confirmed it.
    """
    _make(out)
    settings = read_settings(os.environ)
    profile = settings.admitted(lab=lab)
    logs.configure(settings.log, profile, quiet=True)
    devices = read_users(users)
    sound = read_sound(wav) if wav else caller_sample()
    wish = CallWish(
        caller=find(devices, caller),
        callee=find(devices, callee),
        sound=sound,
        seconds=sound.size / SAMPLE_HZ if seconds is None else seconds,
        suite=Suite[suite.name],
    )
    lines: list[str] = []

    def show(line: str) -> None:
        lines.append(line)
        if not as_json:
            typer.echo(line)

    phone = Softphone(wish, settings, profile, clock=clock, random=random, show=show)
    outcome = asyncio.run(phone.run())
    for identity, media in outcome.statistics.items():
        show(
            f"{identity}: {media.sent} packets sent, {media.received} received, {media.lost} lost, "
            f"{media.refused} refused, jitter {media.jitter_ms:.1f} ms"
        )
    heard = phone.heard[-1] if phone.heard else None
    if heard is not None:
        show(f"what {caller} heard is {likeness(heard, callee_sample()):.2f} like the built-in sample")
    show(f"call {outcome.call[:4]} came up after {outcome.set_up_ms:.0f} ms and ended: {outcome.ended}")
    if out is not None:
        (out / "ladder.txt").write_text("\n".join(lines) + "\n")
        (out / "call.json").write_bytes(msgspec.json.format(msgspec.json.encode(outcome)) + b"\n")
        if heard is not None:
            write_wav(out / "heard.wav", heard)
    if as_json:
        typer.echo(msgspec.json.encode(outcome))
    raise typer.Exit(0 if outcome.confirmed else 1)


@app.command()
def doctor(*, as_json: Json = False) -> None:
    """Looks at settings, broker, topics, key file, store and clock, and says what to do.

    Exit code 0: an agent could run here.
    """
    settings = read_settings(os.environ)
    logs.configure(settings.log, HARDENED, quiet=True)
    if not as_json:
        for name, value in settings.rows():
            typer.echo(f"  {name:26}{value}")

    async def examined() -> bool:
        well = True
        async for finding in examine(settings, random):
            well = well and finding.advice is None
            if as_json:
                typer.echo(msgspec.json.encode(finding))
            else:
                typer.echo(f"{'ok  ' if finding.advice is None else 'BAD '}{finding.about:12}{finding.found}")
                if finding.advice is not None:
                    typer.echo(f"    {'':12}do: {finding.advice}")
        return well

    raise typer.Exit(0 if asyncio.run(examined()) else 1)


@app.command()
def sim(
    *,
    seeds: Annotated[int, Option(min=1, help="How many runs.")] = 1000,
    first: Annotated[int, Option(min=0, help="The first seed.")] = 0,
    seed: Annotated[int | None, Option(min=0, help="Just this one, with its story.")] = None,
    as_json: Json = False,
) -> None:
    """Whole deployments from seeds: false time and network, crashes, forgeries; then the invariants.

    Exit code 0: every run kept them. A seed that fails is printed with the command that replays it.
    """
    logs.configure("text", HARDENED, quiet=True)
    failed = simulate([seed] if seed is not None else range(first, first + seeds), story=seed is not None)
    if as_json:
        typer.echo(msgspec.json.encode(failed))
    raise typer.Exit(1 if failed else 0)


def _make(directory: Path | None) -> None:
    """A directory for what is kept, before anything is worth keeping. Raises OSError."""
    if directory is not None:
        directory.mkdir(parents=True, exist_ok=True)


def _served(serving: Coroutine[Any, Any, T]) -> T:
    """Run an agent, on uvloop where it is installed (`pip install otway[speed]`)."""
    factory = import_module("uvloop").new_event_loop if find_spec("uvloop") else None
    with asyncio.Runner(loop_factory=factory) as runner:
        return runner.run(serving)


def main() -> NoReturn:
    """The entry point: a mistake is one line on standard error and exit code 1."""
    try:
        app()
    except MISTAKES as mistake:
        typer.echo(f"otway: {mistake}", err=True)
    sys.exit(1)


if __name__ == "__main__":
    main()
