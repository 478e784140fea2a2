"""A sequence that starts with kept pieces goes on as if it had computed them, whatever caches its model has."""

from math import inf
from pathlib import Path

import mlx.core as mx
import psutil
import pytest
from mlx_lm.models.cache import KVCache

from actors.policies.pieces import block_stops, cut, root_of
from runtime.engine import commands as c
from runtime.mlx import memory
from runtime.mlx.caches import Held
from runtime.mlx.engine import MlxEngine
from runtime.mlx.kv_store import KvStore, cut_out
from runtime.types import KvHandle, KvPiece, ModelFacts, Sampling, SequenceId, TokenOutput
from tests.families import FAMILIES, make_family
from tests.tiny import make_tiny_llama

ROOT = root_of("")
PROMPT = tuple(range(30, 101))
"""Longer than the window of those that slide, several times."""


class Desk:
    """An engine in this thread, and short ways to ask it."""

    def __init__(self, model: Path) -> None:
        self.beats: list[str] = []
        self.engine = MlxEngine(self.beats.append)
        loaded = self.engine.execute(c.LoadModel(str(model)))
        assert isinstance(loaded, c.Loaded)
        self.facts: ModelFacts = loaded.facts

    def prefill(self, number: int, ids: tuple[int, ...]) -> None:
        if ids:
            result = self.engine.execute(c.Prefill((c.PrefillSlice(SequenceId(number), ids),)))
            assert isinstance(result, c.Prefilled)
            assert not result.failed

    def store(self, number: int, *pieces: KvPiece) -> list[KvHandle]:
        """Which of them are kept then."""
        stored = self.engine.execute(c.StoreKv(SequenceId(number), pieces))
        assert isinstance(stored, c.Stored)
        return [handle for handle, _ in stored.sizes]

    def load(self, number: int, pieces: tuple[KvPiece, ...], tokens: int) -> None:
        wanted = tuple(piece.handle for piece in pieces)
        result = self.engine.execute(c.LoadKv(SequenceId(number), wanted, tokens))
        assert result == c.KvLoaded(SequenceId(number), tokens)

    def join(self, number: int, history: tuple[int, ...], *, output: int = 0, max_tokens: int = 12) -> None:
        sampling = Sampling(max_tokens=max_tokens, temperature=0.0, top_logprobs=3)
        self.engine.execute(
            c.Join((c.JoinRow(SequenceId(number), history, len(history) - output, sampling, keep_kv=True),))
        )

    def decode(self, steps: int = 100) -> dict[int, c.DecodedRow]:
        result = self.engine.execute(c.Decode(steps))
        assert isinstance(result, c.Decoded)
        assert not result.failed
        return {row.sequence_id: row for row in result.rows}

    def alone(self, prompt: tuple[int, ...]) -> tuple[TokenOutput, ...]:
        """What follows `prompt`, nothing of which was kept: prefilled as one."""
        self.prefill(1000, prompt[:-1])
        self.join(1000, prompt)
        tokens = self.decode()[1000].tokens
        self.forget(1000)
        return tokens

    def forget(self, *numbers: int) -> None:
        self.engine.execute(c.Forget(tuple(map(SequenceId, numbers))))

    def drop(self, *pieces: KvPiece) -> None:
        self.engine.execute(c.DropKv(tuple(piece.handle for piece in pieces)))


def the_same(said: tuple[TokenOutput, ...], expected: tuple[TokenOutput, ...]) -> bool:
    """Equal tokens, with equal likeliest ones beside them; log-probabilities within 1e-4."""
    assert [token.token_id for token in said] == [token.token_id for token in expected]
    for one, other in zip(said, expected, strict=True):
        assert one.logprob == pytest.approx(other.logprob, abs=1e-4)
        assert [value for _, value in one.top_logprobs] == pytest.approx(
            [value for _, value in other.top_logprobs], abs=1e-4
        )
    return True


def about(nbytes: int) -> object:
    """The allocator rounds up, and MLX keeps a constant here and there."""
    return pytest.approx(nbytes, abs=1024)


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_llama(tmp_path_factory.mktemp("llama"))


@pytest.fixture(scope="module", params=sorted(FAMILIES))
def uncut(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Desk:
    """An engine with a model whose caches cannot be cut."""
    return Desk(make_family(tmp_path_factory.mktemp(request.param), request.param))


@pytest.fixture
def desk(llama: Path) -> Desk:
    return Desk(llama)


@pytest.mark.parametrize("stops", [block_stops(70), (70,)], ids=["blocks", "whole"])
def test_what_follows_kept_pieces_is_as_likely_as_ever(desk: Desk, stops: tuple[int, ...]) -> None:
    pieces = cut(ROOT, PROMPT, stops)
    desk.prefill(1, PROMPT[:-1])
    assert len(desk.store(1, *pieces)) == len(pieces)
    for number, tokens in enumerate((1, 63, 64, 65, 70), start=2):
        prompt = (*PROMPT[:tokens], 7, 8, 9)
        desk.load(number, tuple(piece for piece in pieces if piece.start < tokens), tokens)
        desk.prefill(number, (7, 8))
        desk.join(number, prompt)
        assert the_same(desk.decode()[number].tokens, desk.alone(prompt))


def test_users_of_a_piece_do_not_write_into_it(desk: Desk) -> None:
    (piece,) = cut(ROOT, PROMPT, (60,))
    desk.prefill(1, PROMPT[:-1])
    desk.store(1, piece)
    for number in (2, 3, 4):
        desk.load(number, (piece,), 60)
        desk.prefill(number, (number,))
        desk.join(number, (*PROMPT[:60], number, 9))
    rows = desk.decode()
    for number in (2, 3, 4):
        assert the_same(rows[number].tokens, desk.alone((*PROMPT[:60], number, 9)))
    desk.load(5, (piece,), 60)
    desk.prefill(5, PROMPT[60:-1])
    desk.join(5, PROMPT)
    assert the_same(desk.decode()[5].tokens, desk.alone(PROMPT))


def test_a_piece_costs_its_own_bytes_and_gives_all_of_them_back(desk: Desk) -> None:
    long = tuple(3 + place % 400 for place in range(1000))
    first, second = cut(ROOT, long, (8, 900))
    desk.prefill(1, long)
    mx.clear_cache()  # A buffer that is used again may be larger than what is wanted.
    before = mx.get_active_memory()
    stored = desk.engine.execute(c.StoreKv(SequenceId(1), (first, second)))
    assert isinstance(stored, c.Stored)
    sizes = dict(stored.sizes)
    assert sizes == {
        first.handle: 8 * desk.facts.kv_bytes_per_token,
        second.handle: 892 * desk.facts.kv_bytes_per_token,
    }
    assert mx.get_active_memory() - before == about(sum(sizes.values()))
    desk.drop(second)
    assert mx.get_active_memory() - before == about(sizes[first.handle])
    desk.load(2, (first,), 8)
    desk.prefill(2, (5,))
    desk.forget(2)
    assert mx.get_active_memory() - before == about(sizes[first.handle])
    desk.drop(first)
    assert mx.get_active_memory() == about(before)


def test_a_piece_is_one_array_however_many_layers(llama: Path) -> None:
    desk = Desk(llama)
    desk.prefill(1, PROMPT)
    held = desk.engine._held(SequenceId(1))
    assert held is not None
    piece = cut_out(held.caches, 3, 10)
    assert [array.shape for array in piece.arrays.values()] == [(4, 1, 2, 7, 16)]


def test_an_array_without_its_like_is_copied_all_the_same() -> None:
    cache = KVCache()
    cache.update_and_fetch(mx.ones((1, 2, 5000, 16)), mx.ones((1, 2, 5000, 8)))
    mx.eval(cache.state)
    before = mx.get_active_memory()
    piece = cut_out([cache], 10, 20)
    whole = cache.nbytes
    del cache
    assert mx.get_active_memory() == about(before - whole + piece.nbytes)
    assert piece.nbytes == 10 * 2 * (16 + 8) * 4


def test_storing_many_pieces_shows_that_it_is_at_work(desk: Desk) -> None:
    desk.prefill(1, PROMPT)
    desk.beats.clear()
    desk.store(1, *cut(ROOT, PROMPT, (10, 20, 30)))
    assert desk.beats.count("keeping a prefix") == 3


def test_what_has_no_such_beginning_cannot_be_loaded(desk: Desk) -> None:
    (piece,) = cut(ROOT, PROMPT, (10,))
    desk.prefill(1, PROMPT)
    desk.store(1, piece)
    with pytest.raises(ValueError, match="pieces up to 10 cannot give 11 tokens"):
        desk.load(2, (piece,), 11)


def test_a_store_knows_its_bytes(desk: Desk) -> None:
    desk.prefill(1, PROMPT)
    held = desk.engine._held(SequenceId(1))
    assert isinstance(held, Held)
    store = KvStore(lambda _doing: None)
    pieces = cut(ROOT, PROMPT, (10, 30))
    store.store(held, pieces)
    assert store.nbytes == 30 * desk.facts.kv_bytes_per_token
    store.drop([pieces[0].handle])
    assert store.nbytes == 20 * desk.facts.kv_bytes_per_token


def test_the_facts_tell_what_memory_there_is_and_what_a_token_takes_of_it(desk: Desk) -> None:
    assert desk.facts.kv_bytes_per_token == 2 * 2 * 2 * 16 * 4, "layers, keys and values, heads, their size, float32"
    assert 0 < desk.facts.free_bytes < desk.facts.memory_bytes
    assert desk.facts.padding_ratio == (2.0 if desk.facts.device == "cpu" else inf)


def test_caches_that_slide_or_recur_are_found_out(uncut: Desk) -> None:
    assert not uncut.facts.trimmable
    assert uncut.facts.batchable


def test_a_checkpoint_serves_other_tails_alone_and_together(uncut: Desk) -> None:
    pieces = cut(ROOT, PROMPT, (9, 20, 53, 70))
    for piece in pieces:
        uncut.prefill(1, piece.token_ids)
        assert uncut.store(1, piece) == [piece.handle]
    prompts = {n: (*PROMPT[: pieces[n].stop], 10 + n, 11, 12) for n in range(4)}
    for n, prompt in prompts.items():
        uncut.load(10 + n, pieces[: n + 1], pieces[n].stop)
        uncut.prefill(10 + n, prompt[-3:-1])
        uncut.join(10 + n, prompt)
    together = uncut.decode()
    for n, prompt in prompts.items():
        expected = uncut.alone(prompt)
        assert the_same(together[10 + n].tokens, expected)
        uncut.load(20 + n, pieces[: n + 1], pieces[n].stop)
        uncut.prefill(20 + n, prompt[-3:-1])
        uncut.join(20 + n, prompt)
        assert the_same(uncut.decode()[20 + n].tokens, expected)
    uncut.forget(1, *range(10, 24))
    uncut.drop(*pieces)


def test_the_end_of_a_reply_is_a_checkpoint(uncut: Desk) -> None:
    uncut.prefill(1, PROMPT[:-1])
    uncut.prefill(2, PROMPT[:4])
    uncut.join(1, PROMPT)
    uncut.join(2, PROMPT[:5], max_tokens=20)
    row = uncut.decode()[1]
    history = PROMPT + tuple(token.token_id for token in row.tokens)
    assert row.kv_tokens == len(history), "the other row goes on, so the last token was fed"
    (piece,) = cut(ROOT, history, (row.kv_tokens,))
    assert uncut.store(1, piece) == [piece.handle]
    turn = (*history, 5, 6, 7)
    uncut.load(3, (piece,), row.kv_tokens)
    uncut.prefill(3, turn[row.kv_tokens : -1])
    uncut.join(3, turn)
    assert the_same(uncut.decode()[3].tokens, uncut.alone(turn))
    uncut.forget(1, 2, 3)
    uncut.drop(piece)


def test_a_running_row_is_kept_as_it_is_and_only_so(uncut: Desk) -> None:
    for number, prompt in ((1, PROMPT), (2, PROMPT[:7])):
        uncut.prefill(number, prompt[:-1])
        uncut.join(number, prompt)
    history = PROMPT + tuple(token.token_id for token in uncut.decode(5)[1].tokens)
    earlier, now = cut(ROOT, history, (len(history) - 1,))[0], cut(ROOT, history, (len(history),))[0]
    assert uncut.store(1, earlier, now) == [now.handle]
    rest = uncut.decode()
    uncut.load(3, (now,), now.stop)
    uncut.prefill(3, (77,))
    uncut.join(3, (*history, 77, 78))
    assert the_same(uncut.decode()[3].tokens, uncut.alone((*history, 77, 78)))
    whole = history + tuple(token.token_id for token in rest[1].tokens)
    assert whole[len(PROMPT) :] == tuple(token.token_id for token in uncut.alone(PROMPT))
    uncut.forget(1, 2, 3)
    uncut.drop(now)


def test_a_checkpoint_cannot_be_cut(uncut: Desk) -> None:
    (piece,) = cut(ROOT, PROMPT, (30,))
    uncut.prefill(1, PROMPT[:30])
    uncut.store(1, piece)
    with pytest.raises(ValueError, match="pieces up to 30 cannot give 29 tokens"):
        uncut.load(2, (piece,), 29)
    uncut.forget(1)
    uncut.drop(piece)


def test_checkpoints_give_all_of_their_bytes_back(uncut: Desk) -> None:
    mx.clear_cache()
    before = mx.get_active_memory()
    pieces = cut(ROOT, PROMPT, (20, 40, 60))
    for piece in pieces:
        uncut.prefill(1, piece.token_ids)
        uncut.store(1, piece)
    uncut.forget(1)
    assert mx.get_active_memory() > before
    uncut.load(2, pieces, 60)
    uncut.prefill(2, (5, 6))
    uncut.forget(2)
    uncut.drop(*pieces)
    assert mx.get_active_memory() == about(before)


def test_freed_memory_goes_back_to_the_system() -> None:
    arrays = [mx.full((16, 1024), number, dtype=mx.float32) for number in range(2000)]
    mx.eval(arrays)
    taken = psutil.Process().memory_info().rss
    del arrays
    memory.give_back()
    assert mx.get_cache_memory() == 0
    assert psutil.Process().memory_info().rss < taken - 2000 * (1 << 16) * 0.8
