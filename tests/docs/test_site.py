"""What the site generates is complete: every public name, every yaml file, every page in the reading order."""

from __future__ import annotations

import importlib
import json
import re
from pathlib import Path

import pytest

from docs._ext import api_pages, group_pages, reading_order, repository_files
from docs._ext.argument_tables import rows
from docs._ext.flowcharts import BLOCK, parse, with_charts
from docs._ext.notebook_pages import page as notebook_page
from docs._ext.public_names import MODULES, entries
from docs._ext.yaml_files import groups
from metric_module.config import conf_folder
from metric_module.miners import DistanceWeighted

DOCS = Path(__file__).parents[2] / "docs"
GENERATED = {**api_pages.pages(), **group_pages.pages()}


@pytest.mark.parametrize("module", MODULES)
def test_every_public_name_has_an_entry(module: str) -> None:
    for name in importlib.import_module(module).__all__:
        place = entries()[f"{module}.{name}"]
        described = GENERATED[f"api/{api_pages.page_of(place)}.rst"]
        assert f".. auto{place.kind}:: {place.dotted}\n" in described, name


def test_no_name_has_two_entries() -> None:
    described = re.findall(r"^\.\. auto(?:class|function|data):: (\S+)$", "\n".join(GENERATED.values()), re.MULTILINE)
    assert sorted(described) == sorted({place.dotted for place in entries().values()})


def test_every_yaml_file_is_on_its_page() -> None:
    files = [path.relative_to(conf_folder()) for path in conf_folder().glob("*/*.yaml") if path.parent.name != "hydra"]
    assert len(files) > 80 and {str(path.parent) for path in files} == set(groups())
    for path in files:
        text = GENERATED[f"groups/{path.parent}.rst"]
        assert f".. literalinclude:: /../conf/{path}\n" in text
        assert f".. _option-{path.parent}-{path.stem}:\n" in text


def test_arguments_of_an_option() -> None:
    node = {"_target_": "metric_module.miners.DistanceWeighted", "cutoff": 0.25}
    first, second = rows(DistanceWeighted, node)
    assert first[:3] == ("``cutoff``", "``0.25``", "``float``") and "Smaller distances count as this one" in first[3]
    assert second[:3] == ("``+nonzero_loss_cutoff``", "``1.4``", "``float``") and "are not drawn" in second[3]


def test_every_page_is_in_the_reading_order() -> None:
    menu = reading_order.with_menu((DOCS / "index.md").read_text(encoding="utf-8"))
    listed = re.findall(r"^.+ <(\S+)>$", menu, re.MULTILINE)
    pages = [path.relative_to(DOCS) for path in DOCS.rglob("*.md") if "reference" not in path.parts]
    copies = [f"reference/{name}" for name in repository_files.pages()]
    names = {str(name).rpartition(".")[0] for name in (*pages, *copies)} - {"index"}
    assert len(listed) == len(set(listed)) and names == set(listed)


def test_an_entry_without_a_page_is_left_out() -> None:
    menu = reading_order.with_menu("# A\n\n## Scaling\n\n- [G](gpu.md)\n- [N](nothing.md)\n- [C](../CONTRIBUTING.md)\n")
    assert "nothing" not in menu
    assert ":caption: Scaling\n\nG <gpu>\nC <reference/files/contributing>\n```" in menu


def test_links_to_files_lead_to_their_pages() -> None:
    text = "[c](../CONTRIBUTING.md#rules) [y](../conf/config.yaml) [m](mining.md) [h](#here) [w](https://hydra.cc)"
    assert repository_files.redirected(text, DOCS, DOCS) == (
        "[c](reference/files/contributing.md#rules) [y](reference/groups/index.rst) [m](mining.md) [h](#here) "
        "[w](https://hydra.cc)"
    )


def test_flowcharts_of_the_docs_are_drawn() -> None:
    text = (DOCS / "architecture.md").read_text(encoding="utf-8")
    charts = [parse(block) for block in BLOCK.findall(text)]
    assert len(charts) == text.count("```mermaid") == 2
    drawn = with_charts(text)
    assert "```mermaid" not in drawn
    assert all(drawn.count(words) == 1 for chart in charts for words in chart.texts.values())


def test_another_flowchart_is_refused() -> None:
    with pytest.raises(ValueError, match="flowchart: cannot draw 'a ==> b'"):
        parse('flowchart TD\n    a["x"]\n    a ==> b\n')


def test_a_notebook_is_shown_with_its_outputs(tmp_path: Path) -> None:
    outputs = [{"text": ["12\n"]}, {"data": {"image/png": "QUJD\n", "text/plain": "<Figure>"}}, {"data": {}}]
    cells = [
        {"cell_type": "markdown", "source": ["# Tour\n", "text"]},
        {"cell_type": "code", "source": ["print(12)"], "outputs": outputs},
    ]
    (tmp_path / "tour.ipynb").write_text(json.dumps({"cells": cells}))
    shown = notebook_page(tmp_path / "tour.ipynb")
    assert shown.startswith("# Tour\ntext\n\n```python\nprint(12)\n```\n\n```text\n12\n```\n\n<img ")
    assert shown.endswith('src="data:image/png;base64,QUJD">\n') and "<Figure>" not in shown
