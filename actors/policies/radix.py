"""Finds the kept sequence that shares most with a prompt, in one walk however many are kept."""

from dataclasses import dataclass, field
from typing import Generic, TypeVar

from actors.policies.prefix import common_prefix

V = TypeVar("V")


@dataclass(slots=True, eq=False)
class _Node(Generic[V]):
    """An edge and what lies behind it. But for the root: the label has at least one id, and a node without a value at
    least two children."""

    label: tuple[int, ...]
    value: V | None = None
    children: "dict[int, _Node[V]]" = field(default_factory=dict)
    """By the first id of their label."""

    def split(self, length: int) -> None:
        """Cut the label behind `length` ids; what this node held moves to the part behind the cut."""
        behind = _Node(self.label[length:], self.value, self.children)
        self.label, self.value, self.children = self.label[:length], None, {behind.label[0]: behind}

    def merge(self) -> None:
        """Undo a split that nothing needs any more."""
        if self.value is None and len(self.children) == 1:
            (behind,) = self.children.values()
            self.label, self.value, self.children = self.label + behind.label, behind.value, behind.children

    def any_value(self) -> V | None:
        """The value here or, as every leaf has one, the first one straight below."""
        node = self
        while node.value is None and node.children:
            node = next(iter(node.children.values()))
        return node.value


class RadixTree(Generic[V]):
    """A compressed radix tree: sequences of token ids, each with a value (never None).

    Every question costs one walk: the ids are compared once or twice, as slices, in C.
    """

    def __init__(self) -> None:
        self._root: _Node[V] = _Node(())
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def get(self, ids: tuple[int, ...]) -> V | None:
        """The value inserted at exactly these ids."""
        depth, node = self._walk(ids)[-1]
        return node.value if depth == len(ids) else None

    def longest(self, ids: tuple[int, ...]) -> tuple[int, V | None]:
        """How many leading ids an inserted sequence shares with `ids` at most, and the value of one that does;
        (0, None) if none shares any."""
        depth, node = self._walk(ids)[-1]
        child = node.children.get(ids[depth]) if depth < len(ids) else None
        if child is not None:
            depth += common_prefix(child.label, ids[depth : depth + len(child.label)])
            node = child
        return (depth, node.any_value()) if depth else (0, None)

    def deepest(self, ids: tuple[int, ...]) -> tuple[int, V | None]:
        """Length and value of the longest inserted sequence that `ids` begins with or equals; (0, None) if none."""
        for depth, node in reversed(self._walk(ids)):
            if node.value is not None:
                return depth, node.value
        return 0, None

    def beginnings(self, ids: tuple[int, ...]) -> list[tuple[int, V]]:
        """Length and value of every inserted sequence that `ids` begins with and is longer than, shortest first."""
        return [(depth, node.value) for depth, node in self._walk(ids) if node.value is not None and depth < len(ids)]

    def insert(self, ids: tuple[int, ...], value: V) -> None:
        """Put `value` at these ids, in the place of what is there."""
        depth, node = self._walk(ids)[-1]
        if depth < len(ids):
            node = self._grow(node, ids[depth:])
        self._count += node.value is None
        node.value = value

    def remove(self, ids: tuple[int, ...]) -> None:
        """Take away what is at exactly these ids, if anything, and every node that only it needed."""
        walked = self._walk(ids)
        depth, node = walked[-1]
        if depth < len(ids) or node.value is None:
            return
        node.value = None
        self._count -= 1
        if not node.children and node is not self._root:
            node, leaf = walked[-2][1], node
            del node.children[leaf.label[0]]
        if node is not self._root:
            node.merge()

    def _walk(self, ids: tuple[int, ...]) -> list[tuple[int, _Node[V]]]:
        """Every node that `ids` leads to, the root first, each with the number of ids that lead to it."""
        depth, node = 0, self._root
        walked = [(depth, node)]
        while depth < len(ids) and (child := node.children.get(ids[depth])) is not None:
            behind = depth + len(child.label)
            if ids[depth:behind] != child.label:
                break
            depth, node = behind, child
            walked.append((depth, node))
        return walked

    @staticmethod
    def _grow(node: _Node[V], rest: tuple[int, ...]) -> _Node[V]:
        """The new node `rest` (not empty) behind `node`, where no child's whole label begins it."""
        child = node.children.get(rest[0])
        if child is not None:
            shared = common_prefix(child.label, rest)
            child.split(shared)
            node, rest = child, rest[shared:]
        if rest:
            node.children[rest[0]] = node = _Node(rest)
        return node
