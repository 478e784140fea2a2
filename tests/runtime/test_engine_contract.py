"""What every engine and every host promises: MLX and the fake, in a thread and in a process, answer alike."""

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import anyio
import pytest

from actors.policies.pieces import block_stops, cut, root_of
from runtime.engine import commands as c
from runtime.engine import hosts
from runtime.engine.host import Host
from runtime.errors import EngineFault, ModelError
from runtime.settings import Settings
from runtime.types import FinishReason, KvHandle, KvPiece, ModelFacts, Sampling, SequenceId, TokenOutput
from tests.tiny import make_tiny_llama

pytestmark = pytest.mark.anyio

MakeHost = Callable[[Path], Host]

PROMPT = (20, 21, 22, 23, 24, 25, 26)
LONG = tuple(range(30, 180))
ROOT = root_of("")


class Submitter:
    """Submits commands and waits for their results."""

    def __init__(self, host: Host, facts: ModelFacts) -> None:
        self._host = host
        self.facts = facts

    async def __call__(self, command: c.Command) -> c.Result:
        results: list[c.Result] = []
        answered = anyio.Event()

        def deliver(result: c.Result, _at: float) -> None:
            results.append(result)
            answered.set()

        self._host.submit(command, deliver)
        with anyio.fail_after(30):
            await answered.wait()
        return results[0]

    async def prefill(self, number: int, ids: tuple[int, ...]) -> c.Result:
        return await self(c.Prefill((c.PrefillSlice(SequenceId(number), ids),)))

    async def score(self, number: int, prompt: tuple[int, ...], *cuts: int, top: int = 0) -> list[TokenOutput]:
        """Prefill all of `prompt` but its last id, cut into slices at `cuts`; every id but the first, scored."""
        scored: list[TokenOutput] = []
        for start, end in pairwise((0, *cuts, len(prompt) - 1)):
            piece = c.PrefillSlice(SequenceId(number), prompt[start:end], prompt[start + 1 : end + 1], top)
            result = await self(c.Prefill((piece,)))
            assert isinstance(result, c.Prefilled)
            (answer,) = result.scored
            assert answer.sequence_id == number
            scored += answer.targets
        return scored

    async def join(self, number: int, prompt: tuple[int, ...], *, keep_kv: bool = False, **sampling: Any) -> None:
        await self(c.Join((row(number, prompt, keep_kv=keep_kv, **sampling),)))

    async def decode_to_the_end(self, steps: int = 1) -> dict[int, c.DecodedRow]:
        """Decode until no row is left; what each gave in all."""
        rows: dict[int, c.DecodedRow] = {}
        while True:
            result = await self(c.Decode(steps))
            assert isinstance(result, c.Decoded)
            if not result.rows:
                return rows
            for each in result.rows:
                earlier = rows[each.sequence_id].tokens if each.sequence_id in rows else ()
                rows[each.sequence_id] = replace(each, tokens=earlier + each.tokens)

    async def generate(self, number: int, prompt: tuple[int, ...], **sampling: Any) -> list[int]:
        """One sequence alone, from prompt to end."""
        await self.prefill(number, prompt[:-1])
        await self.join(number, prompt, **sampling)
        return ids(await self.decode_to_the_end(), number)


def row(number: int, history: tuple[int, ...], *, keep_kv: bool = False, output: int = 0, **sampling: Any) -> c.JoinRow:
    return c.JoinRow(
        sequence_id=SequenceId(number),
        history=history,
        prompt_tokens=len(history) - output,
        sampling=Sampling(**{"max_tokens": 6, "temperature": 0.0, **sampling}),
        keep_kv=keep_kv,
    )


def handles(result: c.Result) -> list[KvHandle]:
    """Which pieces are in memory."""
    assert isinstance(result, c.Stored)
    return [handle for handle, _ in result.sizes]


def load(number: int, wanted: Sequence[KvHandle], tokens: int) -> c.LoadKv:
    return c.LoadKv(SequenceId(number), tuple(wanted), tokens)


def ids(rows: dict[int, c.DecodedRow], number: int) -> list[int]:
    return [token.token_id for token in rows[number].tokens]


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_llama(tmp_path_factory.mktemp("tiny"))


FAKE, MLX = "tests.fakes:make_fake_engine", "runtime.mlx.engine:MlxEngine"


@pytest.fixture(params=[FAKE, MLX], ids=["fake", "mlx"])
def factory(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(params=["thread", "process"])
def settings(request: pytest.FixtureRequest) -> Settings:
    """Those of either kind of host."""
    return Settings(engine=request.param)


@pytest.fixture
def make_host(settings: Settings, factory: str) -> MakeHost:
    """A host of either kind around an engine of either kind, for a model."""
    return lambda model: hosts.make_host(settings, model, factory=factory)


@pytest.fixture
def make_host_with_folder(settings: Settings, factory: str, tmp_path: Path) -> MakeHost:
    """The same with a folder on disk."""
    with_folder = settings.model_copy(update={"cache_dir": str(tmp_path / "cache")})
    return lambda model: hosts.make_host(with_folder, model, factory=factory)


@asynccontextmanager
async def running(make_host: MakeHost, model: Path) -> AsyncIterator[Submitter]:
    host = make_host(model)
    async with anyio.create_task_group() as group:
        with anyio.fail_after(30):
            facts: ModelFacts = await group.start(host.run)
        yield Submitter(host, facts)
        group.cancel_scope.cancel()


async def test_loading_tells_the_facts(make_host: MakeHost, tiny_model: Path) -> None:
    async with running(make_host, tiny_model) as engine:
        facts = engine.facts
        assert facts.vocab_size > 100
        assert facts.context_tokens > 100
        assert facts.kv_bytes_per_token > 0
        assert facts.batchable
        assert facts.trimmable


async def test_commands_are_answered_in_order(make_host: MakeHost, tiny_model: Path) -> None:
    async with running(make_host, tiny_model) as engine:
        prefilled = await engine.prefill(1, PROMPT[:4])
        assert isinstance(prefilled, c.Prefilled)
        assert prefilled.tokens == 4
        assert isinstance(await engine(c.Join(())), c.Done)
        assert isinstance(await engine(c.Forget((SequenceId(99),))), c.Done)
        assert isinstance(await engine(c.DropKv((KvHandle(b"nowhere"),))), c.Done)
        report = await engine(c.MemoryReport())
        assert isinstance(report, c.MemoryReported)
        assert isinstance(await engine(c.GiveBack()), c.Done)
        assert 0 < report.usage.system_used_fraction < 1
        decoded = await engine(c.Decode())
        assert isinstance(decoded, c.Decoded)
        assert (decoded.rows, decoded.steps) == ((), 0)


async def test_a_row_ends_after_max_tokens(make_host: MakeHost, tiny_model: Path) -> None:
    async with running(make_host, tiny_model) as engine:
        await engine.prefill(1, PROMPT[:-1])
        await engine.join(1, PROMPT, max_tokens=4)
        rows = await engine.decode_to_the_end()
        assert len(rows[1].tokens) == 4
        assert rows[1].finish is FinishReason.LENGTH


async def test_a_row_ends_with_a_stop_id_which_is_its_last_token(make_host: MakeHost, tiny_model: Path) -> None:
    async with running(make_host, tiny_model) as engine:
        free = await engine.generate(1, PROMPT)
        stop = free[3]
        await engine.prefill(2, PROMPT[:-1])
        await engine.join(2, PROMPT, stop_ids=frozenset({stop}))
        rows = await engine.decode_to_the_end()
        assert ids(rows, 2) == free[: free.index(stop) + 1]
        assert rows[2].finish is FinishReason.STOP


async def test_chunks_of_a_prompt_make_no_difference(make_host: MakeHost, tiny_model: Path) -> None:
    async with running(make_host, tiny_model) as engine:
        whole = await engine.generate(1, PROMPT)
        for part in (PROMPT[:2], PROMPT[2:5], PROMPT[5:-1]):
            await engine.prefill(2, part)
        await engine.join(2, PROMPT)
        assert ids(await engine.decode_to_the_end(), 2) == whole


async def test_a_slice_without_targets_is_not_scored(make_host: MakeHost, tiny_model: Path) -> None:
    async with running(make_host, tiny_model) as engine:
        result = await engine.prefill(1, PROMPT)
        assert isinstance(result, c.Prefilled)
        assert result.scored == ()


async def test_each_target_is_scored_beside_the_likeliest_in_its_place(make_host: MakeHost, tiny_model: Path) -> None:
    async with running(make_host, tiny_model) as engine:
        scored = await engine.score(1, PROMPT, top=4)
        assert [each.token_id for each in scored] == list(PROMPT[1:])
        for each in scored:
            assert each.logprob is not None
            assert each.logprob <= each.top_logprobs[0][1] <= 0
            assert len(each.top_logprobs) == 4
            values = [logprob for _, logprob in each.top_logprobs]
            assert values == sorted(values, reverse=True)
            assert dict(each.top_logprobs).get(each.token_id, each.logprob) == each.logprob


async def test_cuts_between_slices_do_not_show_in_the_scores(make_host: MakeHost, tiny_model: Path) -> None:
    async with running(make_host, tiny_model) as engine:
        whole = await engine.score(1, PROMPT, top=2)
        cut = await engine.score(2, PROMPT, 1, 2, 5, top=2)
        assert [each.token_id for each in cut] == [each.token_id for each in whole]
        for one, other in zip(cut, whole, strict=True):
            assert one.logprob == pytest.approx(other.logprob, abs=1e-5)
            assert [i for i, _ in one.top_logprobs] == [i for i, _ in other.top_logprobs]


async def test_a_scored_prompt_goes_on_as_any_other(make_host: MakeHost, tiny_model: Path) -> None:
    async with running(make_host, tiny_model) as engine:
        expected = await engine.generate(1, PROMPT)
        await engine.score(2, PROMPT, 3)
        await engine.join(2, PROMPT)
        assert ids(await engine.decode_to_the_end(), 2) == expected


async def test_what_was_produced_greedily_scores_as_it_did_then(make_host: MakeHost, tiny_model: Path) -> None:
    async with running(make_host, tiny_model) as engine:
        await engine.prefill(1, PROMPT[:-1])
        await engine.join(1, PROMPT, top_logprobs=1)
        produced = (await engine.decode_to_the_end())[1].tokens
        scored = await engine.score(2, PROMPT + tuple(token.token_id for token in produced), top=1)
        for then, now in zip(produced, scored[len(PROMPT) - 1 :], strict=True):
            assert now.top_logprobs[0][0] == now.token_id == then.token_id
            assert now.logprob == pytest.approx(then.logprob, abs=1e-4)


async def test_rows_that_run_keep_their_tokens_beside_a_prompt_that_is_scored(
    make_host: MakeHost, tiny_model: Path
) -> None:
    async with running(make_host, tiny_model) as engine:
        alone = await engine.generate(1, PROMPT, max_tokens=9)
        await engine.prefill(2, PROMPT[:-1])
        await engine.join(2, PROMPT, max_tokens=9)
        first = await engine(c.Decode(2))
        assert isinstance(first, c.Decoded)
        await engine.score(3, (90, 91, 92, 93), top=3)
        rest = await engine.decode_to_the_end()
        assert [token.token_id for token in first.rows[0].tokens] + ids(rest, 2) == alone


async def test_several_steps_in_one_turn_give_the_same_tokens(make_host: MakeHost, tiny_model: Path) -> None:
    async with running(make_host, tiny_model) as engine:
        one_by_one = await engine.generate(1, PROMPT, max_tokens=7)
        await engine.prefill(2, PROMPT[:-1])
        await engine.join(2, PROMPT, max_tokens=7)
        assert ids(await engine.decode_to_the_end(steps=3), 2) == one_by_one


async def test_a_prompt_of_one_id_needs_no_prefill(make_host: MakeHost, tiny_model: Path) -> None:
    async with running(make_host, tiny_model) as engine:
        await engine.join(1, (20,))
        assert len(ids(await engine.decode_to_the_end(), 1)) == 6


async def test_rows_join_and_leave_between_steps_without_touching_each_other(
    make_host: MakeHost, tiny_model: Path
) -> None:
    prompts = {n: tuple(range(20 + n, 22 + 3 * n)) for n in range(1, 6)}
    async with running(make_host, tiny_model) as engine:
        alone = {n: await engine.generate(100 + n, prompt, max_tokens=4 + n) for n, prompt in prompts.items()}
        gathered: dict[int, list[int]] = {n: [] for n in prompts}
        for n, prompt in prompts.items():
            await engine.prefill(n, prompt[:-1])
            await engine.join(n, prompt, max_tokens=4 + n)
            result = await engine(c.Decode())
            assert isinstance(result, c.Decoded)
            for each in result.rows:
                gathered[each.sequence_id] += [token.token_id for token in each.tokens]
        rest = await engine.decode_to_the_end()
        for n in prompts:
            assert gathered[n] + (ids(rest, n) if n in rest else []) == alone[n]


@pytest.mark.parametrize("phase", ["prefilled", "joined", "decoding"])
async def test_a_forgotten_sequence_is_gone_in_every_phase_and_its_neighbour_goes_on(
    make_host: MakeHost, tiny_model: Path, phase: str
) -> None:
    async with running(make_host, tiny_model) as engine:
        alone = await engine.generate(100, PROMPT)
        await engine.prefill(1, PROMPT[:-1])
        await engine.prefill(2, PROMPT[:-2])
        if phase != "prefilled":
            await engine.join(2, PROMPT[:-1])
        await engine.join(1, PROMPT)
        first = await engine(c.Decode()) if phase == "decoding" else c.Decoded((), 0, 0.0)
        assert isinstance(first, c.Decoded)
        await engine(c.Forget((SequenceId(2),)))
        rows = await engine.decode_to_the_end()
        assert 2 not in rows
        earlier = [token.token_id for each in first.rows if each.sequence_id == 1 for token in each.tokens]
        assert earlier + ids(rows, 1) == alone


async def test_a_finished_rows_cache_is_kept_until_it_is_forgotten(make_host: MakeHost, tiny_model: Path) -> None:
    async with running(make_host, tiny_model) as engine:
        await engine.prefill(1, PROMPT[:-1])
        await engine.join(1, PROMPT, keep_kv=True)
        rows = await engine.decode_to_the_end()
        history = PROMPT + tuple(ids(rows, 1))
        held = rows[1].kv_tokens
        assert held in (len(history) - 1, len(history))
        first, second = cut(ROOT, history, (held - 3, held))
        assert handles(await engine(c.StoreKv(SequenceId(1), (first,)))) == [first.handle]
        assert handles(await engine(c.StoreKv(SequenceId(1), (first, second)))) == [first.handle, second.handle]
        await engine(c.DropKv((second.handle,)))
        await engine(c.Forget((SequenceId(1),)))
        stored = await engine(c.StoreKv(SequenceId(1), (first, second)))
        assert isinstance(stored, c.Stored)
        assert handles(stored) == [first.handle]
        assert stored.missing == (second.handle,)
        assert stored.sequence_id == 1


async def test_a_row_that_keeps_nothing_has_nothing_to_store(make_host: MakeHost, tiny_model: Path) -> None:
    async with running(make_host, tiny_model) as engine:
        await engine.prefill(1, PROMPT[:-1])
        await engine.join(1, PROMPT)
        assert (await engine.decode_to_the_end())[1].kv_tokens == 0
        assert handles(await engine(c.StoreKv(SequenceId(1), cut(ROOT, PROMPT, (3,))))) == []


@pytest.mark.parametrize("stops", [block_stops(150), (150,), (1, 2, 149, 150)], ids=["blocks", "whole", "uneven"])
async def test_any_beginning_of_kept_pieces_serves_later_sequences(
    make_host: MakeHost, tiny_model: Path, stops: tuple[int, ...]
) -> None:
    async with running(make_host, tiny_model) as engine:
        pieces = cut(ROOT, LONG, stops)
        await engine.prefill(1, LONG)
        stored = await engine(c.StoreKv(SequenceId(1), pieces))
        assert isinstance(stored, c.Stored)
        size = sum(size for _, size in stored.sizes)
        assert size == len(LONG) * engine.facts.kv_bytes_per_token
        await engine(c.Forget((SequenceId(1),)))
        for number, tokens in enumerate((1, 2, 64, 65, 149, 150), start=2):
            prompt = (*LONG[:tokens], 90, 91 + number, 92)
            expected = await engine.generate(100, prompt)
            needed = [piece.handle for piece in pieces if piece.start < tokens]
            assert await engine(load(number, needed, tokens)) == c.KvLoaded(SequenceId(number), tokens)
            await engine.prefill(number, prompt[tokens:-1])
            await engine.join(number, prompt)
            assert ids(await engine.decode_to_the_end(), number) == expected


async def test_what_runs_can_be_kept_and_is_not_disturbed(make_host: MakeHost, tiny_model: Path) -> None:
    async with running(make_host, tiny_model) as engine:
        alone = await engine.generate(100, PROMPT, max_tokens=9)
        for number in (1, 2):
            await engine.prefill(number, PROMPT[number - 1 : -1])
            await engine.join(number, PROMPT[number - 1 :], max_tokens=9)
        (piece,) = cut(ROOT, PROMPT, (4,))
        assert handles(await engine(c.StoreKv(SequenceId(1), (piece,)))) == [piece.handle]
        decoded = await engine(c.Decode(3))
        assert isinstance(decoded, c.Decoded)
        spoken = next(each for each in decoded.rows if each.sequence_id == 1).tokens
        history = PROMPT + tuple(token.token_id for token in spoken)
        pieces = cut(ROOT, history, (4, len(history) - 1))
        assert len(handles(await engine(c.StoreKv(SequenceId(1), pieces)))) == 2
        assert [token.token_id for token in spoken] + ids(await engine.decode_to_the_end(), 1) == alone
        await engine(load(3, [each.handle for each in pieces], len(history) - 1))
        await engine(c.Join((row(3, history, output=3, max_tokens=9),)))
        assert ids(await engine.decode_to_the_end(), 3) == alone[3:]


async def test_without_all_of_its_pieces_a_sequence_stays_as_it_is(make_host: MakeHost, tiny_model: Path) -> None:
    async with running(make_host, tiny_model) as engine:
        expected = await engine.generate(100, PROMPT)
        await engine.prefill(1, PROMPT[:-1])
        first, second = cut(ROOT, PROMPT, (3, 5))
        await engine(c.StoreKv(SequenceId(1), (first,)))
        both = [first.handle, second.handle]
        assert await engine(load(1, both, 5)) == c.KvLoaded(SequenceId(1), 0)
        assert await engine(load(1, both[:1], 3)) == c.KvLoaded(SequenceId(1), 3)
        await engine.prefill(1, PROMPT[3:-1])
        await engine(c.DropKv((first.handle,)))
        assert await engine(load(1, both[:1], 3)) == c.KvLoaded(SequenceId(1), 0)
        await engine.join(1, PROMPT)
        assert ids(await engine.decode_to_the_end(), 1) == expected


async def test_what_a_sequence_does_not_hold_is_not_kept(make_host: MakeHost, tiny_model: Path) -> None:
    async with running(make_host, tiny_model) as engine:
        await engine.prefill(1, PROMPT[:4])
        there, not_yet = cut(ROOT, PROMPT, (4, 5))
        stored = await engine(c.StoreKv(SequenceId(1), (there, not_yet)))
        assert isinstance(stored, c.Stored)
        assert (handles(stored), stored.missing) == ([there.handle], (not_yet.handle,))
        unknown = await engine(c.StoreKv(SequenceId(9), (not_yet,)))
        assert unknown == c.Stored(SequenceId(9), (), (not_yet.handle,))


async def test_without_a_folder_nothing_is_on_disk(make_host: MakeHost, tiny_model: Path) -> None:
    async with running(make_host, tiny_model) as engine:
        (piece,) = cut(ROOT, PROMPT, (3,))
        await engine.prefill(1, PROMPT)
        await engine(c.StoreKv(SequenceId(1), (piece,)))
        await engine(c.DropKv((piece.handle,)))
        assert await engine(c.ListKv()) == c.KvListed(())
        assert await engine(c.FetchKv((piece.handle,))) == c.Stored(None, (), (piece.handle,))
        assert isinstance(await engine(c.EraseKv((piece.handle,))), c.Done)


async def listed(engine: Submitter, pieces: int) -> list[KvPiece]:
    """What is on disk, once it is so many pieces: they are written behind the engine."""
    with anyio.fail_after(30):
        while True:
            result = await engine(c.ListKv())
            assert isinstance(result, c.KvListed)
            assert all(nbytes > 0 for _, nbytes in result.pieces)
            if len(result.pieces) == pieces:
                return [piece for piece, _ in result.pieces]


async def test_what_is_kept_comes_back_from_disk_until_it_is_erased(
    make_host_with_folder: MakeHost, tiny_model: Path
) -> None:
    pieces = cut(ROOT, PROMPT, (3, 5))
    both = tuple(piece.handle for piece in pieces)
    async with running(make_host_with_folder, tiny_model) as engine:
        expected = await engine.generate(100, PROMPT)
        await engine.prefill(1, PROMPT[:-1])
        stored = await engine(c.StoreKv(SequenceId(1), pieces))
        await engine(c.DropKv(both))
        assert await engine(load(2, both, 5)) == c.KvLoaded(SequenceId(2), 0)
        assert isinstance(stored, c.Stored)
        assert await engine(c.FetchKv(both)) == replace(stored, sequence_id=None)
        assert await engine(load(2, both, 5)) == c.KvLoaded(SequenceId(2), 5)
        await engine.prefill(2, PROMPT[5:-1])
        await engine.join(2, PROMPT)
        assert ids(await engine.decode_to_the_end(), 2) == expected
        assert set(await listed(engine, 2)) == set(pieces)
        assert isinstance(await engine(c.EraseKv((both[1],))), c.Done)
        assert await listed(engine, 1) == [pieces[0]]
        await engine(c.DropKv(both))
        assert handles(await engine(c.FetchKv(both))) == [both[0]]


async def test_after_clearing_nothing_is_kept_anywhere_and_what_runs_goes_on(
    make_host_with_folder: MakeHost, tiny_model: Path
) -> None:
    pieces = cut(ROOT, PROMPT, (3, 5))
    both = tuple(piece.handle for piece in pieces)
    async with running(make_host_with_folder, tiny_model) as engine:
        expected = await engine.generate(100, PROMPT)
        await engine.prefill(1, PROMPT[:-1])
        await engine(c.StoreKv(SequenceId(1), pieces))
        assert await engine(c.ClearKv()) == c.KvListed(())
        assert await engine(c.ListKv()) == c.KvListed(())
        assert await engine(load(2, both, 5)) == c.KvLoaded(SequenceId(2), 0)
        assert await engine(c.FetchKv(both)) == c.Stored(None, (), both)
        await engine.join(1, PROMPT)
        assert ids(await engine.decode_to_the_end(), 1) == expected
        gone = await engine(c.StoreKv(SequenceId(9), pieces[:1]))
        assert gone == c.Stored(SequenceId(9), (), both[:1], unwritten=both[:1])


async def test_clearing_needs_no_folder(make_host: MakeHost, tiny_model: Path) -> None:
    async with running(make_host, tiny_model) as engine:
        (piece,) = cut(ROOT, PROMPT, (3,))
        await engine.prefill(1, PROMPT)
        await engine(c.StoreKv(SequenceId(1), (piece,)))
        assert await engine(c.ClearKv()) == c.KvListed(())
        assert await engine(load(2, [piece.handle], 3)) == c.KvLoaded(SequenceId(2), 0)


@pytest.mark.parametrize("factory", [MLX], indirect=True)
async def test_what_is_on_disk_serves_the_next_engine(make_host_with_folder: MakeHost, tiny_model: Path) -> None:
    pieces = cut(ROOT, LONG, block_stops(150))
    wanted = tuple(piece.handle for piece in pieces)
    prompt = (*LONG[:140], 90, 91, 92)
    async with running(make_host_with_folder, tiny_model) as engine:
        expected = await engine.generate(100, prompt)
        await engine.prefill(1, LONG)
        await engine(c.StoreKv(SequenceId(1), pieces))
        await listed(engine, len(pieces))
    async with running(make_host_with_folder, tiny_model) as engine:
        assert set(await listed(engine, len(pieces))) == set(pieces)
        assert handles(await engine(c.FetchKv(wanted))) == list(wanted)
        await engine(load(2, wanted, 140))
        await engine.prefill(2, prompt[140:-1])
        await engine.join(2, prompt)
        assert ids(await engine.decode_to_the_end(), 2) == expected


async def test_a_sequence_that_resumes_behind_its_output_says_the_same(
    make_host: MakeHost, factory: str, tiny_model: Path
) -> None:
    async with running(make_host, tiny_model) as engine:
        sampling: dict[str, Any] = {"temperature": 0.9, "seed": 11, "max_tokens": 8}
        if factory == MLX:
            sampling |= {"repetition_penalty": 1.2, "frequency_penalty": 0.4}
        whole = await engine.generate(1, PROMPT, **sampling)
        history = (*PROMPT, *whole[:3])
        await engine.prefill(2, history[:-1])
        await engine(c.Join((row(2, history, output=3, **sampling),)))
        assert ids(await engine.decode_to_the_end(), 2) == whole[3:]


async def test_a_missing_model_is_the_models_fault(make_host: MakeHost, factory: str, tmp_path: Path) -> None:
    missing = "missing" if factory == FAKE else str(tmp_path / "missing")
    with pytest.raises(ExceptionGroup) as caught:
        async with running(make_host, Path(missing)):
            raise AssertionError("it loaded")
    assert caught.group_contains(ModelError)


async def test_a_command_that_raises_is_the_hosts_death(make_host: MakeHost, tiny_model: Path) -> None:
    with pytest.raises(ExceptionGroup) as caught:
        async with running(make_host, tiny_model) as engine:
            await engine.prefill(1, PROMPT)
            (piece,) = cut(ROOT, PROMPT, (3,))
            await engine(c.StoreKv(SequenceId(1), (piece,)))
            await engine(load(2, [piece.handle], 4))
    assert caught.group_contains(EngineFault)
