"""What the DivergenceProbe asks: ordinary questions of different lengths, in several languages and in code."""

from api.errors import ApiError
from api.text.codec import TextCodec

QUESTIONS = (
    "What is the capital of Portugal?",
    "Write a haiku about the sea.",
    "Erkläre in zwei Sätzen, warum der Himmel blau ist.",
    "请用三句话介绍一下长城的历史。",
    "Translate into English: « Il vaut mieux être seul que mal accompagné. » Then say when people use it.",
    "Which of these numbers are prime, and why are the others not? 21, 29, 33, 37, 41, 49, 51, 57, 61, 77, 87, 91, 97",
    "What does this function return for [3, 1, 2], and how could it be shorter?\n\n"
    "def f(items):\n    result = []\n    while items:\n        least = items[0]\n        for item in items:\n"
    "            if item < least:\n                least = item\n        result.append(least)\n"
    "        items.remove(least)\n    return result\n",
    "Here is a shopping list:\n- 2 kg of potatoes\n- 6 eggs\n- 250 g of butter\n- 1 litre of milk\n- rye bread\n"
    "- 3 onions\n- black pepper\n- a bunch of parsley\n\nThe shop closes in half an hour and is ten minutes away. "
    "Two people who speak no common language are to do the shopping together, and neither has been there before. How "
    "would you split the list between them, and what would you tell each before they leave?",
)
"""From a few words to about a hundred tokens."""


async def probe_prompts(codec: TextCodec) -> tuple[tuple[int, ...], ...]:
    """The questions as the model's clients would send them: in its chat format, or plain if it has none."""
    prompts = [await _prompt(codec, question) for question in QUESTIONS]
    return tuple(prompt for prompt in prompts if len(prompt) > 1)


async def _prompt(codec: TextCodec, question: str) -> tuple[int, ...]:
    if codec.chat_template:
        try:
            return (await codec.chat_prompt([{"role": "user", "content": question}], template_kwargs={})).token_ids
        except ApiError:
            pass  # A template that wants more than a question; what the words mean does not matter here.
    return await codec.prompt_ids(question)
