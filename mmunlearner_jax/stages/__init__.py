"""One short script per stage: `run(session)` reads what the stages before it wrote.

It returns False where its result lay there already. `config.run.READS` lists the stages.
"""

import importlib
from collections.abc import Callable

from mmunlearner_jax.session import Session

# They run on no mesh: with several processes the first runs them, and the others wait.
OF_ONE_PROCESS = ("prepare", "report", "rescore")


def find_stage(name: str) -> Callable[[Session], bool]:
    """Returns the function that runs a stage."""
    return importlib.import_module(f"{__name__}.{name}").run
