"""What is behind the names of tokens: how a vocabulary writes bytes as text, and how its decoder puts them together."""

import re

import orjson
from tokenizers import Tokenizer


def decoder_types(backend: Tokenizer) -> set[str]:
    """The kinds of step that tokens go through to become text, by tokenizer.json's names."""
    if backend.decoder is None:
        return set()
    state = orjson.loads(backend.decoder.__getstate__())
    return {step["type"] for step in state.get("decoders", [state])}


def byte_ids(backend: Tokenizer) -> dict[int, bytes]:
    """The ids that stand for one byte each, by their names `<0x00>` to `<0xFF>`."""
    vocabulary = backend.get_vocab(with_added_tokens=True)
    return {
        id: bytes([int(token[3:5], 16)]) for token, id in vocabulary.items() if re.fullmatch("<0x[0-9A-F]{2}>", token)
    }


def control_tokens(backend: Tokenizer, chat_template: str) -> tuple[dict[str, int], dict[str, int]]:
    """The tokens that carry a prompt's structure, with their ids: special ones, and the tags around parts of messages.

    An added token that is not special is such a tag if the chat template writes it, or if it is spelt like one.
    Others are ordinary text that a vocabulary has whole: indentation, or Gemma's HTML (`<table>`). They, and tokens of
    one character, are left as they are.
    """
    special: dict[str, int] = {}
    tags: dict[str, int] = {}
    for id, token in backend.get_added_tokens_decoder().items():
        if len(token.content.strip()) < 2:
            continue
        if token.special:
            special[token.content] = id
        elif token.content in chat_template or _TAG.fullmatch(token.content):
            tags[token.content] = id
    return special, tags


_TAG = re.compile(r"<[|｜].*[|｜]>|</?(?:think|tool)\w*>", re.DOTALL)


def byte_level_bytes(token: str) -> bytes:
    """A byte-level token writes each byte as one character; an added token may be written as it is."""
    try:
        return bytes(_BYTE_OF[character] for character in token)
    except KeyError:
        return token.encode()


def _byte_alphabet() -> dict[str, int]:
    """GPT-2's way of writing bytes: those that print stand for themselves, the others for U+0100 and up, in order."""
    printing = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [byte for byte in range(256) if byte not in printing]
    return {chr(byte): byte for byte in printing} | {chr(0x100 + index): byte for index, byte in enumerate(others)}


_BYTE_OF = _byte_alphabet()
