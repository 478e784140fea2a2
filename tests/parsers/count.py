"""How many transcripts there are, and in how many ways they are cut: `python -m tests.parsers.count`."""

from collections import Counter

from tests.parsers.golden import all_golden
from tests.parsers.reading import RANDOM_CUTS


def transcripts() -> Counter[str]:
    """Per family; those that only think are counted by the name of their reasoning."""
    return Counter(one.family or str(one.said.reasoning) for one in all_golden())


def cuts() -> int:
    """Readings of `test_transcripts`: in two at every place, in single characters, at random places."""
    return sum(len(one.said.text) + 1 + 1 + RANDOM_CUTS for one in all_golden())


if __name__ == "__main__":
    for family, number in sorted(transcripts().items()):
        print(f"{family:12} {number:4}")
    print(f"{transcripts().total()} transcripts, {cuts()} cuts")
