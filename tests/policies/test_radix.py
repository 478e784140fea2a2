"""The radix tree against a dictionary that looks at everything, and the work that it saves."""

import sys
from collections.abc import Callable
from types import FrameType

from hypothesis import given
from hypothesis import strategies as st

from actors.policies.radix import RadixTree, _Node

Ids = tuple[int, ...]
IDS = st.lists(st.integers(0, 2), max_size=8).map(tuple)
STEPS = st.lists(st.tuples(st.booleans(), IDS), max_size=40)


def _shared(a: Ids, b: Ids) -> int:
    return next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))


def _nodes(tree: RadixTree[int]) -> list[_Node[int]]:
    """All but the root."""
    found: list[_Node[int]] = []
    left = [tree._root]
    while left:
        children = list(left.pop().children.values())
        found += children
        left += children
    return found


def _grown(steps: list[tuple[bool, Ids]]) -> tuple[RadixTree[int], dict[Ids, int]]:
    """A tree and a dictionary after the same insertions (True) and removals; every insertion has its own value."""
    tree, naive = RadixTree[int](), dict[Ids, int]()
    for value, (inserts, ids) in enumerate(steps):
        if inserts:
            tree.insert(ids, value)
            naive[ids] = value
        else:
            tree.remove(ids)
            naive.pop(ids, None)
    return tree, naive


@given(STEPS, IDS)
def test_it_holds_what_was_inserted_and_not_removed(steps: list[tuple[bool, Ids]], asked: Ids) -> None:
    tree, naive = _grown(steps)
    assert len(tree) == len(naive)
    assert {ids: tree.get(ids) for _, ids in steps} == {ids: naive.get(ids) for _, ids in steps}
    assert tree.get(asked) == naive.get(asked)


@given(STEPS, IDS)
def test_longest_tells_how_much_is_shared_and_with_whom(steps: list[tuple[bool, Ids]], asked: Ids) -> None:
    tree, naive = _grown(steps)
    shared, value = tree.longest(asked)
    assert shared == max((_shared(asked, ids) for ids in naive), default=0)
    sharing = {naive[ids] for ids in naive if shared and _shared(asked, ids) == shared}
    assert value in sharing if sharing else value is None


@given(STEPS, IDS)
def test_deepest_and_beginnings_are_those_that_the_ids_begin_with(steps: list[tuple[bool, Ids]], asked: Ids) -> None:
    tree, naive = _grown(steps)
    begun = [(n, naive[asked[:n]]) for n in range(len(asked) + 1) if asked[:n] in naive]
    assert tree.deepest(asked) == (begun[-1] if begun else (0, None))
    assert tree.beginnings(asked) == [(n, value) for n, value in begun if n < len(asked)]


@given(STEPS)
def test_there_is_no_node_that_nothing_needs(steps: list[tuple[bool, Ids]]) -> None:
    tree, naive = _grown(steps)
    assert all(node.label and (node.value is not None or len(node.children) > 1) for node in _nodes(tree))
    for ids in naive:
        tree.remove(ids)
    assert len(tree) == 0
    assert not _nodes(tree)


def test_a_sequence_inserted_again_has_its_new_value_and_counts_once() -> None:
    tree = RadixTree[str]()
    tree.insert((1, 2), "old")
    tree.insert((1, 2), "new")
    assert (len(tree), tree.get((1, 2))) == (1, "new")


def test_removing_what_only_leads_somewhere_changes_nothing() -> None:
    tree = RadixTree[str]()
    tree.insert((1, 2, 3), "a")
    tree.insert((1, 2, 4), "b")
    for ids in [(), (1,), (1, 2), (1, 2, 3, 4), (5,)]:
        tree.remove(ids)
    assert (tree.get((1, 2, 3)), tree.get((1, 2, 4))) == ("a", "b")


class _Counted(int):
    """An id that counts how often one is compared."""

    compared = 0

    def __eq__(self, other: object) -> bool:
        _Counted.compared += 1
        return int(self) == other

    __hash__ = int.__hash__


class _LineCounter:
    """A trace function that counts the lines that are run."""

    lines = 0

    def __call__(self, frame: FrameType, event: str, arg: object) -> "_LineCounter":
        self.lines += event == "line"
        return self


def _lines_run(function: Callable[[], object]) -> int:
    counter, before = _LineCounter(), sys.gettrace()
    sys.settrace(counter)
    try:
        function()
    finally:
        sys.settrace(before)
    return counter.lines


def test_a_long_prompt_is_compared_at_most_twice_wherever_it_leaves_what_is_kept() -> None:
    kept = tuple(range(64_000))
    tree = RadixTree[str]()
    tree.insert(kept, "kept")
    for branch in range(1_000, 64_000, 1_000):
        tree.insert((*kept[:branch], -1), "branch")
    for leaves in (1, 500, 32_500, 63_999):
        prompt = tuple(_Counted(i) for i in (*range(leaves), *range(100_000, 164_000 - leaves)))
        _Counted.compared = 0
        assert tree.longest(prompt)[0] == leaves
        assert _Counted.compared <= 2 * leaves + 100


def test_the_work_of_a_look_up_does_not_grow_with_what_else_is_kept() -> None:
    tree = RadixTree[int]()
    tree.insert((1, 2, 3), 0)
    tree.insert((1, 2, 4), 0)
    alone = _lines_run(lambda: tree.longest((1, 2, 5)))
    for i in range(2_000):
        tree.insert((1, 2, 10 + i, 1), i)
        tree.insert((1, 2, 10 + i, 2), i)
        tree.insert((10 + i, 1), i)
    assert _lines_run(lambda: tree.longest((1, 2, 5))) == alone > 0
