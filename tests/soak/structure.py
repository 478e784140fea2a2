"""Two hundred answers in ten schemas, on the default model: all of them valid, and free rows beside them say what they
say alone. `make soak`."""

import json
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from threading import Event

from jsonschema import ValidationError
from openai import OpenAI
from openai.types.chat import ChatCompletion, ChatCompletionChunk

from tests.e2e.process import ServerProcess
from tests.schemas import SCHEMAS, validate

VARIANTS, AT_ONCE = 10, 8
"""Each variant of each schema is asked for twice, whole and streamed."""
MAX_TOKENS, FREE_TOKENS = 200, 40
FREE = (
    "The capital of France is",
    "Once upon a time, in a small village by the sea, there lived",
    "1, 2, 3, 4, 5, 6,",
    "def fibonacci(n):",
)
FLAGS = ("--cache-memory-mb", "0", "--log-level", "warning")
"""Every prompt is computed, so that free rows differ in nothing but their company."""


@dataclass(frozen=True, slots=True)
class Job:
    """An answer to ask for."""

    schema: str
    variant: int
    streamed: bool

    @property
    def temperature(self) -> float:
        """Every other variant is greedy."""
        return 0.0 if self.variant % 2 else 0.8

    @property
    def message(self) -> str:
        task = f"a short sum that is {self.variant + 3}" if self.schema == "recursive" else f"person {self.variant}"
        return f"Describe {task} in JSON, in as few words as you can."


@dataclass(frozen=True, slots=True)
class Answer:
    """What came of it."""

    job: Job
    text: str
    tokens: int
    cut: bool

    @property
    def valid(self) -> bool:
        try:
            validate(json.loads(self.text), SCHEMAS[self.job.schema])
        except (json.JSONDecodeError, ValidationError):
            return False
        return True


def ask(client: OpenAI, job: Job) -> Answer:
    fields = {
        "model": "default",
        "messages": [{"role": "user", "content": job.message}],
        "response_format": {"type": "json_schema", "json_schema": {"name": "answer", "schema": SCHEMAS[job.schema]}},
        "max_tokens": MAX_TOKENS,
        "temperature": job.temperature,
        "seed": job.variant,
    }
    if job.streamed:
        fields |= {"stream": True, "stream_options": {"include_usage": True}}
        return streamed(job, list(client.chat.completions.create(**fields)))  # type: ignore[call-overload]
    return whole(job, client.chat.completions.create(**fields))  # type: ignore[call-overload]


def streamed(job: Job, chunks: Sequence[ChatCompletionChunk]) -> Answer:
    *said, last = chunks
    assert last.usage
    text = "".join(chunk.choices[0].delta.content or "" for chunk in said)
    return Answer(job, text, last.usage.completion_tokens, said[-1].choices[0].finish_reason == "length")


def whole(job: Job, reply: ChatCompletion) -> Answer:
    assert reply.usage
    (choice,) = reply.choices
    text = choice.message.content or ""
    return Answer(job, text, reply.usage.completion_tokens, choice.finish_reason == "length")


def say(client: OpenAI, prompt: str) -> str:
    reply = client.completions.create(model="default", prompt=prompt, max_tokens=FREE_TOKENS, temperature=0)
    return reply.choices[0].text


def say_again_and_again(client: OpenAI, prompt: str, until: Event) -> list[str]:
    texts = []
    while not until.is_set():
        texts.append(say(client, prompt))
    return texts


def soak(client: OpenAI) -> tuple[list[Answer], int, int]:
    """All answers; how many free texts there were beside them, and how many of these were not what they are alone."""
    jobs = [Job(name, variant, form) for variant in range(VARIANTS) for name in SCHEMAS for form in (False, True)]
    alone = [say(client, prompt) for prompt in FREE]
    done = Event()
    with ThreadPoolExecutor(AT_ONCE) as asking, ThreadPoolExecutor(len(FREE)) as running:
        beside = [running.submit(say_again_and_again, client, prompt, done) for prompt in FREE]
        try:
            answers = list(asking.map(lambda job: ask(client, job), jobs))
        finally:
            done.set()
        texts = [each.result() for each in beside]
    changed = sum(text != expected for said, expected in zip(texts, alone, strict=True) for text in said)
    return answers, sum(map(len, texts)), changed


def row(name: str, answers: Sequence[Answer]) -> str:
    ended = [answer for answer in answers if not answer.cut]
    valid = sum(answer.valid for answer in ended)
    distinct = len({answer.text for answer in answers})
    counts = (len(answers), len(ended), valid, distinct, sum(answer.tokens for answer in answers))
    return f"{name:10}" + "".join(f"{count:9}" for count in counts)


def table(answers: Sequence[Answer]) -> str:
    groups = {name: [answer for answer in answers if answer.job.schema == name] for name in SCHEMAS}
    groups["whole"] = [answer for answer in answers if not answer.job.streamed]
    groups["streamed"] = [answer for answer in answers if answer.job.streamed]
    groups["greedy"] = [answer for answer in answers if not answer.job.temperature]
    groups["sampled"] = [answer for answer in answers if answer.job.temperature]
    groups["all"] = list(answers)
    head = f"{'':10}" + "".join(f"{word:>9}" for word in ("answers", "ended", "valid", "distinct", "tokens"))
    return "\n".join([head, *(row(name, group) for name, group in groups.items())])


def pairs_that_differ(answers: Sequence[Answer]) -> int:
    """Variants of which the whole answer and the streamed one, each in its own company, are not the same."""
    texts: dict[tuple[str, int], set[str]] = {}
    for answer in answers:
        texts.setdefault((answer.job.schema, answer.job.variant), set()).add(answer.text)
    return sum(len(pair) > 1 for pair in texts.values())


def main() -> int:
    with ServerProcess(*FLAGS) as server, OpenAI(base_url=f"{server.url}/v1", api_key="x", max_retries=0) as client:
        started_at = time.monotonic()
        answers, free, changed = soak(client)
        minutes = (time.monotonic() - started_at) / 60
    print(table(answers))
    print(f"free texts beside them: {free}, not what they are alone: {changed}")
    print(f"streamed answers that are not the whole ones: {pairs_that_differ(answers)}; {minutes:.1f} minutes")
    for answer in answers:
        if answer.cut or not answer.valid:
            print(f"{'cut off' if answer.cut else 'NOT VALID'}: {answer.job}: {answer.text}")
    good = all(answer.valid and not answer.cut for answer in answers)
    return 0 if good and free and not changed and not pairs_that_differ(answers) else 1


if __name__ == "__main__":
    sys.exit(main())
