"""Finds stop strings in text that comes in pieces, and holds back what may be the beginning of one."""

from collections.abc import Sequence


class StopStrings:
    """Lets text through up to the stop string that is complete first; of those complete at once, the longest.

    What comes out does not depend on where the text is cut into pieces. Each stop string is followed with the
    automaton of Knuth, Morris and Pratt (SIAM J. Comput. 6, 1977), so the work per character is constant.
    """

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops = [(stop, _fallbacks(stop)) for stop in stops]
        self._matched = [0] * len(stops)
        self._held = ""
        self.found: str | None = None
        """The stop string that is complete; nothing is let through any more."""

    @property
    def held(self) -> int:
        """How many characters are held back."""
        return len(self._held)

    def feed(self, text: str) -> str:
        """Take more text; return what is certainly before any stop string."""
        if self.found:
            return ""
        held = self._held + text
        for end, character in enumerate(text, start=len(self._held) + 1):
            if length := self._advance(character):
                self.found, self._held = held[end - length : end], ""
                return held[: end - length]
        safe = len(held) - max(self._matched, default=0)
        self._held = held[safe:]
        return held[:safe]

    def release(self) -> str:
        """The text ends here, or something else comes between: return what was held back, which is no stop string."""
        rest, self._held = self._held, ""
        self._matched = [0] * len(self._stops)
        return rest

    def _advance(self, character: str) -> int:
        """Follow every stop string by one character; return the length of the longest that is now complete, or 0."""
        complete = 0
        for index, (stop, fallbacks) in enumerate(self._stops):
            matched = self._matched[index]
            while matched and stop[matched] != character:
                matched = fallbacks[matched]
            matched += stop[matched] == character
            self._matched[index] = matched
            if matched == len(stop):
                complete = max(complete, matched)
        return complete


def _fallbacks(stop: str) -> list[int]:
    """For each n, the longest proper prefix of `stop` that `stop[:n]` ends with."""
    table = [0, 0]
    for character in stop[1:]:
        matched = table[-1]
        while matched and stop[matched] != character:
            matched = table[matched]
        table.append(matched + (stop[matched] == character))
    return table
