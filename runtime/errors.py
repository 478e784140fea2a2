"""The errors of the house, drawn as one small tree.

    TroupeError
    ├─ SettingsError       a flag, variable or file that cannot be used
    ├─ ModelError          a model that is missing, broken or unsupported
    ├─ EngineFault         the engine failed a command, or its host died
    ├─ MailboxOverflow     a mailbox sized from credits overflowed: a bug, so its teller crashes
    └─ RestartsExhausted   a supervisor used up its restarts

`api/errors.py` maps what a client may see of them to a status and an envelope.
"""


class TroupeError(Exception):
    """Anything Troupe raises on purpose; its text is one line for a person."""


class SettingsError(TroupeError):
    """A setting that cannot be used; the text names it and where it came from."""


class ModelError(TroupeError):
    """A model that is missing, broken or unsupported; the text says which and why."""


class EngineFault(TroupeError):
    """The engine failed a command, or its host died: the engine room must start afresh."""


class MailboxOverflow(TroupeError):
    """More mail than credits allow."""


class RestartsExhausted(TroupeError):
    """A supervisor restarted its children as often as its intensity allows, and one died again."""
