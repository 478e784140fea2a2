"""The whole house on both event loops, above an engine without MLX."""

from functools import partial

import anyio
import pytest

from actors import messages as m
from actors.replies import Replies
from actors.supervisor import root_cause
from actors.system import House
from runtime.engine import commands as c
from runtime.errors import ModelError, RestartsExhausted
from runtime.settings import Settings
from runtime.types import CancelCause, FinishReason, RejectReason, RequestId, TokenOutput
from tests.fakes import FakeEngine, Gate, fake_output, fake_scored
from tests.house.opening import all_free, ask, converse, dies_at, hear, last_words, open_house, output, restarts, until

pytestmark = pytest.mark.anyio


async def test_a_request_is_accepted_prefilled_decoded_and_finished() -> None:
    async with open_house() as house:
        heard = await converse(house, "r1", (1, 2, 3))
        assert isinstance(heard[0], m.Accepted)
        assert output(heard) == fake_output((1, 2, 3), 5)
        finished = heard[-1]
        assert isinstance(finished, m.Finished)
        assert finished.reason is FinishReason.LENGTH
        assert finished.usage == m.Usage(prompt_tokens=3, cached_tokens=0, completion_tokens=5)
        await all_free(house)


async def test_fifty_requests_at_once_all_end_each_with_its_own_tokens() -> None:
    async with open_house() as house:
        prompts = {f"r{i}": tuple(range(1, 2 + i * 7 % 60)) for i in range(50)}
        answers: dict[str, list[m.Reply]] = {}

        async def one(name: str, prompt: tuple[int, ...]) -> None:
            answers[name] = await converse(house, name, prompt, max_tokens=20)

        async with anyio.create_task_group() as group:
            for name, prompt in prompts.items():
                group.start_soon(one, name, prompt)
        for name, prompt in prompts.items():
            assert output(answers[name]) == fake_output(prompt, 20)
            assert len(last_words(answers[name])) == 1
        await all_free(house)


async def test_a_second_turn_starts_from_the_kept_prefix_and_says_the_same() -> None:
    async with open_house() as house:
        first = await converse(house, "r1", (1, 2, 3))
        await all_free(house)
        prompt = (1, 2, 3, *output(first), 4, 5)
        second = await converse(house, "r2", prompt)
        assert output(second) == fake_output(prompt, 5)
        finished = second[-1]
        assert isinstance(finished, m.Finished)
        assert finished.usage.cached_tokens == 7  # the prompt and all of the reply but its last token


def scores(heard: list[m.Reply]) -> list[tuple[TokenOutput, ...]]:
    return [reply.tokens for reply in heard if isinstance(reply, m.PromptScored)]


def fake_scores(prompt: tuple[int, ...], top: int) -> tuple[TokenOutput, ...]:
    """What FakeEngine gives for a whole prompt."""
    behind = [fake_scored(prompt[:place], prompt[place], top) for place in range(1, len(prompt))]
    return (TokenOutput(prompt[0]), *behind)


async def test_scored_prompts_among_others_are_told_whole_before_their_tokens() -> None:
    async with open_house(settings=Settings(prefill_chunk=16)) as house:
        prompts = [tuple(range(5, 6 + i * 9)) for i in range(8)]
        asked = [i if i % 2 else None for i in range(8)]
        with Replies() as replies:
            house.admit(tuple(ask(house, replies, f"r{i}", prompts[i], score_prompt=asked[i]) for i in range(8)))
            heard = await hear(replies)
        for i, (prompt, top) in enumerate(zip(prompts, asked, strict=True)):
            words: list[m.Reply] = [reply for reply in heard[f"r{i}"] if not isinstance(reply, m.PrefillAdvanced)]
            assert output(words) == fake_output(prompt, 5)
            assert scores(words) == ([] if top is None else [fake_scores(prompt, top)])
            assert isinstance(words[2], m.TokensDecoded if top is None else m.PromptScored)
        await all_free(house)


async def test_a_scored_prompt_is_computed_in_full_and_serves_later_ones() -> None:
    async with open_house() as house:
        prompt = tuple(range(5, 30))
        for score_prompt, cached in ((None, 0), (1, 0), (None, 24)):
            with Replies() as replies:
                house.admit((ask(house, replies, f"r{score_prompt}{cached}", prompt, score_prompt=score_prompt),))
                ((_, heard),) = (await hear(replies)).items()
            assert scores(heard) == ([] if score_prompt is None else [fake_scores(prompt, score_prompt)])
            finished = heard[-1]
            assert isinstance(finished, m.Finished)
            assert finished.usage.cached_tokens == cached
            await all_free(house)


@pytest.mark.parametrize("prompt", [(7,), (7, 8), tuple(range(5, 60))], ids=len)
async def test_a_request_for_scores_alone_ends_with_them(prompt: tuple[int, ...]) -> None:
    engine = FakeEngine()
    async with open_house(lambda: engine, settings=Settings(prefill_chunk=16)) as house:
        with Replies() as replies:
            house.admit((ask(house, replies, "r1", prompt, max_tokens=0, score_prompt=3),))
            heard = (await hear(replies))["r1"]
        usage = m.Usage(len(prompt), 0, 0)
        assert heard[-1] == m.Finished(RequestId("r1"), (), FinishReason.LENGTH, usage)
        assert scores(heard) == [fake_scores(prompt, 3)]
        await all_free(house)
        assert house.snapshot().admitter.prompt_tokens == len(prompt)  # type: ignore[union-attr]
        with anyio.fail_after(10):
            await until(lambda: not (engine.rows or engine.caches or engine.finished))


async def test_a_client_that_reads_late_still_gets_the_scores() -> None:
    async with open_house(settings=Settings(prefill_chunk=16)) as house:
        prompt = tuple(range(5, 300))
        with Replies(capacity=2) as replies:
            house.admit((ask(house, replies, "r1", prompt, score_prompt=0),))
            await all_free(house)
            heard = (await hear(replies))["r1"]
        assert scores(heard) == [fake_scores(prompt, 0)]
        assert output(heard) == fake_output(prompt, 5)


async def test_a_full_line_is_refused_at_the_door_all_or_none() -> None:
    gate = Gate(c.Decode)
    async with open_house(lambda: FakeEngine(before=gate), settings=Settings(max_concurrency=1, queue_size=1)) as house:
        with Replies() as first, Replies() as second:
            house.admit((ask(house, first, "r1"),))
            house.admit((ask(house, second, "r2"), ask(house, second, "r3")))
            refused = await hear(second)
            for name in ("r2", "r3"):
                (word,) = refused[name]
                assert isinstance(word, m.Rejected)
                assert word.reason is RejectReason.QUEUE_FULL
                assert word.retry_after_s > 0
            gate.open()
            assert isinstance((await hear(first))["r1"][-1], m.Finished)


async def test_ten_thousand_requests_at_one_moment_are_accepted_or_refused_and_none_is_lost() -> None:
    async with open_house(settings=Settings(max_concurrency=4, queue_size=4)) as house:
        with Replies() as replies:
            for i in range(10_000):
                house.admit((ask(house, replies, f"r{i}"),))
                house.cancel(RequestId(f"r{i - 5}"), CancelCause.CLIENT_LEFT)
            heard = await hear(replies)
        words = [last_words(heard[f"r{i}"]) for i in range(10_000)]
        assert all(len(each) == 1 for each in words)
        assert sum(isinstance(word, m.Rejected) for (word,) in words) > 9_000
        await all_free(house)
        assert restarts(house) == 0


async def test_a_house_that_has_closed_still_answers() -> None:
    async with open_house() as house:
        pass
    with Replies() as replies:
        house.admit((ask(house, replies, "r1"),))
        (word,) = (await hear(replies))["r1"]
        assert isinstance(word, m.Rejected)


@pytest.mark.parametrize("phase", [c.LoadModel, c.Prefill, c.Decode])
async def test_a_cancelled_request_is_free_whatever_its_phase(phase: type[c.Command]) -> None:
    gate = Gate(phase)
    engine = FakeEngine(before=gate if phase is not c.LoadModel else (lambda _command: None))
    if phase is c.LoadModel:  # the line: one request runs, the next one waits
        gate = Gate(c.Decode)
        engine.before = gate
    async with open_house(lambda: engine, settings=Settings(max_concurrency=1)) as house:
        with Replies() as replies:
            names = ["r1", "r2"] if phase is c.LoadModel else ["r1"]
            house.admit(tuple(ask(house, replies, name) for name in names))
            with anyio.fail_after(10):
                await until(gate.reached.is_set)
            house.cancel(RequestId(names[-1]), CancelCause.CLIENT_LEFT)
            house.cancel(RequestId(names[-1]), CancelCause.CLIENT_LEFT)
            with anyio.fail_after(10):
                await until(lambda: names[-1] not in house.snapshot().admitter.open_requests)  # type: ignore[union-attr]
            gate.open()
            heard = await hear(replies)
            (word,) = last_words(heard[names[-1]])
            assert isinstance(word, m.Cancelled)
            assert word.cause is CancelCause.CLIENT_LEFT
        await all_free(house)
        with anyio.fail_after(10):
            await until(lambda: not (engine.rows or engine.caches or engine.finished))


async def test_a_deadline_ends_a_request_that_waits_in_line() -> None:
    gate = Gate(c.Decode)
    async with open_house(lambda: FakeEngine(before=gate), settings=Settings(max_concurrency=1)) as house:
        with Replies() as running, Replies() as waiting:
            house.admit((ask(house, running, "r1"),))
            house.admit((ask(house, waiting, "r2", timeout_s=0.05),))
            word = (await hear(waiting))["r2"][-1]
            assert isinstance(word, m.Cancelled)
            assert word.cause is CancelCause.DEADLINE
            gate.open()
            assert isinstance((await hear(running))["r1"][-1], m.Finished)


async def test_a_reader_that_takes_nothing_is_cancelled_and_stalls_nobody() -> None:
    async with open_house(settings=Settings(stall_timeout=0.3)) as house:
        with Replies(capacity=4) as slow:
            house.admit((ask(house, slow, "slow", max_tokens=4000),))
            quick = await converse(house, "quick", (5, 6, 7), max_tokens=50)
            assert output(quick) == fake_output((5, 6, 7), 50)
            await all_free(house)
            heard = (await hear(slow))["slow"]
            word = heard[-1]
            assert isinstance(word, m.Cancelled)
            assert word.cause is CancelCause.STALLED
            assert output(heard) == fake_output((1, 2, 3), len(output(heard)))


def has_restarted(house: House, times: int) -> bool:
    return restarts(house) >= times


async def test_an_engine_that_raises_mid_step_costs_no_request_and_no_token() -> None:
    async with open_house(dies_at([3])) as house:
        with Replies() as replies:
            prompts = {f"r{i}": (i, 2, 3) for i in range(1, 6)}
            house.admit(tuple(ask(house, replies, name, prompt, max_tokens=9) for name, prompt in prompts.items()))
            heard = await hear(replies)
        for name, prompt in prompts.items():
            assert output(heard[name]) == fake_output(prompt, 9)
            assert len(last_words(heard[name])) == 1
            finished = heard[name][-1]
            assert isinstance(finished, m.Finished)
            assert finished.usage.completion_tokens == 9
        assert restarts(house) == 1
        assert isinstance((await converse(house, "next", (7, 8)))[-1], m.Finished)


@pytest.mark.parametrize("kind", [c.Prefill, c.Decode])
async def test_an_engine_death_neither_loses_the_scores_nor_repeats_them(kind: type[c.Command]) -> None:
    prompt = tuple(range(5, 100))
    async with open_house(dies_at([3], kind), settings=Settings(prefill_chunk=16)) as house:
        with Replies() as replies:
            house.admit((ask(house, replies, "r1", prompt, max_tokens=9, score_prompt=2),))
            heard = (await hear(replies))["r1"]
        assert scores(heard) == [fake_scores(prompt, 2)]
        assert output(heard) == fake_output(prompt, 9)
        assert restarts(house) == 1


@pytest.mark.parametrize("deaths", [[0, 0], [3, 0, 0]], ids=["at once", "after some tokens"])
async def test_a_request_that_gets_no_further_in_two_deaths_in_a_row_fails(deaths: list[int]) -> None:
    async with open_house(dies_at(deaths)) as house:
        heard = await converse(house, "r1", (1, 2, 3), max_tokens=50)
        (word,) = last_words(heard)
        assert isinstance(word, m.Failed)
        assert isinstance((await converse(house, "next", (7, 8)))[-1], m.Finished)
        await all_free(house)


def poisoned_by(token_id: int) -> FakeEngine:
    """Dies whenever a row whose prompt begins with `token_id` is to be decoded."""
    engine = FakeEngine()

    def before(command: c.Command) -> None:
        if isinstance(command, c.Decode) and any(row.history[0] == token_id for row in engine.rows.values()):
            raise RuntimeError("planted: poison")

    engine.before = before
    return engine


async def test_a_request_that_kills_every_engine_fails_alone() -> None:
    async with open_house(lambda: poisoned_by(13)) as house:
        with Replies() as replies:
            prompts = {f"r{i}": (i, 2, 3) for i in range(10, 18)}
            house.admit(tuple(ask(house, replies, name, prompt, max_tokens=9) for name, prompt in prompts.items()))
            heard = await hear(replies)
        for name, prompt in prompts.items():
            (word,) = last_words(heard[name])
            if prompt[0] == 13:
                assert isinstance(word, m.Failed)
            else:
                assert isinstance(word, m.Finished)
                assert output(heard[name]) == fake_output(prompt, 9)
        assert restarts(house) == 2


async def test_the_fourth_death_within_a_minute_closes_the_house_and_leaves_nobody_without_a_last_word() -> None:
    with Replies() as replies:
        with pytest.raises(ExceptionGroup) as caught:
            async with open_house(dies_at([0, 0, 0, 0])) as house:
                for i in range(4):
                    house.admit((ask(house, replies, f"r{i}"),))
                    with anyio.fail_after(10):
                        await until(partial(has_restarted, house, min(i + 1, 3)))
                await anyio.sleep_forever()
        assert isinstance(root_cause(caught.value), RestartsExhausted)
        heard = await hear(replies)
        assert all(len(last_words(heard[f"r{i}"])) == 1 for i in range(4))


async def test_a_model_that_cannot_be_loaded_closes_the_house_at_once() -> None:
    with pytest.raises(ExceptionGroup) as caught:
        async with open_house(model="missing"):
            raise AssertionError("the house opened without a model")
    assert isinstance(root_cause(caught.value), ModelError)


async def test_a_drain_lets_those_inside_finish_and_nobody_else_in() -> None:
    gate = Gate(c.Decode)
    async with open_house(lambda: FakeEngine(before=gate)) as house, anyio.create_task_group() as group:
        with Replies() as inside, Replies() as late:
            house.admit((ask(house, inside, "r1"),))
            with anyio.fail_after(10):
                await until(gate.reached.is_set)
            group.start_soon(house.drain, 10.0)
            with anyio.fail_after(10):
                await until(lambda: house.snapshot().admitter.draining)  # type: ignore[union-attr]
            house.admit((ask(house, late, "r2"),))
            word = (await hear(late))["r2"][-1]
            assert isinstance(word, m.Rejected)
            assert word.reason is RejectReason.DRAINING
            gate.open()
            assert isinstance((await hear(inside))["r1"][-1], m.Finished)


async def test_a_drain_that_takes_too_long_cancels_who_is_left() -> None:
    async with open_house() as house:
        with Replies(capacity=100_000) as replies:
            house.admit((ask(house, replies, "r1", max_tokens=3_000_000),))
            with anyio.fail_after(10):
                await house.drain(0.05)
            word = (await hear(replies))["r1"][-1]
            assert isinstance(word, m.Cancelled)
            assert word.cause is CancelCause.SHUTDOWN


async def test_the_context_is_what_the_operator_chose_and_what_the_model_declares_stays_known() -> None:
    async with open_house(settings=Settings(effective_context_tokens=50)) as house:
        facts = house.facts()
        assert facts
        assert (facts.context_tokens, facts.declared_context_tokens) == (50, 4096)
