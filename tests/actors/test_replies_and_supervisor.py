"""The way back to a client, and who restarts what crashed."""

from collections.abc import Awaitable, Callable

import anyio
import pytest

from actors import messages as m
from actors.base import Mailbox
from actors.policies.restarts import Intensity
from actors.replies import Replies
from actors.supervisor import Supervisor
from runtime.errors import MailboxOverflow, ModelError, RestartsExhausted
from runtime.types import FinishReason, RequestId, TokenOutput

pytestmark = pytest.mark.anyio

R1, R2 = RequestId("r1"), RequestId("r2")


def decoded(request_id: RequestId, *ids: int) -> m.TokensDecoded:
    return m.TokensDecoded(request_id, tuple(map(TokenOutput, ids)))


def finished(request_id: RequestId, *ids: int) -> m.Finished:
    return m.Finished(request_id, tuple(map(TokenOutput, ids)), FinishReason.LENGTH, m.Usage(1, 0, 1))


async def test_replies_end_after_the_last_word_of_every_request() -> None:
    with Replies() as replies:
        first, second = replies.sink(R1), replies.sink(R2)
        said: list[m.Reply] = [m.Accepted(R1), finished(R1), decoded(R2, 5), finished(R2)]
        for reply in said:
            sink = first if reply.request_id == R1 else second
            if isinstance(reply, m.Finished):
                sink.last_word(reply)
            else:
                assert sink.offer(reply)
        assert [reply async for reply in replies] == said


async def test_a_full_sink_refuses_tokens_but_keeps_a_place_for_the_last_word() -> None:
    with Replies(capacity=2) as replies:
        sink = replies.sink(R1)
        assert sink.offer(decoded(R1, 1))
        assert sink.offer(decoded(R1, 2))
        assert not sink.offer(decoded(R1, 3))
        sink.last_word(finished(R1, 3, 4))
        assert sink.delivered == [1, 2, 3, 4]
        assert len([reply async for reply in replies]) == 3


async def test_a_full_sink_keeps_a_place_for_the_prompts_scores_which_are_told_once() -> None:
    with Replies(capacity=1) as replies:
        sink = replies.sink(R1)
        assert sink.offer(m.PrefillAdvanced(R1, 1, 2))
        assert not sink.offer(m.PrefillAdvanced(R1, 2, 2))
        scored = m.PromptScored(R1, (TokenOutput(5),))
        sink.prompt_scored(scored)
        sink.prompt_scored(scored)
        sink.last_word(finished(R1))
        assert [reply async for reply in replies] == [m.PrefillAdvanced(R1, 1, 2), scored, finished(R1)]


async def test_nobody_speaks_after_the_last_word() -> None:
    with Replies() as replies:
        sink = replies.sink(R1)
        sink.last_word(finished(R1))
        assert not sink.offer(decoded(R1, 1))
        with pytest.raises(RuntimeError, match="already had its last word"):
            sink.last_word(finished(R1))


async def test_what_is_said_to_a_client_that_left_is_dropped() -> None:
    with Replies() as replies:
        sink = replies.sink(R1)
    assert sink.offer(decoded(R1, 1))
    sink.last_word(finished(R1))


async def test_a_mailbox_overflows_loudly_and_drops_mail_once_closed() -> None:
    mailbox = Mailbox[int]("box", 2)
    mailbox.tell(1)
    mailbox.tell(2)
    with pytest.raises(MailboxOverflow, match="mailbox box holds 2"):
        mailbox.tell(3)
    mailbox.clear()
    assert mailbox.snapshot().depth == 0
    mailbox.close()
    mailbox.tell(4)


class Dying:
    """A life that dies as often as told, then goes on until cancelled."""

    def __init__(self, deaths: int, error: Exception) -> None:
        self.lives = 0
        self._deaths = deaths
        self._error = error

    async def __call__(self) -> None:
        self.lives += 1
        if self.lives <= self._deaths:
            raise ExceptionGroup("a task group's", [self._error])


def supervisor(times: Callable[[], float] = lambda: 0.0) -> Supervisor:
    return Supervisor("room", Intensity(restarts=3, within_s=60.0), times)


async def test_a_crash_is_swallowed_and_the_life_begins_afresh() -> None:
    life = Dying(3, RuntimeError("planted"))
    keeper = supervisor()
    await keeper.keep_alive(life)
    assert (life.lives, keeper.restarts) == (4, 3)


async def test_one_death_more_than_the_intensity_allows_is_the_supervisors_own() -> None:
    life = Dying(9, RuntimeError("planted"))
    with pytest.raises(RestartsExhausted, match="room died 4 times in 60 s, last of RuntimeError: planted"):
        await supervisor().keep_alive(life)
    assert life.lives == 4


async def test_deaths_far_apart_never_add_up() -> None:
    times = iter(range(0, 100_000, 60))
    life = Dying(50, RuntimeError("planted"))
    await supervisor(lambda: float(next(times))).keep_alive(life)
    assert life.lives == 51


async def test_a_model_that_cannot_be_loaded_is_not_tried_again() -> None:
    life = Dying(9, ModelError("no such model"))
    with pytest.raises(ModelError, match="no such model"):
        await supervisor().keep_alive(life)
    assert life.lives == 1


async def test_children_that_share_a_supervisor_die_alone() -> None:
    keeper = supervisor()
    lives = {"a": Dying(2, RuntimeError("planted")), "b": Dying(0, RuntimeError("never"))}

    async def keep(life: Callable[[], Awaitable[None]]) -> None:
        await keeper.keep_alive(life)

    async with anyio.create_task_group() as group:
        for life in lives.values():
            group.start_soon(keep, life)
    assert {name: life.lives for name, life in lives.items()} == {"a": 3, "b": 1}
