"""Is there room here: memory, disk, files, the port, and what is preloaded."""

import os
import resource
import shutil
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil

from api.doctor.finding import Finding, State
from api.doctor.running import RunningServer, ask
from runtime.models.home import home
from runtime.settings import Settings

DEFAULT_MODEL_BYTES = 400_000_000
"""What fetching and converting the default model needs on the way."""

SPARE_FILES = 64
"""Files that a server has open beside its connections."""


@dataclass(frozen=True, slots=True)
class Machine:
    """What was found of the machine; sizes in bytes."""

    cores: int
    memory: int
    available: int
    container_limit: int | None
    """Of the control group that this process is in; None without one."""
    home: str
    home_free: int
    has_default: bool
    """Whether the default model is there already."""
    open_files: int
    """How many this process may have."""
    preload: str
    """LD_PRELOAD."""
    preload_missing: tuple[str, ...]
    """Files that it names and that are not there."""
    port_taken: bool
    on_port: RunningServer | None
    """The Troupe server that answers there."""


def look(settings: Settings, *, has_default: bool) -> Machine:
    """What is found here now."""
    memory, where = psutil.virtual_memory(), home()
    existing = next(place for place in (where, *where.parents) if place.exists())
    preload = os.environ.get("LD_PRELOAD", "")
    paths = [name for name in preload.replace(":", " ").split() if "/" in name]
    host = "127.0.0.1" if settings.localhost else settings.host
    taken = _is_taken(host, settings.port)
    return Machine(
        cores=os.cpu_count() or 1,
        memory=memory.total,
        available=memory.available,
        container_limit=_container_limit(),
        home=str(where),
        home_free=shutil.disk_usage(existing).free,
        has_default=has_default,
        open_files=resource.getrlimit(resource.RLIMIT_NOFILE)[0],
        preload=preload,
        preload_missing=tuple(name for name in paths if not Path(name).exists()),
        port_taken=taken,
        on_port=ask(f"http://{_in_url(host)}:{settings.port}", None, timeout_s=1) if taken else None,
    )


def _is_taken(host: str, port: int) -> bool:
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        socket.create_server((host, port), family=family).close()
    except (OSError, UnicodeError):  # The latter of a host that cannot be a name.
        return True
    return False


def _in_url(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _container_limit() -> int | None:
    """Control groups of version 2; `max` is none."""
    try:
        return int(Path("/sys/fs/cgroup/memory.max").read_text(encoding="ascii"))
    except (OSError, ValueError):
        return None


def room(machine: Machine, settings: Settings) -> Iterator[Finding]:
    """What of it is as a server needs it."""
    sizes = f"{_gb(machine.memory)} of memory, {_gb(machine.available)} of it free, {machine.cores} cores"
    yield Finding(State.OK, "machine", sizes)
    yield from _container(machine, settings)
    yield _disk(machine)
    yield _files(machine, settings)
    yield _port(machine, settings)
    for name in machine.preload_missing:
        yield Finding(State.BROKEN, "LD_PRELOAD", f"names {name}, which is not there", "unset LD_PRELOAD")
    if machine.preload and not machine.preload_missing:
        yield Finding(State.OK, "LD_PRELOAD", machine.preload)


def _container(machine: Machine, settings: Settings) -> Iterator[Finding]:
    limit = machine.container_limit
    if limit is not None and limit < machine.memory:
        detail = f"it may have {_gb(limit)} of memory, and the server takes it for {_gb(machine.memory)}"
        if settings.kv_memory_mb is None:
            yield Finding(State.MISSING, "container", detail, f"--kv-memory-mb {limit // 4 >> 20}, for one")
        else:
            yield Finding(State.OK, "container", f"{detail}; --kv-memory-mb is {settings.kv_memory_mb}")


def _disk(machine: Machine) -> Finding:
    detail = f"{_gb(machine.home_free)} free in {machine.home}"
    if machine.home_free < DEFAULT_MODEL_BYTES and not machine.has_default:
        needed = f"the default model needs {_gb(DEFAULT_MODEL_BYTES)}"
        return Finding(State.BROKEN, "disk", f"{detail}, and {needed}", "TROUPE_HOME=DIR on a disk with room")
    return Finding(State.OK, "disk", detail)


def _files(machine: Machine, settings: Settings) -> Finding:
    """Each open request has a connection, and so has each client that waits for the next one."""
    wanted, detail = settings.credits + SPARE_FILES, f"{machine.open_files} may be open at once"
    if 0 <= machine.open_files < wanted:
        served = f"{settings.credits} requests want {wanted}"
        return Finding(State.BROKEN, "open files", f"{detail}, and {served}", f"ulimit -n {max(1024, 2 * wanted)}")
    return Finding(State.OK, "open files", detail if machine.open_files >= 0 else "as many as there are")


def _port(machine: Machine, settings: Settings) -> Finding:
    where = f"{settings.port or 'any'} on {'127.0.0.1' if settings.localhost else settings.host}"
    if machine.on_port:
        return Finding(State.OK, "port", f"{where} is Troupe's already: it serves {machine.on_port.model}")
    if machine.port_taken:
        return Finding(State.BROKEN, "port", f"{where} cannot be listened on", f"--port {settings.port + 1}")
    return Finding(State.OK, "port", f"{where} is free")


def _gb(nbytes: int) -> str:
    return f"{nbytes / 1e9:.1f} GB"
