"""How often one client may ask: a decision without a clock, in bounded memory."""

MINUTE_S = 60.0
MOST_CLIENTS = 10_000
"""Clients that are remembered at once."""
ROUNDING_S = 1e-6


class RateLimit:
    """A token bucket per client: `per_minute` requests at once, then one every 60 / `per_minute` seconds.

    Of each client one number is kept, the time at which its bucket is full again (the generic cell rate algorithm
    of ITU-T I.371, with a tolerance of a minute). All times are the caller's, in seconds.
    """

    def __init__(self, per_minute: int) -> None:
        self.per_minute = per_minute
        self._interval_s = MINUTE_S / per_minute
        self._full_at: dict[str, float] = {}

    def wait_s(self, client: str, now: float) -> float:
        """How long `client` must wait until it may ask again; 0 if it may now."""
        wait = self.full_in_s(client, now) + self._interval_s - MINUTE_S
        return wait if wait > ROUNDING_S else 0.0

    def take(self, client: str, now: float) -> None:
        """Count one request."""
        self._full_at[client] = now + self.full_in_s(client, now) + self._interval_s
        if len(self._full_at) > MOST_CLIENTS:
            self._forget(now)

    def remaining(self, client: str, now: float) -> int:
        """How many requests `client` may make at once."""
        return max(0, int((MINUTE_S - self.full_in_s(client, now) + ROUNDING_S) / self._interval_s))

    def full_in_s(self, client: str, now: float) -> float:
        """How long until `client` may make `per_minute` requests at once."""
        return max(0.0, self._full_at.get(client, now) - now)

    def _forget(self, now: float) -> None:
        """Forget those who have nothing to wait for, and if need be those who have least: never who is at the limit
        for who is not."""
        waiting = sorted((at, client) for client, at in self._full_at.items() if at > now)
        self._full_at = {client: at for at, client in waiting[-MOST_CLIENTS // 2 :]}
