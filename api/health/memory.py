"""How near the machine is to running out of memory, and what the server does about it."""

from actors.snapshots import MonitorSnapshot
from api.health.check import Check, CheckStatus
from runtime.settings import Settings
from runtime.types import MemoryAction, MemoryUsage, PressureLevel

_DONE = {
    MemoryAction.WARN: "new requests are served all the same",
    MemoryAction.REDUCE_CONTEXT: "new requests may have half of their output only",
    MemoryAction.REJECT_NEW: "new requests are refused with 503",
}
_STATUSES = {
    PressureLevel.NORMAL: CheckStatus.OK,
    PressureLevel.WARN: CheckStatus.WARNING,
    PressureLevel.LIMIT: CheckStatus.ERROR,
}
_MEND = "end other programs, or --kv-memory-mb, --kv-bits 8 or a smaller model"


def memory_check(monitor: MonitorSnapshot | None, settings: Settings) -> Check:
    """`monitor` is None while no MemoryMonitor lives."""
    usage = monitor.usage if monitor else None
    figures: dict[str, object] = {
        "level": monitor.level.value if monitor and usage else None,
        "used_percent": round(usage.system_used_fraction * 100, 1) if usage else None,
        "engine_resident_gb": round(usage.resident_bytes / 1e9, 3) if usage else None,
        "total_gb": round(usage.system_total_bytes / 1e9, 3) if usage else None,
        "warn_percent": settings.memory_warn_threshold,
        "limit_percent": settings.memory_limit_threshold,
        "action": settings.memory_action.value,
    }
    if monitor is None or usage is None:
        return Check(CheckStatus.UNKNOWN, "The memory has not been measured yet.", None, figures)
    mend = _MEND if monitor.level is not PressureLevel.NORMAL else None
    return Check(_STATUSES[monitor.level], _detail(monitor.level, usage, settings), mend, figures)


def _detail(level: PressureLevel, usage: MemoryUsage, settings: Settings) -> str:
    """The level stays until use is two percent below the threshold, so it says more than the figure does."""
    used = f"{usage.system_used_fraction:.0%} of the machine's memory is in use"
    match level:
        case PressureLevel.NORMAL:
            return f"{used}, below {settings.memory_warn_threshold:g} %."
        case PressureLevel.WARN:
            limit = settings.memory_limit_threshold
            return f"{used}: the prefix cache keeps half of what it may. The limit is {limit:g} %."
        case PressureLevel.LIMIT:
            done = _DONE[settings.memory_action]
            return f"{used}, at the limit: the prefix cache keeps nothing, and {done} (--memory-action)."
