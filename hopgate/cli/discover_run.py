"""What `hopgate discover` does: loads the kernel's programs, watches, and shows what there is."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Final

import click

from hopgate.cli import discover_view as view
from hopgate.cli import output
from sensor import clock, programs, shadow_agents
from sensor import data as known
from sensor.classify import SightingClass
from sensor.kernel import Kernel, KernelError
from sensor.providers import ProvidersError
from sensor.sightings import Sighting
from sensor.verdict import Governance
from sensor.watch import Watch

# What weighs less is mostly a browser, or a program that loaded a library.
SHOWN_WEIGHT: Final = 30
# A person sees no difference, and a short program's /proc is read soon enough.
_TURN_SECONDS: Final = 0.05
_DRAW_SECONDS: Final = 0.25
_GATES_SECONDS: Final = 5.0
_GATES_AGAIN_SECONDS: Final = 0.05
NOT_WATCHED: Final = 3
WRONG_USAGE: Final = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """As the command line gives them. `seconds` may be infinite."""

    watch: bool
    seconds: float
    as_json: bool
    providers: Path | None
    everything: bool
    data: Path


def run(options: Options) -> int:
    """Discover until the time is over or somebody interrupts. Returns the exit code."""
    try:
        found = known.built_in() if options.providers is None else known.with_file(options.providers)
    except ProvidersError as error:
        for mistake in str(error).splitlines():
            output.line(mistake)
        click.echo(f"hopgate: the file of providers can't be taken ({error.code})\n  to mend it: {error.remedy}", err=True)
        return WRONG_USAGE
    kernel, refused = _load()
    with Watch(found, kernel) as watched, _interruption() as interrupted:
        _announce(kernel, refused, options.seconds)
        watched.discovery.govern(_governance(options.data, watched))
        watched.begin()
        shown = _Shown(watched, 0 if options.everything else SHOWN_WEIGHT)
        turns = _turns(watched, interrupted, options.seconds if kernel is not None else 0.0, options.data)
        if options.as_json:
            _json(shown, turns, watch=options.watch)
        elif sys.stdout.isatty():
            _terminal(shown, turns)
        else:
            _text(shown, turns, watch=options.watch)
        unregistered = _summarise(watched, shown)
        _file(shown, options.data)
    if kernel is None:
        return NOT_WATCHED
    return 1 if unregistered else 0


class _Shown:
    """What is worth a line."""

    def __init__(self, watched: Watch, weight: int) -> None:
        self._discovery = watched.discovery
        self._weight = weight

    def all(self) -> list[Sighting]:
        """All of them, the likeliest first."""
        return [sighting for sighting in self._discovery.sightings() if sighting.weight >= self._weight]

    def changed(self) -> list[Sighting]:
        """Those of which there is something new to say."""
        return [sighting for sighting in self._discovery.changed(clock.now_ns()) if sighting.weight >= self._weight]


def _load() -> tuple[Kernel | None, KernelError | None]:
    """The programs in the kernel, or why there are none."""
    if os.geteuid() != 0:
        return None, KernelError(f"expected root, got user {os.geteuid()}", remedy="run it as `sudo hopgate discover`")
    try:
        return programs.open(), None
    except KernelError as error:
        return None, error


def _announce(kernel: Kernel | None, refused: KernelError | None, seconds: float) -> None:
    if kernel is not None:
        until = "until interrupted" if seconds == float("inf") else f"for {seconds:g} s"
        click.echo(f"watching {until}; the kernel's programs were loaded by {kernel.loader}: {kernel.why}", err=True)
        for hook in kernel.hooks:
            if not hook.attached:
                click.echo(f"not seen: {hook.name}: {hook.reason or 'not attached'}", err=True)
    elif refused is not None:
        click.echo(f"calls are not watched: {refused} ({refused.code})", err=True)
        if refused.remedy:
            click.echo(f"  to mend it: {refused.remedy}", err=True)
        click.echo("  what still works: programs that run now, by their files and the names of their variables", err=True)


def _governance(data: Path, watched: Watch) -> Governance:
    """The agents of the gates that run here; only root may ask them."""
    if os.geteuid() != 0:
        return Governance()
    from hopgate.cli import discover_gates  # noqa: PLC0415 - takes a third of all imports, and what is watched first is not to wait for it

    return discover_gates.governance(data, watched.parents)


def _turns(watched: Watch, interrupted: Callable[[], bool], seconds: float, data: Path) -> Iterator[None]:
    """Take in what the kernel tells, turn by turn, until the time is over or somebody interrupts.

    Before a new call is told, the gates are asked whose it is: an agent may have begun a moment ago.
    """
    now = asked = time.monotonic()
    end = now + seconds
    calls = 0
    while not interrupted() and now < end:
        watched.turn(min(_TURN_SECONDS, end - now))
        now = time.monotonic()
        called = watched.discovery.counters.calls
        if now - asked >= (_GATES_SECONDS if called == calls else _GATES_AGAIN_SECONDS):
            watched.discovery.govern(_governance(data, watched))
            asked, calls = now, called
        yield


@contextmanager
def _interruption() -> Iterator[Callable[[], bool]]:
    """Whether somebody asked for the end. It ends in good order, with the table, not in the middle of a line."""
    asked: list[int] = []

    def ask(number: int, _: FrameType | None) -> None:
        asked.append(number)

    before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: bool(asked)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _file(shown: _Shown, data: Path) -> None:
    """Write down the agents that nobody registered, as what can be quarantined by name. Only root can."""
    found = [sighting for sighting in shown.all() if shadow_agents.is_told(sighting)]
    if not found or os.geteuid() != 0:
        return
    from hopgate.local import folders  # noqa: PLC0415 - as above
    from hopgate.local.errors import LocalError  # noqa: PLC0415
    from sensor.shadow_folder import ShadowFolder  # noqa: PLC0415

    try:
        folder = ShadowFolder(folders.open_data(data))
        written = [sighting for sighting in found if folder.tell(sighting)]
    except (OSError, LocalError) as error:
        click.echo(f"shadow agents are not written down: {error}", err=True)
        return
    click.echo(f"shadow agents written down in `{folder.path}`: {len(written)} of {len(found)}", err=True)


def _json(shown: _Shown, turns: Iterator[None], *, watch: bool) -> None:
    if watch:
        output.json_lines(map(view.as_json, shown.changed()))
    for _ in turns:
        if watch:
            output.json_lines(map(view.as_json, shown.changed()))
    if not watch:
        output.json_lines(map(view.as_json, shown.all()))


def _text(shown: _Shown, turns: Iterator[None], *, watch: bool) -> None:
    for _ in turns:
        if watch:
            for sighting in shown.changed():
                output.line(view.line(sighting))
    found = shown.all()
    if found and not watch:
        output.table(*view.headings_and_rows(found))
    elif watch:
        for sighting in shown.changed():
            output.line(view.line(sighting))


def _terminal(shown: _Shown, turns: Iterator[None]) -> None:
    """A table that is drawn anew as things are seen, and stays at the end."""
    from rich.console import Console, Group  # noqa: PLC0415 - for a terminal only
    from rich.live import Live  # noqa: PLC0415
    from rich.spinner import Spinner  # noqa: PLC0415

    console = Console()
    spinner = Spinner("dots", text="watching; Ctrl-C ends it")
    with Live(console=console, transient=True, auto_refresh=False) as live:
        drawn = float("-inf")
        for _ in turns:
            now = time.monotonic()
            if now - drawn >= _DRAW_SECONDS:
                live.update(Group(view.table(shown.all(), console.width), spinner), refresh=True)
                drawn = now
    found = shown.all()
    if found:
        console.print(view.table(found, console.width))


def _summarise(watched: Watch, shown: _Shown) -> int:
    """Say on standard error what was found and what was not seen; how many are agents that nobody registered."""
    unregistered = sum(sighting.kind in {SightingClass.SHADOW, SightingClass.UNATTRIBUTABLE} for sighting in shown.all())
    counters = watched.discovery.counters
    missed = {
        "programs that may not be read": watched.unreadable,
        "events that the kernel had no room for": watched.lost(),
        "handshakes that did not come whole": watched.unfinished(),
        "programs of calls, gone before they could be read": counters.unread,
        "programs that there was no room for": counters.evicted,
    }
    click.echo(
        f"running programs looked at: {watched.examined}; calls seen: {counters.calls}; agents that nobody registered: {unregistered}",
        err=True,
    )
    for what, count in missed.items():
        if count:
            click.echo(f"not seen: {what}: {count}", err=True)
    if watched.unlisted:
        click.echo(f"not seen: connections that were open before: {watched.unlisted}", err=True)
    return unregistered
