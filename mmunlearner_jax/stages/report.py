"""Stage `report`: the results in the terminal, and a self-contained `report.html`."""

from rich.console import Console

from mmunlearner_jax.errors import InputError, refusing, shown
from mmunlearner_jax.files import write_whole
from mmunlearner_jax.reporting.run_page import render
from mmunlearner_jax.reporting.run_table import print_results
from mmunlearner_jax.results import MEND, read_results
from mmunlearner_jax.session import Session


def run(session: Session) -> bool:
    """Prints the results and writes `report.html`; always True, as it is quick.

    Raises:
        InputError: the workdir holds no scores of before and after.
    """
    workdir = session.workdir
    results = read_results(workdir)
    if not {"before", "after"} <= results.keys():
        raise InputError(
            f"{workdir / 'results.json'}: no 'before' and 'after': run the stages unlearn and"
            " evaluate first"
        )
    console = Console(markup=False, emoji=False)  # brackets in a path are brackets
    with refusing(workdir / "results.json", MEND):
        print_results(console, results)
    page = workdir / "report.html"
    write_whole(page, render(session.config, workdir, results))
    console.print(f"Report: {shown(page, 4096)}", soft_wrap=True)
    return True
