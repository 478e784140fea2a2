"""Texts that repeat because somebody asked for it."""

import random

from tests.repetition.text import Kind, Text, lines

SENTENCE = "the quick brown fox jumps over the very lazy dog"
PARAGRAPH = (
    "All work and no play makes Jack a dull boy. He sits at the window and counts the cars, and when it is dark he "
    "counts the lamps instead, until somebody calls him to the table."
)
HAIL = (
    "Hail Mary, full of grace, the Lord is with thee. Blessed art thou among women, and blessed is the fruit of thy "
    "womb, Jesus. Holy Mary, Mother of God, pray for us sinners, now and at the hour of our death. Amen.\n"
)
CHANCE = random.Random(4)
FEELINGS = ("positive", "negative", "neutral")
SONG = "Row, row, row your boat, gently down the stream. Merrily, merrily, merrily, merrily, life is but a dream.\n"

WANTED = (
    ("word, 50 times", "banana " * 50, "Repeat the word banana 50 times."),
    ("word, 50 times, on lines", "banana\n" * 50, "Repeat the word banana 50 times."),
    ("word, 100 times", "hello " * 100, "Say hello 100 times."),
    ("word, 100 times, commas", "strawberry, " * 100, "Repeat strawberry 100 times, with commas."),
    ("word, 200 times", "spam " * 200, "Write the word spam 200 times."),
    ("sentence, 50 times", f"{SENTENCE.capitalize()}. " * 50, f"Write this fifty times: {SENTENCE}"),
    ("sentence, 50 times, on lines", f"{SENTENCE}\n" * 50, f"Write this fifty times: {SENTENCE}"),
    ("sentence of the model's, 30 times", "I like to walk in the park. " * 30, "Say any sentence thirty times."),
    ("punishment, numbered", lines(*(f"{n}. I will not talk in class." for n in range(1, 101))),
     'Write "I will not talk in class" 100 times, numbered.'),
    ("paragraph, 10 times", f"{PARAGRAPH}\n\n" * 10, f"Repeat this ten times:\n{PARAGRAPH}"),
    ("song, 8 times", SONG * 8, f"Sing this eight times: {SONG}"),
    ("ha, 200 times", "ha" * 200, "Laugh: write ha 200 times without a space."),
    ("emoji, 100 times", "🎉" * 100, "Send me 100 of 🎉"),
    ("dashes, 300", "-" * 300, "Draw a line of 300 dashes."),
    ("dashes and spaces", "- " * 150, "Draw a dashed line."),
    ("zeros, 300", "0" * 300, "Write 300 zeros."),
    ("objects, 50 equal ones", '{"name": "door", "state": "open"},\n' * 50,
     'Give me 50 copies of {"name": "door", "state": "open"}'),
    ("two words in turn, 60 times", "left right " * 60, "Write left right 60 times."),
    ("chant", "Hare Krishna Hare Krishna Krishna Krishna Hare Hare\n" * 27, "Chant Hare Krishna 27 times"),
    ("line of code, 100 times", 'print("hello")\n' * 100, 'Unroll: for i in range(100): print("hello")'),
    ("counted lines, 150", lines(*(f"Line {n} of the file." for n in range(1, 151))),
     "Write 150 lines: Line 1 of the file."),
    ("punishment, 300 times, numbered", lines(*(f"{n}. I will not talk in class." for n in range(1, 301))),
     'Write "I will not talk in class" 300 times, numbered.'),
    ("decade of a rosary", HAIL * 10 + "Glory be to the Father, and to the Son, and to the Holy Spirit.\n", ""),
    ("fade-out of a song", "Na, na, na, na-na-na na\nNa-na-na na, hey you\n" * 18, "How does it end?"),
    ("times tables, in words", "".join(f"{a} times {b} is {a * b}. " for a in range(1, 16) for b in range(1, 16)), ""),
    ("conversions", lines(*(f"{n} inches are equal to {n * 2.54:.2f} centimetres." for n in range(1, 201))), ""),
    ("progress, 150 of 150", lines(*(f"Reading file {n} of 150, done." for n in range(1, 151))), ""),
    ("what 95 reviews say", lines(*(f"The sentiment of this review is {CHANCE.choice(FEELINGS)}." for _ in range(95))),
     "Say of each of these reviews how it feels."),
)  # fmt: skip


def texts() -> list[Text]:
    """All of them."""
    return [Text(f"wanted: {name}", Kind.WANTED, text, prompt) for name, text, prompt in WANTED]
