"""``pretune runs``: list, show, compare, adjust."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from pretune.cli.shared import Json, Language, class_lines, emit, format_score, severe_lines

NAME = "runs"
HELP = """See the runs that there are, compare them, and change one in its middle. All take --json.

Examples (the runs are there after `pretune quickstart`):

\b
  pretune runs list
  pretune runs show runs/quickstart/masked
  pretune runs compare runs/quickstart/classify-en-random-0 runs/quickstart/classify-en-pretrained-0 --html compared.html
  pretune runs adjust runs/my-run training.optimizer.learning_rate=3e-4
"""

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
RunFolder = Annotated[Path, typer.Argument(metavar="RUN", help="The folder of a run.")]


@app.command(name="list")
def list_(
    folder: Annotated[Path | None, typer.Argument(help="Where the runs lie; default: runs/.")] = None,
    json: Json = False,
) -> None:
    """The runs below a folder, newest first."""
    from pretune.workflows.runs import runs

    found = runs.list_runs(folder)
    width = max((len(entry["run"]) for entry in found), default=0)
    lines = [f"{len(found)} runs"] if found else ["no runs"]
    for entry in found:
        score = entry["score"]
        score_text = f"{score['name']} {score['value']:.3f}" if score else entry.get("error", "")
        of = f"{entry['step']:,}" + (f"/{entry['steps']:,}" if entry["steps"] else "")
        what = f"{entry['verb']} {entry['family']}".strip()
        lines.append(
            f"{entry['run']:{width}}  {what:18} {entry['state']:9} {of:>13}  {score_text:16}  {entry['last_write'][:16]}"
        )
    emit({"runs": found}, json, lines)


@app.command()
def show(run: RunFolder, json: Json = False) -> None:
    """What a run was asked for, its curve, its scores, and what they say."""
    from pretune.training.adjustments import describe_changes
    from pretune.workflows.runs import runs

    found = runs.show_run(run)
    of = f" of {found['steps']:,}" if found["steps"] else ""
    lines = [
        f"{found['run']}: {found['verb']} {found['family']}, {found['state']}, step {found['step']:,}{of}",
        *severe_lines(found["verdicts"]),
        "settings that are not the defaults:",
        *(f"  {key}: {value}" for key, value in found["settings"].items()),
        *_curve_lines(found, runs.sparkline),
    ]
    if found["scores"]:
        lines.append("scores:")
        lines += [f"  {name:14} {format_score(score)}" for name, score in found["scores"].items()]
        lines += [f"  {name:14} {value:.3f} (baseline)" for name, value in found["baselines"].items()]
    lines += class_lines(found["summary"])
    lines += ["changes in mid-run:", *(f"  {line}" for line in describe_changes(found["changes"]))] * bool(
        found["changes"]
    )
    lines += [f"  waiting to be taken up: {name}" for name in found["pending_changes"]]
    lines += [f"- {verdict['text']}" for verdict in found["verdicts"] if verdict["status"] != "bad"]
    emit(found, json, lines)


@app.command()
def compare(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN RUN...", help="Two runs or more.")],
    html: Annotated[Path | None, typer.Option(help="Write a page with the curves over each other.")] = None,
    language: Language = None,
    json: Json = False,
) -> None:
    """The settings in which runs differ, and their scores, where these compare."""
    from pretune.workflows.runs import compare

    found = compare.compare_runs(runs, html=html, language=language or "en")
    lines = ["settings that differ:"]
    for key, row in found["settings"].items():
        lines.append(f"  {key}: " + ", ".join(f"{_format_setting(v)} ({name})" for name, v in row.items()))
    if found["reason"]:
        lines.append(f"scores are not compared: {found['reason']}")
    for name, scores in found["scores"].items():
        lines += [f"{name:24} {metric:14} {format_score(score)}" for metric, score in scores.items()]
    for group in found["groups"]:
        if len(group["runs"]) > 1:
            lines.append(
                f"{', '.join(group['runs'])}: one setting, seeds {', '.join(map(str, group['seeds']))}"
            )
            lines += [
                f"  {kind:14} mean {score['mean']:.3f}, spread {score['std']:.3f}"
                for kind, score in group["scores"].items()
            ]
    lines += [f"- {finding}" for finding in found["findings"]]
    lines += [f"page: {found['html']}"] if html else []
    emit(found, json, lines)


@app.command()
def adjust(
    run: RunFolder,
    assignments: Annotated[list[str], typer.Argument(metavar="KEY=VALUE...", help="What changes.")],
    json: Json = False,
) -> None:
    """Change the learning rate (or weight decay, or clipping) of a run in its middle, on record."""
    from pretune.workflows.runs import runs

    done = runs.adjust_run(run, assignments)
    assigned = ", ".join(f"{key} = {value:g}" for key, value in done["values"].items())
    when = "from the next step on" if done["step"] is None else f"from step {done['step']:,} on"
    follow = "" if done["state"] == "running" else "; run its command again to go on"
    emit(done, json, [f"{run}: {assigned} {when}{follow}"])


def _format_setting(value: Any) -> str:
    """A setting's value; none as a dash."""
    return "–" if value is None else str(value)


def _curve_lines(run_info: dict[str, Any], sparkline: Any) -> list[str]:
    """Training loss and the deciding validation score as rows of bars, with their first and last values."""
    curve = run_info["evaluation_curve"]
    name = next((key for key in (curve[0] if curve else {}) if key != "step"), "")
    curves = {"training loss": [loss for _, loss in run_info["training_curve"] if loss is not None]}
    curves[f"validation {name}"] = [row[name] for row in curve] if name else []
    return [
        f"{title:18} {values[0]:8.3f} {sparkline(values)} {values[-1]:.3f}"
        for title, values in curves.items()
        if values
    ]
