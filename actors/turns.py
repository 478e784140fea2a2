"""The turns at the engine: which are under way, how long they took, and how large the next one may be."""

from collections import Counter

from actors.policies.pace import Pace, after_decode, after_prefill, turn_tokens
from actors.policies.turns import Turn, next_turn


class Turns:
    """Counts turns out and in. Streams and prompts are those that somebody waits for: the pace is kept for them."""

    def __init__(self, *, prefill_chunk_tokens: int, max_gap_ratio: float) -> None:
        self._prefill_chunk_tokens = prefill_chunk_tokens
        self._max_gap_ratio = max_gap_ratio
        self._under_way: Counter[Turn] = Counter()
        self._last: Turn | None = None
        self.pace = Pace()
        self.prefill_turns = self.decode_steps = 0
        self.step_s: float | None = None
        """How long the last decode step took the engine; None before the first."""
        self.prefill_s: float | None = None
        """How long the last prefill turn took it."""
        self.prefill_tokens = 0
        """How many tokens that turn held."""

    @property
    def under_way(self) -> tuple[str, ...]:
        return tuple(sorted(self._under_way.elements()))

    def begin(self, *, prefilling: bool, decoding: bool) -> Turn | None:
        """The turn to grant now; None: there is nothing to do, or enough under way."""
        turn = next_turn(prefilling=prefilling, decoding=decoding, under_way=self._under_way, last=self._last)
        if turn:
            self._last = turn
            self._under_way[turn] += 1
        return turn

    def prefill_budget(self, *, prompts: int, streams: int) -> int:
        """How many tokens a prefill turn may hold now."""
        return turn_tokens(
            self.pace,
            prompts=prompts,
            streams=streams,
            max_gap_ratio=self._max_gap_ratio,
            most_tokens=self._prefill_chunk_tokens,
        )

    def prefilled(self, tokens: int, seconds: float, *, beside_streams: bool) -> None:
        """A prefill turn has come back; one without tokens was given back unused."""
        self._under_way[Turn.PREFILL] -= 1
        if not tokens:
            return
        self.prefill_turns += 1
        self.prefill_s, self.prefill_tokens = seconds, tokens
        if beside_streams:
            self.pace = after_prefill(self.pace, tokens, seconds)

    def decoded(self, steps: int, seconds: float, *, for_streams: bool) -> None:
        """A decode turn has come back, in which nobody's stream got on if it was not `for_streams`."""
        self._under_way[Turn.DECODE] -= 1
        if not steps:
            return
        self.decode_steps += steps
        self.step_s = seconds / steps
        if for_streams:
            self.pace = after_decode(
                self.pace,
                self.step_s,
                max_gap_ratio=self._max_gap_ratio,
                most_tokens=self._prefill_chunk_tokens,
            )
