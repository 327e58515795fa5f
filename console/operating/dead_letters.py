"""What an operator does with records that nobody could read: `otway dlq`."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import Annotated, Any, Final

import msgspec
import typer
from typer import Argument, BadParameter, Option

from console.mistakes import Mistake
from console.operating.administration import Json, operator_settings
from console.operating.showing import hex_dump, printable, said, text_or_hex, utc
from topics.bus import Outbound
from topics.catalogue import DEAD_LETTERS
from topics.dead_letters import Closed, Letter, Letters, NotReplayable, closing, original, sort_letters
from topics.kafka_admin import list_topics, read_all, sender
from topics.kafka_clients import KafkaSettings

_BATCH: Final = 200  # letters at a time: with the largest that are possible, what a broker takes in a second
_PROGRESS_S: Final = 1.0
_SHOWN_OCTETS: Final = 1024
_REASONS: Final = 10

dlq_app = typer.Typer(
    help="Dead letters: records that no agent could read, kept as they came. Each is named by the place of "
    "its original, topic/partition/offset.",
    no_args_is_help=True,
)

Ids = Annotated[list[str] | None, Argument(help="Which ones, as `otway dlq list` names them.")]
All = Annotated[bool, Option("--all", help="Every open one.")]
OfTopic = Annotated[str | None, Option(help="Only those that were sent to this topic.")]
Yes = Annotated[bool, Option("--yes", help="Do it without asking.")]


@dlq_app.command("list")
def list_(
    *,
    topic: OfTopic = None,
    limit: Annotated[int | None, Option(min=1, help="Only so many, the latest.")] = None,
    as_json: Json = False,
) -> None:
    """The open letters, the oldest first, and how many there are for each reason."""
    found = asyncio.run(_read(operator_settings().kafka_settings))
    letters = _of(found, topic)
    for letter in letters[-limit:] if limit else letters:
        typer.echo(msgspec.json.encode(_row(letter)) if as_json else _line(letter))
    if as_json:
        return
    reasons = Counter(printable(letter.reason) for letter in letters).most_common()
    told = ", ".join(f"{count} {reason}" for reason, count in reasons[:_REASONS])
    more = f", {len(reasons) - _REASONS} other reasons" if len(reasons) > _REASONS else ""
    typer.echo(f"{len(letters)} open: {told}{more}" if letters else "no open letters")
    if found.others:
        typer.echo(f"{found.others} records there are no letters, and are left alone")


@dlq_app.command("show")
def show(
    name: Annotated[str, Argument(metavar="ID", help="Which one, as `otway dlq list` names it.")],
) -> None:
    """All that is known of one letter, with its octets."""
    found = asyncio.run(_read(operator_settings().kafka_settings))
    [letter] = _named(found, [name])
    size = "none, a tombstone" if letter.value is None else str(len(letter.value))
    about = [
        ("sent to", f"{letter.topic}, partition {letter.partition}, offset {letter.offset}"),
        ("buried", f"{utc(letter.timestamp_ms / 1000)} by {letter.buried_by}"),
        ("reason", f"{letter.check}: {letter.reason}"),
        *([("not kept", f"all of its {letter.cut}")] if letter.cut else []),
        ("key", text_or_hex(letter.key)),
        *(("header", f"{name}: {text_or_hex(value)}") for name, value in letter.headers),
        ("octets", size),
        ("message", said(letter.value)),
    ]
    for label, text in about:
        typer.echo(f"{label:10}{printable(text)}")
    for line in hex_dump(letter.value or b"", _SHOWN_OCTETS):
        typer.echo(line)


@dlq_app.command("replay")
def replay(ids: Ids = None, *, every: All = False, topic: OfTopic = None, yes: Yes = False) -> None:
    """Send originals once more, to the partition that they came from, and close their letters.

    What an agent did already it does not do twice. What is garbage still is buried again, as a new letter.
    Exit code 1: some were not sent, and stay open.
    """
    _say_which(ids, every=every, topic=topic)
    settings = operator_settings().kafka_settings
    found = asyncio.run(_read(settings))
    letters = _named(found, ids) if ids else _of(found, topic)
    places = asyncio.run(_places(settings))
    sending: list[Letter] = []
    kept: Counter[str] = Counter()
    for letter in letters:
        try:
            _replayable(letter, places)
            sending.append(letter)
        except NotReplayable as error:
            kept[str(error)] += 1
    for why, count in kept.items():
        typer.echo(f"{_letters(count)} not sent: {why}", err=True)
    _carry_out(settings, sending, Closed.REPLAYED, lambda letter: [original(letter)], yes=yes)
    raise typer.Exit(1 if kept else 0)


@dlq_app.command("drop")
def drop(ids: Ids = None, *, every: All = False, topic: OfTopic = None, yes: Yes = False) -> None:
    """Close letters that nobody needs. Their originals are lost when Kafka next cleans the topic."""
    _say_which(ids, every=every, topic=topic)
    settings = operator_settings().kafka_settings
    found = asyncio.run(_read(settings))
    letters = _named(found, ids) if ids else _of(found, topic)
    _carry_out(settings, letters, Closed.DROPPED, lambda _: [], yes=yes)


def _carry_out(
    settings: KafkaSettings,
    letters: Sequence[Letter],
    how: Closed,
    sends: Callable[[Letter], list[Outbound]],
    *,
    yes: bool,
) -> None:
    """Ask, then send what is to be sent for each letter, then close it; batch by batch."""
    if not letters:
        typer.echo("no letters to close")
        return
    into = Counter(letter.topic for letter in letters)
    where = ", ".join(f"{topic} {count}" for topic, count in sorted(into.items()))
    question = {
        Closed.REPLAYED: f"Send {_letters(len(letters))} once more ({where}) and close them?",
        Closed.DROPPED: f"Drop {_letters(len(letters))} for good ({where})?",
    }[how]
    if not yes:
        typer.confirm(question, abort=True)
    in_order = sorted(letters, key=lambda letter: (letter.topic, letter.partition, letter.offset))

    async def close() -> None:
        clock = asyncio.get_running_loop().time
        tell_at = clock() + _PROGRESS_S
        async with sender(settings) as send:
            for start in range(0, len(in_order), _BATCH):
                batch = in_order[start : start + _BATCH]
                await send([record for letter in batch for record in sends(letter)])
                await send([closing(letter, how) for letter in batch])
                if clock() >= tell_at:
                    typer.echo(f"{start + len(batch)} of {len(in_order)}", err=True)
                    tell_at = clock() + _PROGRESS_S

    asyncio.run(close())
    typer.echo(f"{_letters(len(letters))} {how}")


async def _read(settings: KafkaSettings) -> Letters:
    return sort_letters([record async for record in read_all(settings, DEAD_LETTERS.name)])


async def _places(settings: KafkaSettings) -> dict[str, int]:
    """How many partitions each topic has."""
    return {state.name: state.partitions for state in await list_topics(settings)}


def _replayable(letter: Letter, partitions: dict[str, int]) -> None:
    """Raises NotReplayable."""
    original(letter)
    if letter.partition >= partitions.get(letter.topic, 0):
        raise NotReplayable(f"there is no {letter.topic}, partition {letter.partition}")


def _say_which(ids: Sequence[str] | None, *, every: bool, topic: str | None) -> None:
    """Raises BadParameter."""
    if bool(ids) == every:
        raise BadParameter("name letters by their ids, or say --all")
    if topic is not None and not every:
        raise BadParameter("--topic goes with --all")


def _named(found: Letters, ids: Iterable[str]) -> list[Letter]:
    """The letters of these ids, each once. Raises Mistake."""
    named = list(dict.fromkeys(ids))
    for each in named:
        if each not in found.open:
            closed = found.closed.get(each)
            why = f"was {closed} already" if closed else "is no dead letter: `otway dlq list` shows them"
            raise Mistake(f"{printable(each)} {why}")
    return [found.open[each] for each in named]


def _of(found: Letters, topic: str | None) -> list[Letter]:
    return [letter for letter in found.open.values() if topic in {None, letter.topic}]


def _letters(count: int) -> str:
    return f"{count} letter{'' if count == 1 else 's'}"


def _line(letter: Letter) -> str:
    size = "tombstone" if letter.value is None else f"{len(letter.value)} octets"
    told = f"{letter.buried_by:5} {letter.reason}"
    return f"{letter.id:26} {utc(letter.timestamp_ms / 1000)} {size:>13}  {printable(told)}"


def _row(letter: Letter) -> dict[str, Any]:
    return {
        "id": letter.id,
        "buried": utc(letter.timestamp_ms / 1000),
        "buried_by": letter.buried_by,
        "check": letter.check,
        "reason": letter.reason,
        "octets": None if letter.value is None else len(letter.value),
        "cut": letter.cut,
    }
