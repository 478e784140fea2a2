"""Text that is nothing but content."""

from typing import Protocol

from api.parsers.parts import Content, Part


class Reader(Protocol):
    """Makes parts of the text of one choice; what they say does not depend on where the text is cut."""

    @property
    def held(self) -> int:
        """Characters that were fed and that no part tells of yet."""
        ...

    @property
    def thinking(self) -> bool:
        """Whether text fed now would be thinking."""
        ...

    def feed(self, text: str) -> list[Part]:
        """Take more text; return what is certain now."""
        ...

    def finish(self) -> list[Part]:
        """There is no more text: return all that was held back."""
        ...

    def stop_thinking(self) -> None:
        """What thinking follows is content."""
        ...


class PlainReader:
    """A Reader that finds neither thinking nor calls."""

    held = 0
    thinking = False

    def feed(self, text: str) -> list[Part]:
        return [Content(text)] if text else []

    def finish(self) -> list[Part]:
        return []

    def stop_thinking(self) -> None:
        pass
