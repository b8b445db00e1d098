"""One short script per stage: `run(session)` reads the files that earlier stages wrote.

It returns False if its result already existed. `config.run.READS` lists the stages.
"""

import importlib
from collections.abc import Callable

from mmunlearner_jax.session import Session

# These stages use no mesh. With several processes, the first runs them and the others wait.
OF_ONE_PROCESS = ("prepare", "report", "rescore")


def find_stage(name: str) -> Callable[[Session], bool]:
    """Returns the function that runs a stage."""
    return importlib.import_module(f"{__name__}.{name}").run
