"""``sweep.html``: which setting won, how sure that is, and what went wrong."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from pathlib import Path

from metric_module.report.page import command, figure, page, table
from metric_module.sweeps.ledger import DONE, FAILED, MISSING, Job, Plan, label, swept_keys
from metric_module.sweeps.plot import plot_settings
from metric_module.sweeps.settings import (
    Estimate,
    Setting,
    best,
    command_of,
    is_repeated,
    lower_is_better,
    resume_command,
    settings,
)

_NOTE = "The interval is the 95 % interval of the mean over {what}s, by Student's t: how far off it may be with so few."
_CHOSEN = " The winner was chosen by this figure, which therefore flatters it; test figures do not."


def sweep_page(jobs: Sequence[Job], plan: Plan, folder: Path) -> str:
    """The page of a sweep.

    Args:
        jobs: All of them.
        plan: What the sweep was asked to do.
        folder: Of the sweep, as its user calls it.

    Returns:
        A whole HTML document.
    """
    found = settings(jobs)
    what = repetitions(jobs)
    parts = [_summary(jobs, folder)]
    winners = best(found, plan.monitor)
    if winners:
        parts.append(_winner(winners, plan, what) if len(found) > 1 else _result(found[0], plan, what))
        parts.append(f"<h2>{escape(plan.monitor)}</h2>")
        plot = plot_settings([setting for setting in found if setting.estimate(plan.monitor)], plan.monitor)
        parts.append(figure(plot, "settings-plot"))
        parts.append(_settings(found, plan.monitor, what))
        parts.append(_note(what, chosen=len(found) > 1))
    else:
        parts.append(f"<p>No job has {escape(plan.monitor)} yet.</p>")
    parts += [_test_figures(found, what), _failures(jobs), _missing(jobs)]
    return page(f"Sweep {folder.name}", "\n".join(part for part in parts if part), plots=bool(winners))


def repetitions(jobs: Sequence[Job]) -> str:
    """What repeats a setting here: ``seed``, ``fold``, or ``run`` if both do."""
    keys = {key.lstrip("+").rpartition(".")[2] for key in swept_keys(jobs) if is_repeated(key)}
    return keys.pop() if len(keys) == 1 else "run" if keys else "seed"


def interval(made: Estimate, what: str) -> str:
    """The interval as text, ``0.512 to 0.544``."""
    if made.half is None:
        return f"one {what}, no interval"
    return f"{made.mean - made.half:.4f} to {made.mean + made.half:.4f}"


def _summary(jobs: Sequence[Job], folder: Path) -> str:
    count = {status: sum(job.status == status for job in jobs) for status in (DONE, FAILED, MISSING)}
    said = ", ".join(f"{number} {status}" for status, number in count.items() if number or status == DONE)
    text = f"<p><strong>{len(jobs)} jobs</strong>: {said}.</p>"
    if count[DONE] == len(jobs):
        return text
    return f"{text}\n<p>To run what is missing or failed:</p>\n" + command(resume_command(folder))


def _winner(winners: Sequence[Setting], plan: Plan, what: str) -> str:
    """The best setting, and the others that are as good."""
    way, better = ("lowest", "lower") if lower_is_better(plan.monitor) else ("highest", "higher")
    said = _mean(winners[0], plan.monitor, what, f"the {way} mean, over")
    lines = [f"<p><strong>{escape(winners[0].name)}</strong></p>", f"<p>{said}; {better} is better.</p>"]
    if len(winners) > 1:
        others = "; ".join(setting.name for setting in winners[1:])
        lines.append(f"<p>Tied with {escape(others)}: the first is shown.</p>")
    return _card("Winner", lines, winners[0], plan)


def _result(setting: Setting, plan: Plan, what: str) -> str:
    """Where nothing but seeds or folds was swept there is no winner."""
    return _card("Result", [f"<p>{_mean(setting, plan.monitor, what, 'mean over')}.</p>"], setting, plan)


def _card(title: str, lines: Sequence[str], setting: Setting, plan: Plan) -> str:
    again = ["<p>Train it again, and read test:</p>", command(command_of(setting, plan.options))]
    return "\n".join([f"<h2>{title}</h2>", '<div class="card">', *lines, *again, "</div>"])


def _mean(setting: Setting, monitor: str, what: str, kind: str) -> str:
    made = setting.estimate(monitor)
    assert made is not None
    over = f"{made.n} of {len(setting.jobs)} {what}s" if len(setting.jobs) > 1 else f"one {what}"
    return f"{escape(monitor)} {made.mean:.4f} ({interval(made, what)}), {kind} {over}"


def _note(what: str, chosen: bool) -> str:
    text = _NOTE.format(what=what) + (_CHOSEN if chosen else "")
    return f'<p class="muted">{escape(text)}</p>'


def _settings(found: Sequence[Setting], monitor: str, what: str) -> str:
    """A row for each setting, the best first."""
    keys = list(dict.fromkeys(key for setting in found for key in setting.choice)) or ["setting"]
    sign = 1 if lower_is_better(monitor) else -1
    made = [(setting, setting.estimate(monitor)) for setting in found]
    rows = [
        [
            *(setting.choice.get(key, "all" if key == "setting" else "") for key in keys),
            *([str(got.n), f"{got.mean:.4f}", interval(got, what)] if got else ["0", "", "no figure"]),
        ]
        for setting, got in sorted(made, key=lambda pair: (pair[1] is None, sign * pair[1].mean if pair[1] else 0.0))
    ]
    numbers = {place for place, key in enumerate(keys) if all(_is_number(row[place]) for row in rows)}
    header = [*keys, f"{what}s", "mean", "95 % interval"]
    return table(header, rows, "settings", numeric={*numbers, len(keys), len(keys) + 1, len(keys) + 2})


def _test_figures(found: Sequence[Setting], what: str) -> str:
    """Every test figure of every setting, if the sweep looked at test."""
    names = sorted({name for setting in found for job in setting.jobs for name in job.figures if _is_result(name)})
    if not names:
        return ""
    several = len(found) > 1
    rows = [
        [
            *([setting.name] if several else []),
            name.removeprefix("test/"),
            str(made.n),
            f"{made.mean:.4f}",
            interval(made, what),
        ]
        for setting in found
        for name in names
        if (made := setting.estimate(name)) is not None
    ]
    header = [*(["setting"] if several else []), "figure", f"{what}s", "mean", "95 % interval"]
    return "<h2>Test</h2>\n" + table(header, rows, "test", numeric=range(len(header) - 3, len(header)))


def _failures(jobs: Sequence[Job]) -> str:
    keys = swept_keys(jobs)
    rows = [
        [str(job.number), job.reason, label(job, keys), str(job.exit_code), job.folder]
        for job in jobs
        if job.status == FAILED
    ]
    header = ["job", "reason", "setting", "exit code", "folder"]
    return '<h2 class="bad">Failed</h2>\n' + table(header, rows, "failed", numeric={0, 3}) if rows else ""


def _missing(jobs: Sequence[Job]) -> str:
    keys = swept_keys(jobs)
    rows = [
        [str(job.number), label(job, keys), "stopped" if job.folder else "not started"]
        for job in jobs
        if job.status == MISSING
    ]
    return "<h2>Missing</h2>\n" + table(["job", "setting", "state"], rows, "missing", numeric={0}) if rows else ""


def _is_result(name: str) -> bool:
    """Whether a figure is of test, and not a count of its samples."""
    return name.startswith("test/") and "queries" not in name


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
