"""Puts the dashboard together: the feed, the keys, the signals and the screen, on whatever event loop there is."""

import signal
import sys
import time
from contextlib import suppress
from dataclasses import replace

import anyio
import anyio.abc
from rich.console import Console

from api.dashboard import feed, keys
from api.dashboard.feed import Lost, News, Server
from api.dashboard.model import Figures, Model
from api.dashboard.screen import Screen, is_screen, text_of
from api.dashboard.ui import CancelRequest, Quit, Suspend, Ui, press
from api.dashboard.view import Link, picture


async def show(server: Server, console: Console, watched: int | None = None) -> None:
    """Show the dashboard until it is quit, or told to end by a signal.

    Args:
        watched: a pipe whose other end lives as long as the dashboard is to live, or None.
    """
    on_screen = is_screen(console)
    keyboard = sys.stdin.fileno() if on_screen and sys.stdin.isatty() else None
    async with anyio.create_task_group() as group:
        group.start_soon(_end_on_signal, group.cancel_scope)
        if watched is not None:
            group.start_soon(_end_with, watched, group.cancel_scope)
        if on_screen:
            await Dashboard(server, Screen(console, keyboard)).run(keyboard)
        else:
            await Printer(server, console).run()
        group.cancel_scope.cancel()


async def _end_on_signal(scope: anyio.CancelScope) -> None:
    with anyio.open_signal_receiver(signal.SIGTERM, signal.SIGINT, signal.SIGHUP) as signals:
        async for _ in signals:
            scope.cancel()


async def _end_with(watched: int, scope: anyio.CancelScope) -> None:
    """Nothing is ever written to the pipe: it can be read when its other end is closed."""
    await anyio.wait_readable(watched)
    scope.cancel()


class Dashboard:
    """The picture on a screen, and what its keys do."""

    def __init__(self, server: Server, screen: Screen) -> None:
        self._server = server
        self._screen = screen
        self._model = Model(server.interval_s)
        self._latest: Figures | None = None
        self._frozen: Figures | None = None
        """What is shown while it is paused."""
        self._ui = Ui()
        self._lost: Lost | None = None
        self._lost_at = 0.0
        self._changed = anyio.Event()
        self._ended = False
        self._tasks: anyio.abc.TaskGroup | None = None

    async def run(self, keyboard: int | None) -> None:
        """Show it until somebody quits."""
        with self._screen.taken():
            async with anyio.create_task_group() as self._tasks:
                self._tasks.start_soon(feed.follow, self._server, self.hear)
                self._tasks.start_soon(self._heed_resizing)
                self._tasks.start_soon(self._count_seconds)
                if keyboard is not None:
                    self._tasks.start_soon(self._heed_keys, keyboard)
                while not self._ended:
                    self._draw()
                    await self._changed.wait()
                    self._changed = anyio.Event()
                self._tasks.cancel_scope.cancel()

    def hear(self, news: News) -> None:
        """Take what the feed says."""
        if isinstance(news, Lost):
            self._lost_at = self._lost_at if self._lost else time.monotonic()
            self._lost = news
        else:
            self._lost, self._latest = None, self._model.take(news)
        self._changed.set()

    def press(self, key: str) -> None:
        """Do what a key does."""
        shown = self._shown()
        page = max(1, self._screen.size()[1] // 3)
        self._ui, wish = press(self._ui, key, shown.requests if shown else (), page)
        self._frozen = (self._frozen or self._latest) if self._ui.paused else None
        match wish:
            case Quit():
                self._ended = True
            case Suspend():
                self._screen.suspend()
            case CancelRequest(request_id) if self._tasks:
                self._tasks.start_soon(self._cancel, request_id)
        self._changed.set()

    def _shown(self) -> Figures | None:
        return self._frozen if self._ui.paused else self._latest

    def _draw(self) -> None:
        size = self._screen.size()
        silent_s = time.monotonic() - self._lost_at if self._lost else 0.0
        link = Link(self._server.url, self._lost.why if self._lost else "", silent_s)
        self._screen.draw(picture(self._shown(), self._ui, link, *size, ascii_only=_ascii_only()), size)

    async def _cancel(self, request_id: str) -> None:
        self._ui = replace(self._ui, said=await feed.cancel(self._server, request_id))
        self._changed.set()

    async def _heed_keys(self, keyboard: int) -> None:
        await keys.listen(keyboard, self.press)
        self._ended = True
        self._changed.set()

    async def _heed_resizing(self) -> None:
        with anyio.open_signal_receiver(signal.SIGWINCH) as signals:
            async for _ in signals:
                self._changed.set()

    async def _count_seconds(self) -> None:
        """While there is no connection nothing else makes the picture change."""
        while True:
            await anyio.sleep(1.0)
            if self._lost:
                self._changed.set()


class Printer:
    """Pictures as plain text, one below the other, where they cannot be drawn over one another."""

    def __init__(self, server: Server, console: Console) -> None:
        self._server = server
        self._console = console
        self._model = Model(server.interval_s)
        self._lost = ""

    async def run(self) -> None:
        """Print one picture per snapshot, and each reason for which there is none once; return when nobody reads."""
        with suppress(BrokenPipeError):
            await feed.follow(self._server, self._hear)

    def _hear(self, news: News) -> None:
        if isinstance(news, Lost):
            if news.why != self._lost:
                print(f"not connected, trying again: {news.why} ({self._server.url})\n", flush=True)
            self._lost = news.why
        else:
            self._lost = ""
            print(self._text(self._model.take(news)) + "\n", flush=True)

    def _text(self, figures: Figures) -> str:
        """Without the last line, which is of keys."""
        width, height = self._console.size
        block = picture(figures, Ui(), Link(self._server.url), width, height, ascii_only=_ascii_only())
        return text_of(block[:-1]).rstrip()


def _ascii_only() -> bool:
    return not (sys.stdout.encoding or "").lower().startswith("utf")
