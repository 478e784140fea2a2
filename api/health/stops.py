"""Whether answers end: the ids that the server stops at, against what the chat template writes behind an answer."""

from collections.abc import Iterable, Iterator
from itertools import combinations

from api.health.check import Check, CheckStatus, Finding, together
from api.text.turn_ends import TurnEnds


def stops_check(ends: TurnEnds, vocab_size: int | None) -> Check:
    """`vocab_size` is the loaded model's: ids from there on are never produced. None: not known."""
    figures = {
        "stop_ids": sorted(ends.stop_ids),
        "tokens": {str(id): ends.names[id] for id in sorted(ends.names)},
        "named_by": {who: sorted(ids) for who, ids in ends.named.items()},
        "template_writes": dict(ends.written),
        "chat_template": ends.has_template,
    }
    ended_by = ", ".join(sorted({_token(ends, id) for id in ends.written.values() if id in ends.stop_ids}))
    fine = f"Turns end with {ended_by}, and that is where the server stops."
    return together(_findings(ends, vocab_size), fine=fine, figures=figures)


def _findings(ends: TurnEnds, vocab_size: int | None) -> Iterator[Finding]:
    if not ends.named:
        yield Finding(
            CheckStatus.ERROR,
            "The model's files name no end-of-sequence token: every answer runs to its max_tokens.",
            'write "eos_token_id" into the model\'s generation_config.json',
        )
    yield from _beyond(ends, vocab_size)
    yield from _disagreement(ends)
    yield from _template(ends)


def _beyond(ends: TurnEnds, vocab_size: int | None) -> Iterator[Finding]:
    """Ids that can never come out."""
    lost = {id for id in ends.stop_ids if id not in ends.names or (vocab_size is not None and id >= vocab_size)}
    if lost:
        all_lost = lost == ends.stop_ids
        yield Finding(
            CheckStatus.ERROR if all_lost else CheckStatus.WARNING,
            f"Of the stop ids {_listed(map(str, sorted(lost)))} {_are(lost)} not in the vocabulary"
            f"{', and there is no other: answers never end by themselves' if all_lost else ''}.",
            'correct "eos_token_id" in the model\'s config.json and generation_config.json',
        )


def _disagreement(ends: TurnEnds) -> Iterator[Finding]:
    apart = [(one, other) for one, other in combinations(ends.named, 2) if not ends.named[one] & ends.named[other]]
    if apart:
        one, other = apart[0]
        yield Finding(
            CheckStatus.WARNING,
            f"{one} ends a sequence with {_tokens(ends, ends.named[one])}, {other} with "
            f"{_tokens(ends, ends.named[other])}: the server stops at all of them, other programs may not.",
            f"have {other} name what the chat template writes",
        )


def _template(ends: TurnEnds) -> Iterator[Finding]:
    if not ends.has_template:
        yield Finding(
            CheckStatus.WARNING,
            "The model has no chat template: /v1/chat/completions, /v1/responses and /v1/messages refuse every "
            "conversation, /v1/completions works.",
            "serve a model that was made for chats, or put a chat_template.jinja into its directory",
        )
    elif not ends.written:
        why = f"refuses a conversation of three turns ({ends.refusal})" if ends.refusal else "writes nothing there"
        detail = f"What ends a turn cannot be seen: the chat template {why}."
        yield Finding(CheckStatus.UNKNOWN if ends.refusal else CheckStatus.WARNING, detail)
    elif ends.named and not ends.stop_ids & set(ends.written.values()):
        ends_with = _tokens(ends, ends.written.values())
        id = min(ends.written.values())
        yield Finding(
            CheckStatus.ERROR,
            f"The chat template ends a turn with {ends_with}, and the server stops at "
            f"{_tokens(ends, ends.stop_ids)} only: answers may run on to their max_tokens.",
            f'add {id} to "eos_token_id" in the model\'s generation_config.json',
        )


def _tokens(ends: TurnEnds, ids: Iterable[int]) -> str:
    return _listed(_token(ends, id) for id in sorted(set(ids)))


def _token(ends: TurnEnds, id: int) -> str:
    return f"{ends.names[id]} ({id})" if id in ends.names else str(id)


def _listed(words: Iterable[str]) -> str:
    return ", ".join(words)


def _are(ids: Iterable[int]) -> str:
    return "is" if len(set(ids)) == 1 else "are"
