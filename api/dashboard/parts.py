"""What pictures are put together from: lines of rich segments, boxes, bars, sparklines and tables.

Plain lists of segments, and no rich Table or Layout: those cost ten times as much of the processor that the server
needs.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise

from rich.cells import cell_len
from rich.segment import Segment
from rich.style import Style

Line = list[Segment]
Block = list[Line]
Part = str | tuple[str, Style]

BOLD = Style(bold=True)
DIM = Style(dim=True)
HEAD = Style(bold=True, color="cyan")
GOOD = Style(color="green")
WARN = Style(color="yellow", bold=True)
BAD = Style(color="red", bold=True)
TREND = Style(color="cyan")
REVERSE = Style(reverse=True)

DOT = " · "
"""Between two things that are said in one line."""
EIGHTHS = "▁▂▃▄▅▆▇█"


def line(*parts: Part) -> Line:
    """One line; what could move the cursor, or cannot be shown, becomes a dot."""
    return [
        Segment(printable(part)) if isinstance(part, str) else Segment(printable(part[0]), part[1])
        for part in parts
        if part
    ]


def printable(text: str) -> str:
    if text.isprintable():
        return text
    return "".join(each if each.isprintable() else "·" for each in text)


def fit(found: Line, width: int) -> Line:
    """The same line, cut or filled up to `width` cells."""
    return Segment.adjust_line_length(found, max(0, width))


def padded(text: str, width: int, *, right: bool = False) -> str:
    """Exactly `width` cells of text; what is cut off leaves a mark."""
    cells = cell_len(text)
    if cells > width:
        while cell_len(text) >= width and text:
            text = text[:-1]
        text, cells = text + "…", cell_len(text) + 1
        if width <= 0:
            return ""
    space = " " * (width - cells)
    return space + text if right else text + space


def wrapped(block: Block, width: int) -> Block:
    """The same, with lines broken at their dots where they are too long."""
    return [row for found in block for row in _wrapped(found, width)]


def _wrapped(found: Line, width: int) -> Block:
    if Segment.get_line_length(found) <= width:
        return [found]
    rows: Block = []
    for item in _items(found):
        joined = [*rows[-1], Segment(DOT), *item] if rows else item
        if rows and Segment.get_line_length(joined) <= width:
            rows[-1] = joined
        else:
            rows.append(item)
    return rows


def _items(found: Line) -> Block:
    """What stands between the dots of a line."""
    items: Block = [[]]
    for each in found:
        first, *rest = each.text.split(DOT)
        items[-1].append(Segment(first, each.style))
        items += [[Segment(text, each.style)] for text in rest]
    return items


def tall(block: Block, height: int) -> Block:
    """The same block, cut or filled up to `height` lines."""
    return block[:height] + [[]] * (height - len(block))


def rule(title: str, width: int, *rest: Part) -> Line:
    """A heading of its own line."""
    found = line((f"─ {title} ", HEAD), *rest)
    used = Segment.get_line_length(found)
    return fit([*found, Segment("─" * max(0, width - used), DIM)], width)


def box(title: str, block: Block, width: int, height: int, *rest: Part) -> Block:
    """`block` in a frame of this size; `rest` stands in its upper edge."""
    inner = max(0, width - 4)
    edge, blank = Segment("│", DIM), Segment(" ")
    top = [Segment("┌", DIM), *rule(title, max(0, width - 2), *rest), Segment("┐", DIM)]
    middle = [[edge, blank, *fit(each, inner), blank, edge] for each in tall(block, max(0, height - 2))]
    bottom = [Segment("└" + "─" * max(0, width - 2) + "┘", DIM)]
    return [top, *middle, bottom][:height]


def beside(blocks: Iterable[tuple[Block, int]], height: int) -> Block:
    """Blocks side by side, each in its own width."""
    columns = [[fit(each, width) for each in tall(block, height)] for block, width in blocks]
    return [[segment for part in row for segment in part] for row in zip(*columns, strict=True)]


def split(width: int, shares: Sequence[int]) -> list[int]:
    """`width` in parts proportional to `shares`."""
    total, ends = sum(shares), [0]
    for share in shares:
        ends.append(ends[-1] + share)
    return [width * stop // total - width * start // total for start, stop in pairwise(ends)]


def bar(fraction: float, width: int) -> str:
    filled = round(max(0.0, min(1.0, fraction)) * width)
    return "█" * filled + "░" * (width - filled)


def spark(cells: Sequence[float | None], height: int = 1) -> list[str]:
    """A sparkline of `height` lines, from 0 to the highest of `cells`; blank where a cell is None. The highest leaves
    an eighth of its line free, so that two sparklines do not touch."""
    highest = max((each for each in cells if each is not None), default=0.0)
    unit = max(0.0, highest) / (8 * height - 1) or 1.0
    levels = [None if each is None else max(1, round(each / unit)) for each in cells]
    return ["".join(_eighth(level, row) for level in levels) for row in reversed(range(height))]


def _eighth(level: int | None, row: int) -> str:
    """The character of a column that is `level` eighths high, in the line that begins at `row` times eight."""
    above = (level or 0) - 8 * row
    return " " if above <= 0 else EIGHTHS[min(8, above) - 1]


# --- tables ---


OPTIONAL = 2
"""Columns of this worth or less only come where the one that grows has at least COMFORT."""
COMFORT = 38


@dataclass(frozen=True, slots=True)
class Column:
    """Of a table. Where the room is not enough, those of the lowest `worth` are left out."""

    title: str
    width: int
    worth: int
    right: bool = False
    most: int = 0
    """How wide it grows where there is room; 0 is not at all. One column of a table may grow."""


def chosen(columns: Sequence[Column], width: int) -> list[tuple[int, int]]:
    """Which columns there is room for, in order: index and width, with one cell between two."""
    kept = list(range(len(columns)))
    while len(kept) > 1:
        least = min(kept, key=lambda i: columns[i].worth)
        wanted = [_wanted(columns[i], columns[least].worth <= OPTIONAL) + 1 for i in kept]
        if sum(wanted) - 1 <= width:
            break
        kept.remove(least)
    left = max(0, width - sum(columns[i].width + 1 for i in kept) + 1)
    return [(i, min(width, _grown(columns[i], left))) for i in kept]


def _wanted(column: Column, in_comfort: bool) -> int:
    return max(column.width, min(column.most, COMFORT)) if in_comfort else column.width


def _grown(column: Column, left: int) -> int:
    return max(column.width, min(column.most, column.width + left))


def titles(columns: Sequence[Column], layout: Sequence[tuple[int, int]]) -> Line:
    return line((" ".join(padded(columns[i].title, width, right=columns[i].right) for i, width in layout), BOLD))


def cells(columns: Sequence[Column], layout: Sequence[tuple[int, int]], texts: Sequence[Part]) -> Line:
    """One row; `texts` has a part for each of `columns`."""
    found: Line = []
    for i, width in layout:
        part = texts[i]
        text, style = (part, None) if isinstance(part, str) else part
        found.append(Segment(padded(printable(text), width, right=columns[i].right), style))
        found.append(Segment(" "))
    return found[:-1]


# --- terminals that know less ---

_ASCII = str.maketrans("▁▂▃▄▅▆▇█░│┌┐└┘─·…–▸▲▼", "_.,-~=+#.|++++--~->^v")


def in_ascii(block: Block) -> Block:
    """The same in ASCII, cell for cell, for terminals that do not speak Unicode."""
    return [[Segment(_plain(each.text), each.style) for each in found] for found in block]


def _plain(text: str) -> str:
    return "".join(each if each.isascii() else "?" * cell_len(each) for each in text.translate(_ASCII))


def dimmed(block: Block) -> Block:
    return [list(Segment.apply_style(found, post_style=DIM)) for found in block]
