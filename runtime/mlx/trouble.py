"""Trouble that lasts is one line in the log, not one for each file."""

import logging

log = logging.getLogger("troupe.engine")


class Trouble:
    """Of one kind: said when it begins, and not again until it has been over."""

    def __init__(self, complaint: str) -> None:
        """`complaint` begins the line."""
        self._complaint = complaint
        self._lasts = False

    def met(self, error: Exception) -> None:
        if not self._lasts:
            log.warning("%s: %s", self._complaint, str(error) or type(error).__name__)
        self._lasts = True

    def over(self) -> None:
        self._lasts = False
