"""How figures are written: short, with their unit, and the same everywhere on the dashboard."""

UNKNOWN = "–"


def count(value: float | None) -> str:
    """A number in at most five characters, up to 999 billion."""
    if value is None:
        return UNKNOWN
    for limit, divisor, unit in ((1e5, 1, ""), (1e6, 1e3, "k"), (1e9, 1e6, "M")):
        if abs(value) < limit:
            return f"{value / divisor:.0f}{unit}"
    return f"{value / 1e9:.0f}G"


def rate(value: float | None) -> str:
    """How often a second, or how much: one decimal where that says anything."""
    return f"{value:.1f}" if value is not None and abs(value) < 99.95 else count(value)


def size(value: float | None) -> str:
    """Bytes, in units of 1024."""
    if value is None:
        return UNKNOWN
    for unit in ("B", "KiB", "MiB"):
        if abs(value) < 1024:
            return f"{value:.0f} {unit}"
        value /= 1024
    return f"{value:.1f} GiB"


def seconds(value: float | None) -> str:
    """A span of time, no finer than anyone needs."""
    if value is None:
        return UNKNOWN
    if value < 1:
        return f"{value * 1e3:.{int(value < 0.01)}f} ms"
    if value < 60:
        return f"{value:.1f} s"
    minutes, rest = divmod(int(value), 60)
    if minutes < 60:
        return f"{minutes} min {rest:02} s"
    return f"{minutes // 60} h {minutes % 60:02} min"


def clock(value: float | None) -> str:
    """The same in at most eight characters, for columns: `4.2 s`, `1:05`, `1:02:03`."""
    if value is None or value < 60:
        return seconds(value)
    minutes, rest = divmod(int(value), 60)
    return f"{minutes}:{rest:02}" if minutes < 60 else f"{minutes // 60}:{minutes % 60:02}:{rest:02}"


def percent(fraction: float | None) -> str:
    return UNKNOWN if fraction is None else f"{fraction * 100:.0f} %"


def short_id(request_id: str, length: int = 20) -> str:
    """A request's id such as `chatcmpl-` and 24 digits and `-0`: its dialect, its first digits and its choice."""
    dialect, _, rest = request_id.partition("-")
    digits, _, choice = rest.rpartition("-")
    if len(digits) > 8:
        request_id = f"{dialect}-{digits[:8]}-{choice}"
    return request_id if len(request_id) <= length else f"{request_id[: length - 1]}…"


def several(number: int, one: str, many: str = "") -> str:
    """`1 row`, `2 rows`."""
    return f"{count(number)} {one if number == 1 else many or one + 's'}"
