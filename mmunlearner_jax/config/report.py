"""Section `config.report`: the bars that a report judges scores by."""

import dataclasses
from typing import ClassVar

from mmunlearner_jax.options import Section, option


@dataclasses.dataclass(frozen=True, kw_only=True)
class ReportConfig(Section):
    """Bars of the verdicts; shares are of what was known before, beyond guessing."""

    key: ClassVar[str] = "report"

    known: float = option(
        0.25,
        "Least score before unlearning that counts as known, as a share of the way from guessing"
        " to all right.",
        least=0,
        below=1,
    )
    forgotten: float = option(
        0.1, "Largest share that may be left of what is forgotten.", least=0, below=1
    )
    remembered: float = option(
        0.5,
        "Share that is left from which on it is not forgotten; below it, it is partly.",
        above=0,
    )
    returned: float = option(
        0.1,
        "Largest rise of what an earlier request made fall, as a share of the way from guessing to"
        " all right; from `remembered` on it came back.",
        least=0,
        below=1,
    )
    kept: float = option(0.95, "Least share that must be left of what is kept.", above=0)
    damaged: float = option(
        0.8,
        "Share that is left below which the rest is damaged; above it, it is partly kept.",
        least=0,
    )

    def __post_init__(self):
        super().__post_init__()
        if self.remembered <= self.forgotten:
            self.refuse("remembered", f"more than config.report.forgotten, {self.forgotten:g}")
        if self.remembered <= self.returned:
            self.refuse("remembered", f"more than config.report.returned, {self.returned:g}")
        if self.damaged > self.kept:
            self.refuse("damaged", f"config.report.kept, {self.kept:g}, or less")
