"""Quantised KV caches: rows together are as each alone in mlx-lm's own cache, in less memory, or refused by name."""

from collections.abc import Callable
from importlib.metadata import version
from itertools import pairwise
from pathlib import Path
from typing import Literal

import anyio
import mlx.core as mx
import numpy as np
import pytest
from mlx.nn.layers.base import Module
from mlx_lm.models import gemma2, llama
from mlx_lm.models.cache import KVCache, QuantizedKVCache

from runtime.engine import hosts
from runtime.engine.commands import JoinRow
from runtime.errors import ModelError
from runtime.mlx import loader, quantised
from runtime.mlx.batch import DecodeBatch
from runtime.mlx.caches import Held, merge
from runtime.mlx.grammar import Grammars
from runtime.mlx.kv_store import KvStore
from runtime.mlx.loader import LoadedModel
from runtime.mlx.quantised import GROUP_SIZE, QuantisedKVCache
from runtime.settings import Settings
from runtime.types import KvHandle, KvPiece, ModelFacts, Sampling, SequenceId
from tests.tiny import VOCAB, make_tiny_llama

PROMPTS = {1: tuple(range(20, 27)), 2: tuple(range(100, 400)), 3: (41, 40), 4: tuple(range(300, 350))}
"""One is longer than a step of the caches' growth (256), one has a single token in its cache when it joins."""


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_llama(tmp_path_factory.mktemp("tiny"), hidden=128)


@pytest.fixture(scope="module")
def model(path: Path) -> Module:
    return loader.load(path, trust_remote_code=False).model


def greedy(logits: mx.array) -> list[int]:
    """The likeliest next id of every row."""
    return [int(id) for id in np.array(mx.argmax(logits[:, -1], axis=-1))]


def alone(model: Module, prompt: tuple[int, ...], tokens: int, bits: int) -> list[int]:
    """Greedy ids of one sequence, as mlx-lm has it: no batch, and nothing of ours."""
    caches = [QuantizedKVCache(GROUP_SIZE, bits) for _ in model.layers]
    logits = model(mx.array([prompt]), cache=caches)
    chosen: list[int] = []
    for _ in range(tokens):
        chosen += greedy(logits)
        logits = model(mx.array([chosen[-1:]]), cache=caches)
    return chosen


def loaded(model: Module, bits: int) -> LoadedModel:
    return LoadedModel(
        model=model,
        config={},
        context_tokens=512,
        vocab_size=VOCAB,
        eos_ids=(),
        dtype="float32",
        weight_bytes=0,
        kv_bits=bits,
    )


class Batch:
    """A decode batch of sequences from PROMPTS, and what each of them said."""

    def __init__(self, model: Module, bits: int) -> None:
        self.model, self.bits = model, bits
        self.batch = DecodeBatch(loaded(model, bits), Grammars(None))
        self.said: dict[SequenceId, list[int]] = {}
        self.kept: dict[SequenceId, Held] = {}

    def prefilled(self, number: int) -> list[QuantisedKVCache]:
        caches = quantised.new(self.model, self.bits)
        self.model(mx.array([PROMPTS[number][:-1]]), cache=caches)
        return caches

    def join(self, rows: dict[int, int]) -> None:
        """Sequences by their numbers, with how many tokens each is to say."""
        specs = [
            JoinRow(SequenceId(n), PROMPTS[n], len(PROMPTS[n]), Sampling(max_tokens=m, temperature=0.0), keep_kv=True)
            for n, m in rows.items()
        ]
        self.batch.join(
            [(spec, Held(self.prefilled(n), len(PROMPTS[n]) - 1)) for n, spec in zip(rows, specs, strict=True)]
        )

    def step(self, times: int) -> None:
        for _ in range(times):
            step = self.batch.step()
            self.kept.update(step.kept)
            for row in step.rows:
                self.said.setdefault(row.sequence_id, []).extend(token.token_id for token in row.tokens)


@pytest.mark.parametrize("bits", [4, 8])
def test_rows_that_join_and_leave_say_what_each_says_alone_in_the_librarys_cache(model: Module, bits: int) -> None:
    batch = Batch(model, bits)
    batch.join({1: 20, 2: 9})
    batch.step(4)
    batch.join({3: 30})
    batch.step(8)  # The longest has ended: the padding of the others shrinks.
    batch.join({4: 12})
    batch.step(3)
    batch.batch.forget([SequenceId(1)])
    batch.step(20)
    assert len(batch.batch) == 0
    assert {number: len(said) for number, said in batch.said.items()} == {1: 15, 2: 9, 3: 30, 4: 12}
    for number, said in batch.said.items():
        assert said == alone(model, PROMPTS[number], len(said), bits)


@pytest.mark.parametrize("bits", [4, 8])
def test_a_row_taken_out_of_a_batch_goes_on_where_it_was(model: Module, bits: int) -> None:
    batch = Batch(model, bits)
    batch.join({1: 6, 2: 12})
    batch.step(12)
    for number, held in batch.kept.items():
        history = (*PROMPTS[number], *batch.said[number], 77)
        assert [cache.size() for cache in held.caches] == [held.tokens] * len(model.layers)
        logits = model(mx.array([history[held.tokens :]]), cache=held.caches)
        assert greedy(logits) == alone(model, history, 1, bits)


def test_rows_may_be_empty_when_they_join(model: Module) -> None:
    together = [QuantisedKVCache.merge([QuantisedKVCache(8), QuantisedKVCache(8)]) for _ in model.layers]
    assert all(cache.empty() and cache.size() == cache.nbytes == 0 for cache in together)
    logits = model(mx.array([[20], [30]]), cache=together)
    assert greedy(logits) == [alone(model, (i,), 1, 8)[0] for i in (20, 30)]
    assert together[0].offset.tolist() == [1, 1]


def test_tokens_taken_off_a_batch_are_as_if_never_fed(model: Module) -> None:
    batch = Batch(model, 8)
    together = [QuantisedKVCache.merge(list(layer)) for layer in zip(*map(batch.prefilled, (1, 4)), strict=True)]
    model(mx.array([[5, 6, 7], [8, 9, 10]]), cache=together)
    assert [cache.trim(3) for cache in together] == [3] * len(together)
    assert together[0].size() == len(PROMPTS[4]) - 1
    assert together[0].left_padding.tolist() == [len(PROMPTS[4]) - len(PROMPTS[1]), 0]
    logits = model(mx.array([[PROMPTS[1][-1]], [PROMPTS[4][-1]]]), cache=together)
    assert greedy(logits) == [alone(model, PROMPTS[i], 1, 8)[0] for i in (1, 4)]


@pytest.mark.parametrize(("bits", "bits_in_all"), [(4, 4 + 2), (8, 8 + 2)])
def test_an_element_costs_its_bits_and_its_share_of_two_scales(model: Module, bits: int, bits_in_all: int) -> None:
    """Of float32: 32 bits each way become these, and one scale and one bias for 32 of them."""
    caches, plain = Batch(model, bits).prefilled(2), [KVCache() for _ in model.layers]
    model(mx.array([PROMPTS[2][:-1]]), cache=plain)
    together = QuantisedKVCache.merge([caches[0], caches[0]])
    unquantised = KVCache.merge([plain[0], plain[0]])
    assert caches[0].nbytes / plain[0].nbytes == bits_in_all / 32
    assert together.nbytes / unquantised.nbytes == bits_in_all / 32


@pytest.mark.parametrize("tokens", [64, 100, 299])
@pytest.mark.parametrize("bits", [4, 8])
def test_kept_pieces_start_a_sequence_where_they_were_cut(model: Module, bits: int, tokens: int) -> None:
    history = PROMPTS[2]
    store = KvStore(lambda _doing: None)
    caches = Batch(model, bits).prefilled(2)
    cuts = [*range(0, len(history) - 1, 64), len(history) - 1]
    pieces = [
        KvPiece(KvHandle(b"%d" % stop), KvHandle(b"%d" % start), start, history[start:stop])
        for start, stop in pairwise(cuts)
    ]
    store.store(Held(caches, len(history) - 1), pieces)
    assert store.nbytes == sum(cache.nbytes for cache in caches) * (len(history) - 1) // 512
    loaded = store.load([piece.handle for piece in pieces], tokens, quantised.new(model, bits))
    assert loaded is not None
    assert [cache.size() for cache in loaded.caches] == [tokens] * len(model.layers)
    together = merge([loaded.caches, Batch(model, bits).prefilled(4)])
    logits = [model(mx.array([[a], [PROMPTS[4][-1]]]), cache=together) for a in history[tokens : tokens + 3]][-1]
    assert greedy(logits)[0] == alone(model, history[: tokens + 3], 1, bits)[0]


@pytest.mark.anyio
async def test_the_engine_that_is_asked_for_them_says_what_they_cost(path: Path) -> None:
    choices: tuple[Literal[4, 8] | None, ...] = (None, 4, 8)
    cost = {bits: (await facts_with(path, bits)).kv_bytes_per_token for bits in choices}
    assert cost[None] == 2 * 2 * 2 * 32 * 4  # layers, keys and values, heads, their elements, bytes of float32
    assert [cost[bits] / cost[None] for bits in (8, 4)] == [10 / 32, 6 / 32]
    assert (await facts_with(path, 8)).batchable


async def facts_with(path: Path, bits: Literal[4, 8] | None) -> ModelFacts:
    """What an engine says of the model when it is started by settings."""
    host = hosts.make_host(Settings(engine="thread", kv_bits=bits), path)
    async with anyio.create_task_group() as group:
        with anyio.fail_after(60):
            facts: ModelFacts = await group.start(host.run)
        group.cancel_scope.cancel()
    return facts


def tiny(heads: int, **options: object) -> Module:
    size = {"hidden_size": 128, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": heads}
    others = {"model_type": "", "num_key_value_heads": heads, "rms_norm_eps": 1e-5, "vocab_size": 64}
    family = gemma2 if options.pop("soft_capped", False) else llama
    model: Module = family.Model(family.ModelArgs(**size, **others, **options))
    return model


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: tiny(8), "divisible by the quantization group size 32"),
        (
            lambda: tiny(4, layer_types=["full_attention", "sliding_attention"], sliding_window=8),
            f"mlx-lm {version('mlx-lm')} cannot quantise its RotatingKVCache",
        ),
        (
            lambda: tiny(2, head_dim=64, soft_capped=True),
            f"the QuantizedKVCache of mlx-lm {version('mlx-lm')} does not suit its attention: ",
        ),
    ],
    ids=["narrow heads", "a window", "attention of its own"],
)
def test_a_model_that_cannot_have_them_is_refused_by_what_stands_against_it(
    make: Callable[[], Module], said: str
) -> None:
    assert said in (quantised.refusal(make(), 8) or "")


@pytest.mark.parametrize("heads", [1, 2, 4])
def test_heads_of_128_64_and_32_elements_are_not_refused(heads: int) -> None:
    assert quantised.refusal(tiny(heads), 4) is None


def test_a_model_that_cannot_have_them_is_not_loaded(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"cannot be loaded: with --kv-bits 8: the QuantizedKVCache of .* size 32"):
        loader.load(make_tiny_llama(tmp_path), trust_remote_code=False, kv_bits=8)
