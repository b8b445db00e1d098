"""The environment of the package's templates, and the format of their numbers."""

import jinja2

from mmunlearner_jax.evaluation.scores import Score


def environment() -> jinja2.Environment:
    """Returns the templates' environment: it escapes HTML, and unknown names are errors."""
    templates = jinja2.Environment(
        loader=jinja2.PackageLoader("mmunlearner_jax", ""),
        autoescape=jinja2.select_autoescape(("html.j2",), default=False),
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    templates.filters |= {"pct": percent, "interval": interval, "points": points}
    return templates


def percent(fraction: float) -> str:
    """Formats a fraction as a percentage with at most one decimal, e.g. "97.5 %"."""
    return f"{_number(fraction)}\u00a0%"


def interval(score: Score) -> str:
    """Formats the 95 % interval in percent, e.g. "26 – 38.1 %", or "all equal" if it is empty."""
    low, high = score["ci95"]
    return f"{_number(low)} – {percent(high)}" if low < high else "all equal"


def points(fraction: float) -> str:
    """Writes a difference of fractions in points, with its sign."""
    return f"{round(100 * fraction, 1) + 0.0:+.1f}".replace("-", "\u2212")


def _number(fraction: float) -> str:
    return f"{100 * fraction:.1f}".removesuffix(".0")
