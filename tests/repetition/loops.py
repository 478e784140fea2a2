"""Texts that have run into a loop by accident: made ones, and what the default model says by itself."""

import json
import random
from pathlib import Path

from tests.repetition.fine import WORDS
from tests.repetition.text import Kind, Text, lines

HEARD = Path(__file__).with_name("heard.json")
BEGUN = (
    "There are several reasons why the plan may fail, and each of them deserves a closer look. First of all, nobody "
    "has asked the people who live there what they think of it. Second, the figures are from an older survey. "
)
SENTENCE = "The company is committed to providing the best possible service to its customers. "
OTHER = "It is important to remember that every situation is different and needs care. "
PARAGRAPH = (
    "In conclusion, the results show that the method is useful in many cases. It can be applied to a wide range of "
    "problems, and it is easy to understand. However, there are also some limits that should be kept in mind, such as "
    "the size of the data and the time that it takes.\n\n"
)
THOUGHT = (
    "Wait, let me check that again. 17 times 20 is 340, and 17 times 3 is 51, so the sum is 391. Hmm, is that right? "
)
LONG = "".join(
    f"The {a} stood beside the {b}, and nobody in the town could say who had put it there. "
    for a, b in zip(WORDS, reversed(WORDS), strict=True)
)[:1700]


def _picked(seed: int, choices: tuple[str, ...], times: int) -> str:
    chance = random.Random(seed)
    return "".join(chance.choice(choices) for _ in range(times))


def _noisy(unit: str, times: int) -> str:
    """Now and then one word of the unit is another."""
    chance = random.Random(3)
    said = []
    for _ in range(times):
        words = unit.split(" ")
        if chance.random() < 0.3:
            words[chance.randrange(len(words) - 1)] = chance.choice(WORDS)
        said.append(" ".join(words))
    return "".join(said)


MADE = (
    ("one word for ever", " the" * 3000),
    ("one letter for ever", "a" * 20_000),
    ("and then", "and then " * 2000),
    ("phrase of four", "one of the most " * 800),
    ("phrase with commas", "a lot of people, " * 700),
    ("sentence", SENTENCE * 250),
    ("sentence on lines", f"- {SENTENCE}\n" * 250),
    ("A B A B", (SENTENCE + OTHER) * 120),
    ("A B A B paragraphs", (PARAGRAPH + SENTENCE * 2 + "\n\n") * 50),
    ("paragraph", PARAGRAPH * 60),
    ("long paragraph", LONG * 12),
    ("heading and paragraph", ("## Conclusion\n\n" + PARAGRAPH) * 50),
    ("question and answer", "Q: What is the capital of France?\nA: The capital of France is Paris.\n\n" * 150),
    ("user and bot", "User: Hi, how are you?\nBot: I am fine, thank you. How can I help you today?\n" * 150),
    ("thinking in circles", THOUGHT * 80),
    ("counted list", lines(*(f"{n}. The importance of having a good plan." for n in range(1, 400)))),
    (
        "counted steps",
        "".join(f"Step {n}: Repeat the process until you are satisfied with it. " for n in range(1, 400)),
    ),
    ("counted years", "".join(f"In {n}, the city was rebuilt after a great fire. " for n in range(1200, 1600))),
    (
        "counted chapters",
        "".join(f"Chapter {n}\n\nThe end of the beginning, and nothing more.\n\n" for n in range(300)),
    ),
    ("newlines", "\n" * 4000),
    ("blank lines with spaces", " \n" * 3000),
    ("spaces", " " * 40_000),
    ("tabs", "\t" * 4000),
    ("dashes", "-" * 60_000),
    ("dashes apart", "- " * 6000),
    ("underscores on lines", "________\n" * 4000),
    ("exclamation", "!" * 30_000),
    ("ellipsis", "... " * 6000),
    ("empty table rows", "| | | |\n" * 1500),
    ("table row", "| Paris | France | 2,148,000 |\n" * 500),
    ("table separators", "|---" * 6000),
    ("zeros", "0." + "0" * 9000),
    ("thirds", "0." + "3" * 9000),
    ("same figures", "1, 2, 3, " * 2500),
    ("line of code", "    self.value = value\n" * 1500),
    ("import", "import numpy as np\n" * 1500),
    ("closing braces", "}\n" * 6000),
    ("div", '<div class="row">\n' * 1500),
    ("function", "def get_name(self):\n    return self.name\n\n" * 500),
    ("JSON objects", '{"id": 1, "name": "John", "active": true},\n' * 500),
    ("brackets", "(" * 12_000),
    ("url", "https://www.example.com/" + "images/" * 3000),
    ("Chinese", "我们需要更多的时间来完成这个项目。" * 300),
    ("Russian", "Это очень важно для всех нас. " * 300),
    ("emoji", "😀" * 3000),
    ("replacement characters", "\ufffd" * 3000),
    ("three sentences in any order", _picked(1, (SENTENCE, OTHER, "We are always here to help you. "), 200)),
    (
        "four lines in any order",
        _picked(2, ("- Eat well.\n", "- Sleep well.\n", "- Be kind.\n", "- Drink water.\n"), 800),
    ),
    ("sentence with a slip now and then", _noisy(SENTENCE, 250)),
)


def _heard() -> list[Text]:
    """Greedy answers of the default model, folded: each is a list of strings and how often they come."""
    return [
        Text(
            each["name"],
            Kind(each["kind"]),
            "".join(text * times for text, times in each["text"]),
            each["prompt"],
            each["apart"],
        )
        for each in json.loads(HEARD.read_text(encoding="utf-8"))
    ]


def texts() -> list[Text]:
    """All of them; among what was heard are answers that are fine."""
    made = [Text(f"loop: {name}", Kind.LOOP, BEGUN + text) for name, text in MADE]
    return [*made, *_heard()]
