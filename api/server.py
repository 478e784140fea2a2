"""Opens the house and the HTTP server before it, and closes them in order."""

import gc
import logging
import os
import signal
import socket
import time
from functools import partial

import anyio
import anyio.abc
import hypercorn.asyncio
import hypercorn.trio
from hypercorn.config import Config
from quart import Quart
from quart_trio import QuartTrio

from actors.supervisor import root_cause
from actors.system import House
from api.app import create_app
from api.context import ApiContext
from api.dashboard import attached
from api.probes import probe_prompts
from api.text.codec import HfCodec
from runtime.engine import blas
from runtime.engine.hosts import make_host
from runtime.errors import SettingsError, TroupeError
from runtime.log import say
from runtime.models.resolve import ModelFiles
from runtime.service_manager import tell
from runtime.settings import Settings

log = logging.getLogger("troupe.server")

LAST_REPLIES_S = 3.0
"""How long replies that are still on their way to clients have once the house is empty."""
CLOSING_S = LAST_REPLIES_S + 2.0
"""How long the HTTP server has to close."""

HEADER_S = 15.0
"""From one reply to the end of the next request's head: longer than clients keep a connection that they do not use
(httpx 5 s, undici 4 s), so that none writes into one that is being closed."""
HEADER_BYTES = 1 << 14


async def serve(settings: Settings, files: ModelFiles) -> None:
    """Serve the model until told to stop by SIGTERM or SIGINT: then let nobody in, let open requests end within
    `drain_timeout`, and return. A second signal ends the process at once.

    Raises:
        TroupeError: the house could not open, or had to close.
    """
    listener = listen(settings)
    house = House(settings, partial(make_host, settings, files.path))
    codec = HfCodec(files.path, trust_remote_code=settings.trust_remote_code)
    app = create_app(
        ApiContext(
            settings=settings,
            desk=house,
            codec=codec,
            model_id=files.model_id,
            created=int(time.time()),
            model_dir=files.path,
        ),
        app_class=QuartTrio if settings.event_loop == "trio" else Quart,
    )
    stop = anyio.Event()
    failures: list[Exception] = []
    async with anyio.create_task_group() as outside:
        outside.start_soon(_obey_signals, house, stop, settings.drain_timeout)
        if settings.dashboard:
            outside.start_soon(attached.keep, listener, settings, partial(_is_draining, house))
        outside.start_soon(_say_when_ready, house, files.model_id, settings, listener)
        if settings.batch_divergence_monitor:
            outside.start_soon(_probe, house, codec)
        # In a task of its own: Hypercorn's asyncio worker can leave its task half cancelled when it shuts down.
        closed = anyio.Event()
        outside.start_soon(_serve_http, app, listener, settings, stop, closed)
        async with anyio.create_task_group() as inside:
            inside.start_soon(_keep_open, house, stop, failures)
            await stop.wait()
            with anyio.move_on_after(CLOSING_S):
                await closed.wait()
            inside.cancel_scope.cancel()
        if not closed.is_set():
            _leave_at_once(failures)
        outside.cancel_scope.cancel()
    for failure in failures:
        raise failure


def _leave_at_once(failures: list[Exception]) -> None:
    """End the process: Hypercorn waits for a client that does not read, on trio even if it is cancelled."""
    log.warning("clients that do not read their replies are left")
    for failure in failures:
        say(f"troupe: {failure}", logging.ERROR)
    os._exit(1 if failures else 0)


async def _serve_http(
    app: Quart, listener: socket.socket, settings: Settings, stop: anyio.Event, closed: anyio.Event
) -> None:
    async def stopped() -> None:
        await stop.wait()

    worker = hypercorn.trio.serve if settings.event_loop == "trio" else hypercorn.asyncio.serve
    await worker(app, http_config(listener), shutdown_trigger=stopped, mode="asgi")
    closed.set()


def http_config(listener: socket.socket) -> Config:
    """How Hypercorn is to serve: a client has HEADER_S and about HEADER_BYTES for the head of each request, and one
    that is slower is left, one that says more gets a 431."""
    config = Config()
    config.bind = [f"fd://{listener.fileno()}"]
    config.graceful_timeout = LAST_REPLIES_S
    config.keep_alive_timeout = HEADER_S  # Counted from the last reply, whatever arrives meanwhile.
    config.h11_max_incomplete_size = HEADER_BYTES
    config.h2_max_header_list_size = HEADER_BYTES
    config.errorlog = logging.getLogger("hypercorn.error")
    config.errorlog.setLevel(logging.WARNING)  # Where it listens is said once, when requests can be answered.
    return config


async def _keep_open(house: House, stop: anyio.Event, failures: list[Exception]) -> None:
    """Run the house; should it fall, stop the server in order, so that last words still reach their clients."""
    try:
        await house.run()
    except Exception as error:
        cause = root_cause(error)
        failures.append(cause if isinstance(cause, TroupeError) else error)
        stop.set()


async def _say_when_ready(house: House, model_id: str, settings: Settings, listener: socket.socket) -> None:
    await house.opened()
    # What is here now stays: looking it through for garbage again and again would hold every stream up.
    gc.collect()
    gc.freeze()
    if (found := blas.find(os.environ.get("LD_PRELOAD", ""))) and settings.engine == "process":
        log.info(found.said)
    _warn_of_a_long_context(settings, house)
    host, port = listener.getsockname()[:2]
    where = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    say(f"Troupe serves {model_id} at http://{where}/v1")
    tell("READY=1")


async def _probe(house: House, codec: HfCodec) -> None:
    await house.opened()
    house.probe_with(await probe_prompts(codec))


def _warn_of_a_long_context(settings: Settings, house: House) -> None:
    chosen, facts = settings.effective_context_tokens, house.facts()
    if chosen and facts and chosen > facts.declared_context_tokens:
        log.warning(
            "--effective-context-tokens %d is more than the %d the model was made for: long answers may lose their way",
            chosen,
            facts.declared_context_tokens,
        )


async def _obey_signals(house: House, stop: anyio.Event, drain_timeout: float) -> None:
    async def close() -> None:
        await house.drain(drain_timeout)
        stop.set()

    async with anyio.create_task_group() as group:
        with anyio.open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
            draining = False
            async for number in signals:
                if draining:
                    os._exit(128 + number)
                tell("STOPPING=1")
                log.info("draining: open requests have %g s to end", drain_timeout)
                draining = True
                group.start_soon(close)


def _is_draining(house: House) -> bool:
    admitter = house.snapshot().admitter
    return admitter is not None and admitter.draining


def listen(settings: Settings) -> socket.socket:
    """The server's listening socket.

    Raises:
        SettingsError: it cannot be had; the text says why.
    """
    host = "127.0.0.1" if settings.localhost else settings.host
    if not settings.api_key and host not in ("127.0.0.1", "localhost", "::1"):
        log.warning("listening on %s without --api-key: everyone who reaches this machine can use the model", host)
    try:
        family = socket.getaddrinfo(host, settings.port, type=socket.SOCK_STREAM)[0][0]
        return socket.create_server((host, settings.port), family=family, backlog=512)
    except (OSError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise SettingsError(f"cannot listen on {host}:{settings.port}: {reason}") from None
