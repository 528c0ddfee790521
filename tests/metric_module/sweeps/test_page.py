"""The page of a sweep: the best setting, its interval, all settings, and failed and missing jobs."""

from __future__ import annotations

import html
import json
import re
import shlex
from pathlib import Path
from typing import Any

import pytest

from metric_module.sweeps.ledger import read_jobs
from metric_module.sweeps.page import sweep_page
from tests.helpers.sweep_folders import grid, leave, plan
from tests.metric_module.report.test_page import Tags


def made(sweep: Path, monitor: str = "val/map_at_r") -> str:
    return sweep_page(read_jobs(sweep), plan(None, monitor), sweep)


def text_of(page: str) -> str:
    body = re.sub(r"<script.*?</script>", "", page.split("<main>")[1], flags=re.DOTALL)
    return html.unescape(re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", body)))


def plot_of(page: str) -> dict[str, Any]:
    found = re.search(r'data-figure="settings-plot">(.*?)</script>', page)
    assert found is not None
    spec: dict[str, Any] = json.loads(found[1])
    return spec


def test_a_line_for_each_miner_against_the_margin(tmp_path: Path) -> None:
    leave(tmp_path, grid("margin=0.2,0.1", "miner=all,hard", "seed=1,2"), [0.1, 0.3, 0.5, 0.5, 0.3, 0.5, 0.6, 0.8])
    page = made(tmp_path)
    spec = plot_of(page)
    assert [(trace["name"], trace["x"]) for trace in spec["data"]] == [
        ("miner=all", [0.1, 0.2]),
        ("miner=hard", [0.1, 0.2]),
    ]
    assert spec["data"][0]["y"] == pytest.approx([0.4, 0.2])
    assert spec["data"][1]["error_y"]["array"] == pytest.approx([1.2706, 0.0], rel=1e-4)
    assert spec["layout"]["xaxis"]["title"]["text"] == "margin"
    output = text_of(page)
    assert "8 jobs : 8 done." in output
    assert (
        "margin=0.1 miner=hard val/map_at_r 0.7000 (-0.5706 to 1.9706), the highest mean, over 2 of 2 seeds" in output
    )
    assert "higher is better" in output and "Failed" not in output and "Missing" not in output
    assert "lightning-triplets -m margin=0.1 miner=hard seed=1,2 test=true" in output
    assert "margin=0.1 miner=hard map_at_r 2 0.3500" in output, "test figures come with their own intervals"


def test_figures_of_a_closed_set_are_marked(tmp_path: Path) -> None:
    leave(tmp_path, grid("split_by=class,file"), [0.5, 0.75])
    assert "closed set" not in text_of(made(tmp_path))
    path = tmp_path / "1" / "metrics.json"
    counts = {"classes": 10, "classes_trained_on": 10}
    path.write_text(json.dumps({stage: row | counts for stage, row in json.loads(path.read_text()).items()}))
    output = text_of(made(tmp_path))
    assert "split_by=file val/map_at_r (closed set) 0.7500 (one seed, no interval), the highest mean" in output
    assert "file 1 0.7500 (closed set) one seed, no interval class 1 0.5000 one seed" in output
    assert "A closed set is one whose classes were trained on" in output
    assert "split_by=file map_at_r 1 0.3750 (closed set)" in output and "map_at_r 1 0.2500 one seed" in output
    assert "1 split_by=file 0.7500 (closed set)" in output and "classes" not in output.split("Test")[1].split("Jobs")[0]


def test_failures_and_missing_jobs_are_listed(tmp_path: Path) -> None:
    leave(tmp_path, grid("margin=0.1,0.2", "seed=1,2"), [0.5, 2, None, None])
    page = made(tmp_path)
    output = text_of(page)
    assert "4 jobs : 1 done, 1 failed, 2 missing." in output
    assert f"lightning-triplets resume_sweep={tmp_path}" in output
    assert "1 ValueError: <b>bad</b> & ugly margin=0.1 seed=2 2 1" in output
    assert "2 margin=0.2 seed=1 not started" in output
    assert "0.5000 (one seed, no interval), the highest mean, over 1 of 2 seeds" in output
    assert "b" not in {tag for tag, _ in Tags(page).seen}


def test_nothing_to_show_yet(tmp_path: Path) -> None:
    leave(tmp_path, grid("margin=0.1,0.2"), [2, None])
    page = made(tmp_path)
    assert "No job has val/map_at_r yet." in text_of(page)
    assert "Winner" not in page and "Plotly.newPlot" in page and len(page) < 50_000


def test_a_loss_is_better_low_and_ties_are_named(tmp_path: Path) -> None:
    leave(tmp_path, grid("miner=all,hard,easy"), [0.5, 0.5, 0.2])
    output = text_of(made(tmp_path, "val/loss"))
    assert (
        "miner=all val/loss 0.5000 (one seed, no interval), the lowest mean, over one seed; lower is better." in output
    )
    assert "Tied with miner=hard: the first is shown." in output


def test_without_a_number_each_setting_has_a_row(tmp_path: Path) -> None:
    leave(tmp_path, grid("miner=all,<hard>"), [0.5, 0.75])
    page = made(tmp_path)
    (trace,) = plot_of(page)["data"]
    assert (trace["x"], trace["y"]) == ([0.5, 0.75], ["miner=all", "miner=&lt;hard&gt;"])
    assert "hard" not in {tag for tag, _ in Tags(page).seen}


def test_a_search_is_points_and_a_wide_number_has_a_logarithmic_axis(tmp_path: Path) -> None:
    words = [[f"optimizer.lr={10.0**-number}", f"miner.x=a{number}"] for number in range(20)]
    leave(tmp_path, words, [0.01 * number for number in range(20)])
    spec = plot_of(made(tmp_path))
    assert len(spec["data"]) == 1 and spec["data"][0]["mode"] == "markers"
    assert spec["layout"]["xaxis"]["type"] == "log"


def test_a_search_has_a_panel_for_each_number_and_a_colour_for_each_choice(tmp_path: Path) -> None:
    words = [
        [f"margin={0.1 + number / 30}", f"miner={('all', 'hard')[number % 2]}", f"optimizer.lr={3.0**-number}"]
        for number in range(6)
    ]
    leave(tmp_path, words, [0.1, 0.2, 0.3, 0.6, 0.5, 0.4])
    page = made(tmp_path)
    spec = plot_of(page)
    traces = [(one["name"], one["marker"]["color"], one["xaxis"], one["showlegend"]) for one in spec["data"]]
    assert [one[0] for one in traces] == ["miner=all", "miner=hard"] * 2
    assert traces[0][1] == traces[2][1] != traces[1][1] == traces[3][1]
    assert [one[2:] for one in traces] == [("x", True), ("x", True), ("x2", False), ("x2", False)]
    assert spec["data"][1]["x"] == [float(job[0].partition("=")[2]) for job in words[1::2]]
    assert spec["data"][1]["y"] == spec["data"][3]["y"] == [0.2, 0.6, 0.4]
    layout = spec["layout"]
    assert (layout["xaxis"]["title"]["text"], layout["xaxis2"]["title"]["text"]) == ("margin", "optimizer.lr")
    assert "type" not in layout["xaxis"] and layout["xaxis2"]["type"] == "log"
    assert "margin=0.2 miner=hard optimizer.lr=0.03704 val/map_at_r 0.6000" in text_of(page), "numbers are rounded"
    assert f"{words[3][2]} test=true" in text_of(page), "the command has every digit"


def test_folds_repeat_a_setting(tmp_path: Path) -> None:
    leave(tmp_path, grid("experiment=reality_check", "datamodule.fold=0,1,2,3"), [0.4, 0.5, 0.5, 0.6])
    output = text_of(made(tmp_path))
    assert "Result val/map_at_r 0.5000 (0.3701 to 0.6299), mean over 4 of 4 folds. Train it again" in output
    assert "95 % interval map_at_r 4 0.2500 0.1850 to 0.3150" in output
    assert "Winner" not in output and "winner" not in output


def test_seeds_and_folds_together_are_runs(tmp_path: Path) -> None:
    leave(tmp_path, grid("datamodule.fold=0,1", "seed=1,2"), [0.4, 0.5, 0.5, 0.6])
    output = text_of(made(tmp_path))
    assert "mean over 4 of 4 runs" in output
    assert "lightning-triplets -m datamodule.fold=0,1 seed=1,2 test=true" in output


@pytest.mark.parametrize("evil", ["a'; rm -rf ~ #", "$(rm -rf ~)", "a|b&c>d"])
def test_the_command_of_a_foreign_sweep_is_quoted(tmp_path: Path, evil: str) -> None:
    leave(tmp_path, [[f"encoder.name={evil}"], ["encoder.name=b"]], [0.5, 0.2])
    (command,) = re.findall(r'<div class="command"><code>(.*?)</code><button', made(tmp_path))
    assert shlex.split(html.unescape(command))[1:] == [f"encoder.name={evil}", "test=true"]


@pytest.mark.parametrize("evil", ["a\nrm -rf ~\n", "a\x1b[201~", "a\r"])
def test_a_command_with_control_characters_cannot_be_copied(tmp_path: Path, evil: str) -> None:
    leave(tmp_path, [[f"encoder.name={evil}"], ["encoder.name=b"]], [0.5, 0.2])
    page = made(tmp_path)
    assert "Copy</button>" not in page and "has control characters, shown as escapes" in page
    assert re.search(r"<code>[^<]*encoder.name=a\\[^<]*</code></div>", page)


def test_a_job_has_a_link_to_its_report(tmp_path: Path) -> None:
    jobs = grid("margin=0.1,0.2", "seed=1")
    leave(tmp_path, jobs, [0.5, 0.25])
    (tmp_path / "0").rename(tmp_path / "a b")
    (tmp_path / "a b" / "report.html").touch()
    page = made(tmp_path)
    assert [attributes["href"] for tag, attributes in Tags(page).seen if tag == "a"] == ["a%20b/report.html"]
    assert "job setting val/map_at_r report 0 margin=0.1 0.5000 report 1 margin=0.2 0.2500 none" in text_of(page)


def test_a_sweep_in_which_nothing_was_learned_has_no_winner(tmp_path: Path) -> None:
    leave(
        tmp_path, grid("margin=0.1,0.2", "seed=1,2"), [0.5, 0.5, 0.25, 0.25], [0] * 4, {"before": [0.5, 0.5, 0.2, 0.3]}
    )
    page = made(tmp_path)
    output = text_of(page)
    line = (
        "No job improved on its encoder before training: val/map_at_r was never above its value at step 0 (at most 0.5"
    )
    assert f"No winner {line}" in output and output.count("No job improved") == 1
    assert "inner was chosen" not in output and "test=true" not in output and "mean, over" not in output
    assert "margin seeds mean 95 % interval before 0.1 2 0.5000 0.5000 to 0.5000 0.5000 0.2 2 0.2500" in output
    assert [trace["x"] for trace in plot_of(page)["data"]] == [[0.1, 0.2]]
    (tmp_path / "one").mkdir()
    leave(tmp_path / "one", grid("seed=1,2"), [0.5, 0.5], [0, 0])
    assert f"Result {line}" in text_of(made(tmp_path / "one")), "one setting is compared with nothing"


def test_a_setting_that_learned_nothing_is_named_and_does_not_win(tmp_path: Path) -> None:
    leave(tmp_path, grid("margin=0.1,0.2,0.3", "seed=1,2"), [0.9, 0.9, 0.5, 0.6, 0.4, 0.4], [0, 0, 9, 0, 0, 0])
    output = text_of(made(tmp_path))
    assert "Winner margin=0.2 val/map_at_r 0.5500" in output
    assert "the highest mean of the settings that learned, over 2 of 2 seeds; higher is better." in output
    assert "Learned nothing, as all their jobs were best at step 0: margin=0.1; margin=0.3." in output
    assert "margin=0.2 seed=1,2 test=true" in output and "No job improved" not in output
    low = text_of(made(tmp_path, "val/loss"))
    assert "Winner margin=0.2 val/loss 0.4500" in low and "the lowest mean of the settings that learned" in low


def test_figures_from_before_training_are_columns_where_jobs_have_them(tmp_path: Path) -> None:
    words, figures = grid("miner=all,hard", "seed=1,2"), [0.5, 0.5, 0.6, 0.6]
    leave(tmp_path, words, figures, [9] * 4, {"before": [0.1, 0.2, 0.3, 0.4], "raw": [0.7, 0.9, 0.7, 0.9]})
    output = text_of(made(tmp_path))
    assert "95 % interval before raw hard 2 0.6000 0.6000 to 0.6000 0.3500 0.8000 all 2" in output
    assert "before is the mean of the same figure before training. raw is its mean for the inputs" in output
    assert "95 % interval before raw hard 2 0.4000 0.4000 to 0.4000 0.6500 0.2000" in text_of(
        made(tmp_path, "val/loss")
    )
    (tmp_path / "0" / "metrics.json").write_text('{"val": {"map_at_r": 0.5}}')
    (tmp_path / "1" / "metrics.json").write_text('{"val": {"map_at_r": 0.5}, "before": {"map_at_r": 0.25}}')
    assert "raw hard 2 0.6000 0.6000 to 0.6000 0.3500 0.8000 all 2 0.5000 0.5000 to 0.5000 0.2500 The" in text_of(
        made(tmp_path)
    )
    for job in range(4):
        (tmp_path / str(job) / "metrics.json").write_text('{"val": {"map_at_r": 0.5}}')
    bare = text_of(made(tmp_path))
    assert "95 % interval all 2 0.5000" in bare and "before is" not in bare and "raw" not in bare


@pytest.mark.parametrize(("key", "axis"), [("margin", "y"), ("miner.name", "x")])
@pytest.mark.parametrize("raw", [[0.7, 0.9, 0.7, 0.9], [0.7, 0.9, 0.7, 0.8], None])
def test_equal_figures_of_raw_inputs_are_a_dashed_line(
    tmp_path: Path, key: str, axis: str, raw: list[float] | None
) -> None:
    values = "0.1,0.2" if axis == "y" else "a,b"
    leave(tmp_path, grid(f"{key}={values}", "seed=1,2"), [0.3, 0.5, 0.5, 0.5], [9] * 4, {"raw": raw} if raw else {})
    layout = plot_of(made(tmp_path))["layout"]
    if raw != [0.7, 0.9, 0.7, 0.9]:
        assert "shapes" not in layout and layout[f"{axis}axis"]["range"] == pytest.approx([0.2, 0.7])
        return
    (line,), (label,) = layout["shapes"], layout["annotations"]
    assert line[f"{axis}0"] == line[f"{axis}1"] == label[axis] == pytest.approx(0.8)
    assert line["line"]["dash"] == "dash" and label["text"] == "raw inputs"
    assert layout[f"{axis}axis"]["range"] == pytest.approx([0.2, 1.0]), "the line is inside the plot"


def test_raw_inputs_that_a_setting_lacks_are_no_line(tmp_path: Path) -> None:
    leave(tmp_path, grid("margin=0.1,0.2"), [0.3, 0.5], [9, 9], {"raw": [0.8, 0.8]})
    assert plot_of(made(tmp_path))["layout"]["shapes"]
    (tmp_path / "1" / "metrics.json").write_text('{"val": {"map_at_r": 0.5}}')
    assert "shapes" not in plot_of(made(tmp_path))["layout"]
