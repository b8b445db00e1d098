"""Stage `report`: prints the results and writes a self-contained `report.html`."""

from rich.console import Console

from mmunlearner_jax.data.benchmarks import open_benchmark
from mmunlearner_jax.errors import InputError, refusing, shown
from mmunlearner_jax.evaluation.questions import scored_questions
from mmunlearner_jax.files import write_whole
from mmunlearner_jax.reporting.cases import Predictions
from mmunlearner_jax.reporting.run_page import render
from mmunlearner_jax.reporting.run_table import print_results
from mmunlearner_jax.results import MEND, read_results
from mmunlearner_jax.session import Session, benchmark_folder


def run(session: Session) -> bool:
    """Prints the results and writes `report.html`; runs every time, as it is quick.

    Raises:
        InputError: The workdir holds no scores before and after unlearning.
    """
    config, workdir = session.config, session.workdir
    results = read_results(workdir)
    if not {"before", "after"} <= results.keys():
        raise InputError(
            f"{workdir / 'results.json'}: lacks 'before' or 'after'; run the stages unlearn and"
            " evaluate first"
        )
    console = Console(markup=False, emoji=False)  # brackets in a path are no markup
    with refusing(workdir / "results.json", MEND):
        print_results(console, results, config.report)
    bench = open_benchmark(benchmark_folder(config, workdir), config.data, config.seed)
    questions = scored_questions(config.evaluate, bench, *bench.split(config.data.forget_ratio))
    page = workdir / "report.html"
    write_whole(page, render(config, workdir, results, Predictions(workdir, bench, questions)))
    console.print(f"Report: {shown(page, 4096)}", soft_wrap=True)
    return True
