"""The page of a sequence of requests: what each came to, and whether earlier ones come back."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from mmunlearner_jax.data.requests import request_split
from mmunlearner_jax.errors import refusing, shown
from mmunlearner_jax.evaluation.kinds import read_kinds
from mmunlearner_jax.evaluation.scores import Score
from mmunlearner_jax.files import write_whole
from mmunlearner_jax.provenance import command
from mmunlearner_jax.reporting import browser
from mmunlearner_jax.reporting.run_results import METRICS
from mmunlearner_jax.reporting.templates import environment, percent
from mmunlearner_jax.results import MEND, read_results

Results = Mapping[str, Any]


@dataclass(frozen=True)
class Course:
    """Scores of one kind of question over time.

    Attributes:
        request: Number of the request whose people are asked about; 0: what is to be kept.
        label: Label of the kind of question.
        falls: Whether the score is meant to fall.
        metric: A key of `METRICS`.
        scores: Before the first request, then after each one; None where it was not measured.
    """

    request: int
    label: str
    falls: bool
    metric: str
    scores: tuple[Score | None, ...]

    @property
    def since(self) -> float | None:
        """How much later requests changed it: of what is to be kept, how much all of them did."""
        first, last = self.scores[self.request], self.scores[-1]
        return last["value"] - first["value"] if first and last else None


def courses(results: Sequence[Results]) -> list[Course]:
    """Returns the scores over time, those of the requests first.

    A request's people are measured before and after their own request, and after each later one.
    What is to be kept is measured throughout; its people are fewer after each request.

    Args:
        results: Content of `results.json` of each request.
    """
    kinds = read_kinds(results[0])
    falling = {split for (split, _), kind in kinds.items() if kind.falls}
    found = []
    for request in (*range(1, len(results) + 1), 0):
        for (split, modality), kind in kinds.items():
            if (split in falling) != (request > 0):
                continue
            scores = [*_scores(results, split, modality, request)]
            for metric in METRICS:
                values = tuple(score.get(metric) for score in scores)
                if any(values):
                    found.append(Course(request, kind.label, kind.falls, metric, values))
                    break
    return found


def _scores(results: Sequence[Results], split: str, modality: str, request: int) -> Iterator[Any]:
    """Yields the metrics of a kind before the first request, and after each one."""
    for number in range(len(results) + 1):
        when, run = ("before", number + 1) if number < max(request, 1) else ("after", number)
        if request and number < request - 1:
            name = ""  # not asked apart yet
        else:
            name = request_split(request, split) if request and run > request else split
        yield results[run - 1].get(when, {}).get(name, {}).get(modality, {})


def write_page(workdir: Path, folders: Sequence[Path], requests: Sequence[Sequence[str]]) -> None:
    """Writes `report.html` of a sequence of requests, and prints its table.

    Args:
        workdir: Folder of the page.
        folders: Workdirs of the requests.
        requests: IDs of the people of each request.

    Raises:
        InputError: A `results.json` is damaged.
    """
    results = [read_results(folder) for folder in folders]
    with refusing(folders[0] / "results.json", MEND):
        rows = courses(results)
    page = environment().get_template("reporting/sequence.html.j2")
    html = page.render(
        run=shown(workdir.name),
        seed=results[0]["seed"],
        rows=rows,
        requests=[[shown(person, 40) for person in people] for people in requests],
        folders=[folder.name for folder in folders],
        steps=[it.get("unlearn", {}) for it in results],
        metrics=METRICS,
        command=command(),
        policy=browser.content_policy(),
    )
    write_whole(workdir / "report.html", html)
    console = Console(markup=False, emoji=False)
    console.print(_table(rows))
    console.print(f"Report: {shown(workdir / 'report.html', 4096)}", soft_wrap=True)


def _table(rows: Sequence[Course]) -> Table:
    table = Table(title="Requests over time: before the first, then after each", box=None)
    table.add_column("request", justify="right")
    table.add_column("questions")
    for number in range(len(rows[0].scores)):
        table.add_column(str(number) if number else "before", justify="right", no_wrap=True)
    for row in rows:
        scores = (percent(score["value"]) if score else "" for score in row.scores)
        table.add_row(str(row.request or "kept"), row.label, *scores)
    return table
