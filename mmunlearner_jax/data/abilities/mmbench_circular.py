"""MMBench with the options of each question rotated; right only where all rotations are.

Source: section 4.3 (CircularEval) of Liu et al., arXiv 2307.06281.
"""

import dataclasses

from mmunlearner_jax.data.abilities import mmbench

SET = dataclasses.replace(
    mmbench.SET, name="mmbench_circular", title="MMBench, CircularEval", rotated=True
)
