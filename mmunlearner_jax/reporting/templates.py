"""How the package's templates are filled in, and how numbers are written in them."""

import jinja2

from mmunlearner_jax.evaluation.scores import Score


def environment() -> jinja2.Environment:
    """What fills in the package's templates: pages are escaped, unknown names are errors."""
    found = jinja2.Environment(
        loader=jinja2.PackageLoader("mmunlearner_jax", ""),
        autoescape=jinja2.select_autoescape(("html.j2",), default=False),
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    found.filters |= {"pct": percent, "interval": interval}
    return found


def percent(fraction: float) -> str:
    """A fraction as a percentage with at most one decimal, e.g. "97.5 %"."""
    return f"{_number(fraction)}\u00a0%"


def interval(score: Score) -> str:
    """The 95 % interval in percent, e.g. "26 – 38.1 %"; resampling equal values gives none."""
    low, high = score["ci95"]
    return f"{_number(low)} – {percent(high)}" if low < high else "all equal"


def _number(fraction: float) -> str:
    return f"{100 * fraction:.1f}".removesuffix(".0")
