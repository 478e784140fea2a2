"""Between text and token ids: chat templates, prompts, stop ids, and the bytes behind every token."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache
from inspect import signature
from pathlib import Path
from typing import Protocol, TypeVar

import anyio
from anyio.to_thread import run_sync
from transformers.tokenization_utils_tokenizers import TokenizersBackend

from api.errors import bad_request
from api.text.conversation import TAIL, ChatMessage, ChatPrompt, Conversation, ToolObject
from api.text.detokeniser import ByteLevelDetokeniser, Detokeniser, WindowDetokeniser
from api.text.encoder import GuardedEncoder
from api.text.loading import configured_stop_ids, ids_in, load_tokeniser
from api.text.shield import MarkedText, Shield
from api.text.template import ChatTemplate
from api.text.turn_ends import TurnEnds
from api.text.turn_trial import turn_ends
from api.text.vocabulary import byte_ids, byte_level_bytes, control_tokens, decoder_types

LONG_TEXT = 4_000
"""Characters from which on a text is encoded in a worker thread, so that the event loop never stands still."""

T = TypeVar("T")


class TextCodec(Protocol):
    """All that the text floor knows of a model's tokeniser."""

    @property
    def stop_ids(self) -> frozenset[int]:
        """The ids that end a sequence."""
        ...

    @property
    def chat_template(self) -> str:
        """The model's chat template, that for tools where it has several; empty where it has none."""
        ...

    @property
    def added_tokens(self) -> Mapping[str, int]:
        """The tokens that are found in a text before all others, never made by merging: their names and ids."""
        ...

    async def chat_prompt(
        self,
        messages: Sequence[ChatMessage],
        *,
        tools: Sequence[ToolObject] = (),
        template_kwargs: Mapping[str, object],
        continues: bool = False,
    ) -> ChatPrompt:
        """A conversation in the model's own chat format; if it `continues`, the last message is the assistant's, and
        the beginning of the answer.

        Raises:
            ApiError: 400; the model has no chat template, or its template refuses the messages.
        """
        ...

    async def prompt_ids(self, text: str) -> tuple[int, ...]:
        """A plain prompt, with the special tokens that the tokeniser puts around any text."""
        ...

    def special_ids(self, names: Iterable[str]) -> dict[str, int]:
        """Those of `names` that are special tokens, which have no text, with their ids."""
        ...

    def detokeniser(self, shown: frozenset[int] = frozenset()) -> Detokeniser:
        """A fresh one, for one sequence; the special tokens among `shown` are written by their names."""
        ...

    def text_of(self, token_ids: Sequence[int]) -> str:
        """The whole text of `token_ids`, without special tokens."""
        ...

    def token_bytes(self, token_id: int) -> bytes:
        """What one token stands for; a special token for its name, an id without a token for nothing."""
        ...

    async def turn_ends(self) -> TurnEnds:
        """What the stop ids are taken from, and what the chat template writes behind an answer."""
        ...


class HfCodec:
    """The tokeniser in a model directory, as transformers loads it.

    transformers is asked for the chat template only. Texts go to the `tokenizers` object behind it, which is
    never changed after loading and may therefore be used in two threads at once; transformers' own methods
    change it on every call ("Already borrowed").
    """

    def __init__(self, path: Path, *, trust_remote_code: bool = False) -> None:
        """Load from `path`, without ever looking elsewhere.

        Raises:
            ModelError: there is no tokeniser, or none that the `tokenizers` library can run.
        """
        self._hf = load_tokeniser(path, trust_remote_code)
        self._backend = self._hf.backend_tokenizer
        self._backend.no_truncation()
        self._backend.no_padding()
        self._special_ids = frozenset(
            id for id, token in self._backend.get_added_tokens_decoder().items() if token.special
        )
        self._stop_ids = ids_in(self._hf.eos_token_id) | configured_stop_ids(path)
        decoders = decoder_types(self._backend)
        self._byte_level = decoders == {"ByteLevel"}
        self._byte_ids = byte_ids(self._backend) if "ByteFallback" in decoders else {}
        # The scores of one long prompt name tens of thousands of tokens.
        self._known_bytes = cache(self._token_bytes)
        special, tags = control_tokens(self._backend, self.chat_template)
        self._shield = Shield(special, tags, self.chat_template)
        self._guarded = GuardedEncoder(self._backend, special | tags)
        self._template = ChatTemplate(self.chat_template, self._render)
        self._reserved = _RESERVED | set(self._hf.special_tokens_map)
        self._one_at_a_time = anyio.CapacityLimiter(1)
        self._path = path

    @property
    def stop_ids(self) -> frozenset[int]:
        """See TextCodec: those of the tokeniser, config.json and generation_config.json together."""
        return self._stop_ids

    @property
    def chat_template(self) -> str:
        """See TextCodec."""
        template = self._hf.chat_template
        if isinstance(template, dict):
            template = template.get("tool_use", template.get("default"))
        return str(template or "")

    @property
    def added_tokens(self) -> Mapping[str, int]:
        """See TextCodec."""
        return {token.content: id for id, token in self._backend.get_added_tokens_decoder().items()}

    async def chat_prompt(
        self,
        messages: Sequence[ChatMessage],
        *,
        tools: Sequence[ToolObject] = (),
        template_kwargs: Mapping[str, object],
        continues: bool = False,
    ) -> ChatPrompt:
        """See TextCodec."""
        if not self._hf.chat_template:
            raise bad_request("The model has no chat template; use /v1/completions.", code="no_chat_template")
        for name in template_kwargs:
            if name in self._reserved:
                raise bad_request(f"{name} cannot be set by a request.", param=f"chat_template_kwargs.{name}")
        conversation = Conversation(messages, tools, template_kwargs)
        return await self._work(
            lambda: self._chat_prompt(conversation, continues=continues), is_long=conversation.is_long(LONG_TEXT)
        )

    async def prompt_ids(self, text: str) -> tuple[int, ...]:
        """See TextCodec."""
        # mlx_lm's rule: a prompt that brings its own beginning-of-sequence token is not given a second one.
        bos = self._hf.bos_token
        special = bos is None or not text.startswith(bos)
        return await self._work(lambda: self._encode(text, special=special), is_long=len(text) >= LONG_TEXT)

    def special_ids(self, names: Iterable[str]) -> dict[str, int]:
        """See TextCodec."""
        ids = ((name, self._backend.token_to_id(name)) for name in names)
        return {name: id for name, id in ids if id in self._special_ids}

    def detokeniser(self, shown: frozenset[int] = frozenset()) -> Detokeniser:
        """See TextCodec."""
        names = {id: self.token_bytes(id).decode() for id in shown & self._special_ids}
        if self._byte_level:
            return ByteLevelDetokeniser(
                lambda id: b"" if self._silent(id) and id not in names else self.token_bytes(id)
            )
        return WindowDetokeniser(self.text_of, frozenset(self._byte_ids), self._silent, names)

    def text_of(self, token_ids: Sequence[int]) -> str:
        """See TextCodec."""
        return self._backend.decode(token_ids, skip_special_tokens=True)

    def token_bytes(self, token_id: int) -> bytes:
        """See TextCodec."""
        return self._known_bytes(token_id)

    async def turn_ends(self) -> TurnEnds:
        """See TextCodec."""
        return await self._work(lambda: turn_ends(self._hf, self._path), is_long=True)

    def _token_bytes(self, token_id: int) -> bytes:
        token = self._backend.id_to_token(token_id)
        if token is None:
            return b""
        if token_id in self._special_ids:
            return token.encode()
        if self._byte_level:
            return byte_level_bytes(token)
        if token_id in self._byte_ids:
            return self._byte_ids[token_id]
        # Behind another token, because a decoder may treat the first one in a way of its own.
        alone = self.text_of([token_id])
        return self.text_of([token_id, token_id])[len(alone) :].encode()

    def _silent(self, token_id: int) -> bool:
        return token_id in self._special_ids or self._backend.id_to_token(token_id) is None

    def _encode(self, text: str, *, special: bool) -> tuple[int, ...]:
        # A batch of one, because `encode` keeps the interpreter's lock for as long as it takes (tokenizers 0.23).
        (encoding,) = self._backend.encode_batch_fast([text], add_special_tokens=special)
        return tuple(encoding.ids)

    def _chat_prompt(self, conversation: Conversation, *, continues: bool) -> ChatPrompt:
        try:
            marked, mark = self._shield.mark(conversation)
            # Two strings that meet can bring two marks together, but never three.
            rendered = self._template.render_begun(marked, mark * 3) if continues else self._template.render(marked)
        except RecursionError:
            raise bad_request("The messages or the tools are nested too deeply.", param="messages") from None
        prompt = MarkedText(rendered, mark)
        return ChatPrompt(self._guarded.encode(prompt), prompt.text[-TAIL:])

    def _render(
        self, messages: Sequence[ChatMessage], tools: Sequence[ToolObject], template_kwargs: Mapping[str, object]
    ) -> str:
        render: Callable[..., object] = self._hf.apply_chat_template
        given = {**template_kwargs, "tools": list(tools) or None}
        return str(render(list(messages), tokenize=False, add_generation_prompt=True, **given))

    async def _work(self, work: Callable[[], T], *, is_long: bool) -> T:
        if not is_long:
            return work()
        return await run_sync(work, limiter=self._one_at_a_time)


_RESERVED = frozenset(signature(TokenizersBackend.apply_chat_template).parameters) | {"messages"}
"""What chat_template_kwargs may not name: arguments of the call that renders the template, the template among them."""
