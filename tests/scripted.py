"""Makes small real models that speak written lines, so that agents can be run against the real server."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from itertools import pairwise
from pathlib import Path

import mlx.core as mx
import numpy as np
from tokenizers import AddedToken, Tokenizer, pre_tokenizers

from tests.tiny import END_OF_TEXT, IM_END, IM_START, make_tiny_llama, make_tokenizer

CONTEXT_TOKENS = 200_000
"""Agents send 20 to 60 thousand of this model's tokens before the user says a word."""

HIDDEN = 64


@dataclass(frozen=True, slots=True)
class Lines:
    """What the model says, by what the prompt holds."""

    call: str
    """Tools, and no tool has answered yet."""
    answer: str
    """Tools, and a tool has answered."""
    plain: str
    """No tools: agents ask for titles and summaries on the side."""


CUES = {field.name: f"<|{field.name}|>" for field in fields(Lines)}
"""The special token that ends the prompt and makes the model say a line."""

CHAT_TEMPLATE = (
    "{% if tools %}<|im_start|>system\n# Tools\n\n<tools>\n{% for tool in tools %}{{ tool | tojson }}\n{% endfor %}"
    "</tools>\n\nFor each function call, return a JSON object with its name and arguments within "
    "<tool_call></tool_call> tags.<|im_end|>\n{% endif %}"
    "{% for message in messages %}"
    "{% if message['role'] == 'tool' %}<|im_start|>user\n<tool_response>\n{{ message['content'] }}\n</tool_response>"
    "{% else %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}"
    "{% for call in message['tool_calls'] or [] %}\n<tool_call>\n"
    "{\"name\": \"{{ call['function']['name'] }}\", \"arguments\": {{ call['function']['arguments'] | tojson }}}"
    "\n</tool_call>{% endfor %}"
    "{% endif %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n"
    "{% if not tools %}<|plain|>"
    "{% elif messages | selectattr('role', 'equalto', 'tool') | list %}<|answer|>"
    "{% else %}<|call|>{% endif %}{% endif %}"
)
"""Hermes' format, as Qwen 2.5's template has it, with a cue at the end."""


def hermes_call(name: str, arguments: dict[str, object]) -> str:
    """How a model that was trained on Hermes' format calls a tool."""
    return f"<tool_call>\n{json.dumps({'name': name, 'arguments': arguments})}\n</tool_call>"


def make_scripted_llama(path: Path, lines: Lines) -> Path:
    """Write an mlx-lm model directory to `path` (made if need be) and return it.

    The next token is a function of the last one, by so wide a margin that no temperature changes it. Each line is cut
    into pieces that occur nowhere else; each piece is a token that no text is encoded to, so nothing but its cue
    starts a line. A prompt without the template's cue is continued at random.
    """
    texts = [getattr(lines, name) for name in CUES]
    tokenizer, chains = _with_lines(texts)
    make_tiny_llama(
        path, vocab=tokenizer.get_vocab_size(), hidden=HIDDEN, layers=1, heads=1, kv_heads=1, context=CONTEXT_TOKENS
    )
    _write_tokenizer(path, tokenizer)
    _chain_up(path / "model.safetensors", chains)
    return path


def _with_lines(texts: Sequence[str]) -> tuple[Tokenizer, list[list[int]]]:
    """The tiny models' tokenizer with the lines' pieces and the cues, and the ids from each cue to the end."""
    description = json.loads(make_tokenizer().to_str())
    vocabulary: dict[str, int] = description["model"]["vocab"]
    chains = []
    for text in texts:
        pieces = list(_unique_pieces(text, taken=vocabulary))
        chains.append(list(range(len(vocabulary), len(vocabulary) + len(pieces))))
        vocabulary.update(zip(pieces, chains[-1], strict=True))
    tokenizer = Tokenizer.from_str(json.dumps(description))
    tokenizer.add_special_tokens([AddedToken(cue, special=True, normalized=False) for cue in CUES.values()])
    ids = tokenizer.get_vocab()
    return tokenizer, [[ids[cue], *chain, ids[IM_END]] for cue, chain in zip(CUES.values(), chains, strict=True)]


def _unique_pieces(text: str, *, taken: dict[str, int]) -> Iterator[str]:
    """Cut `text`, in the byte-level alphabet, into pieces that are neither taken nor alike: as short as that allows."""
    ((left, _),) = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False).pre_tokenize_str(text)
    seen = set(taken)
    assert left not in seen, f"too short for a line: {text!r}"
    while left:
        # What is left must stay a piece itself, for then the cutting always comes to an end.
        cuts = ((left[:n], left[n:]) for n in range(2, len(left)))
        piece, left = next(((a, b) for a, b in cuts if a != b and not {a, b} & seen), (left, ""))
        seen.add(piece)
        yield piece


def _chain_up(weights_file: Path, chains: Sequence[Sequence[int]]) -> None:
    """Make each id of a chain the one successor of the id before it; what attention and MLP add is taken away."""
    weights = mx.load(str(weights_file))
    assert isinstance(weights, dict)
    embedding = np.array(weights["model.embed_tokens.weight"])
    directions = embedding / np.linalg.norm(embedding, axis=1, keepdims=True)
    head = np.zeros_like(embedding)
    for chain in chains:
        for id, successor in pairwise(chain):
            head[successor] += 10 * directions[id]
    silent = {name: mx.zeros_like(array) for name, array in weights.items() if "o_proj" in name or "down_proj" in name}
    even = {name: mx.ones_like(array) for name, array in weights.items() if "norm" in name}
    new = weights | silent | even | {"lm_head.weight": mx.array(head)}
    mx.save_safetensors(str(weights_file), new, metadata={"format": "mlx"})


def _write_tokenizer(path: Path, tokenizer: Tokenizer) -> None:
    tokenizer.save(str(path / "tokenizer.json"))
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": IM_START,
        "eos_token": IM_END,
        "pad_token": END_OF_TEXT,
        "clean_up_tokenization_spaces": False,
        "chat_template": CHAT_TEMPLATE,
    }
    (path / "tokenizer_config.json").write_text(json.dumps(config, indent=1), encoding="utf-8")
