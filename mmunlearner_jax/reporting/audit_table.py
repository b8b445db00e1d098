"""The table of an audit on the terminal."""

from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.table import Table

from mmunlearner_jax.audit.attacks import ATTACKS
from mmunlearner_jax.reporting.templates import interval, percent


def print_audit(console: Console, audit: Mapping[str, Any]) -> None:
    """Prints what every attack came to.

    Args:
        console: Where to print.
        audit: Content of `audit.json`.
    """
    table = Table("attack", title="Erased or hidden?", title_justify="left")
    attacked = ["after, attacked"]
    if any(result.get("gold") for result in audit["attacks"].values()):
        attacked.append("gold, attacked")
    columns = ("before", "after", *attacked, "comes back")
    for name in columns:
        table.add_column(name, justify="right")
    table.add_column("verdict")
    for name, result in audit["attacks"].items():
        cells = {}
        if "recovered" in result:
            share, gold = percent(result["recovered"]), result["gold"]
            cells = {
                "before": percent(result["before"]["clean"]),
                "after": percent(result["after"]["clean"]),
                "after, attacked": percent(result["after"]["attacked"]),
                "gold, attacked": percent(gold["attacked"]) if gold else "",
                "comes back": f"{share} ({interval(result)})" if result["ci95"] else share,
            }
        row = (cells.get(column, "") for column in columns)
        table.add_row(ATTACKS[name].label, *row, result["verdict"])
    console.print(table)
