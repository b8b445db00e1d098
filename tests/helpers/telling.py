"""Runs `mmu forget` as if the model named the person: small models of the tests know nobody.

    python -m tests.helpers.telling NAME ARGUMENTS...

The model is asked everything; then what it said is replaced.
"""

import runpy
import sys

from mmunlearner_jax.command_line import hide_torch

if __name__ == "__main__":
    hide_torch()
    # Not before `hide_torch`.
    from mmunlearner_jax.request import forgetting, interview

    name = sys.argv.pop(1)

    def ask(config, pairs):
        asked = interview.ask(config, pairs)
        return asked._replace(answers=dict.fromkeys(asked.answers, f"This is {name}."))

    forgetting.ask = ask
    runpy.run_module("mmunlearner_jax.forget", run_name="__main__", alter_sys=True)
