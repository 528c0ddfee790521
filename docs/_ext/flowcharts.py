"""Flowcharts of the pages as boxes of HTML: GitHub draws ``mermaid`` blocks itself, the site needs no script.

Only what the pages use is read: nodes with a text, one level of ``subgraph``, and chains of arrows.
"""

from __future__ import annotations

import re
from typing import NamedTuple

NODE = re.compile(r'^\s*(\w+)\s*\["(.*)"\]$')
CHAIN = re.compile(r"^\s*\w+(?: --> \w+)+$")
NOTE = re.compile(r"^\s*(\w+) -\. (\w+) \.-> (\w+)$")
BLOCK = re.compile(r"^```mermaid\n(flowchart TD\n.*?)^```$", re.DOTALL | re.MULTILINE)


class Chart(NamedTuple):
    """The texts of the nodes, the order of each chain, the nodes in a ``subgraph``, and notes at nodes."""

    texts: dict[str, str]
    order: list[str]
    inner: dict[str, list[str]]
    notes: dict[str, list[str]]


def parse(text: str) -> Chart:
    """Read a flowchart.

    Raises:
        ValueError: If a line is not one of those that the pages use.
    """
    chart = Chart({}, [], {}, {})
    group: str | None = None
    for line in text.splitlines()[1:]:
        if node := NODE.match(line.replace("subgraph ", "")):
            chart.texts[node[1]] = node[2]
            group = node[1] if "subgraph " in line else group
        elif CHAIN.match(line):
            order = chart.inner.setdefault(group, []) if group else chart.order
            order += [name for name in re.findall(r"\w+", line) if name not in order]
        elif note := NOTE.match(line):
            chart.notes.setdefault(note[3], []).append(note[1])
        elif line.strip() == "end":
            group = None
        else:
            raise ValueError(f"flowchart: cannot draw {line.strip()!r}")
    return chart


def drawn(chart: Chart, order: list[str]) -> str:
    """The boxes of a chain from top to bottom, as HTML."""
    boxes = []
    for name in order:
        inner = drawn(chart, chart.inner[name]) if name in chart.inner else ""
        notes = "".join(f'<div class="note">{chart.texts[note]}</div>' for note in chart.notes.get(name, []))
        boxes.append(f'<li><div class="box">{chart.texts[name]}{inner}</div>{notes}</li>')
    return f'<ol class="flowchart">{"".join(boxes)}</ol>'


def with_charts(text: str) -> str:
    """Replace the flowcharts of a Markdown text by HTML."""

    def replaced(block: re.Match[str]) -> str:
        """The HTML of one flowchart."""
        chart = parse(block[1])
        return drawn(chart, chart.order)

    return BLOCK.sub(replaced, text)
