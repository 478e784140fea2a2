"""The prompts that the house is probed with."""

from pathlib import Path

import pytest

from api.probes import QUESTIONS, probe_prompts
from tests.api.vocabularies import TEMPLATE, byte_level, write_model

pytestmark = pytest.mark.anyio


async def test_the_questions_are_asked_in_the_models_chat_format(tmp_path: Path) -> None:
    model = write_model(tmp_path, byte_level())
    prompts = await probe_prompts(model.codec)
    assert len(prompts) == len(QUESTIONS) == 8
    for prompt, question in zip(prompts, QUESTIONS, strict=True):
        assert model.text(prompt) == f"<|im_start|>user\n{question}<|im_end|>\n<|im_start|>assistant\n<think>\n"
    assert len(set(map(len, prompts))) == 8


@pytest.mark.parametrize("template", ["", "{{ raise_exception('a question alone is not enough') }}" + TEMPLATE])
async def test_without_a_chat_format_that_takes_them_they_are_plain(tmp_path: Path, template: str) -> None:
    model = write_model(tmp_path, byte_level(), template=template)
    assert [model.text(prompt) for prompt in await probe_prompts(model.codec)] == list(QUESTIONS)
