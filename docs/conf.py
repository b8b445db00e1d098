"""How Sphinx builds these pages: `make docs`. Nothing is fetched, and a warning is an error."""

import os
import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE / "_extensions"), str(HERE.parent)]

import mmunlearner_jax  # noqa: E402
from mmunlearner_jax.command_line import hide_torch  # noqa: E402

hide_torch()

project = "mmunlearner_jax"
version = release = mmunlearner_jax.__version__
html_title = f"{project} {version}"
copyright = "the developers of mmunlearner_jax"

extensions = [
    "myst_nb",
    "sphinx.ext.apidoc",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "from_code",
]
exclude_patterns = [
    "_build",
    "plans",
    "results/flags",
    "results/methods",
    "reference/api/modules.rst",
]

myst_heading_anchors = 4
myst_enable_extensions = ["colon_fence"]
# The notebook trains a model, so it is executed by a test. `make docs NOTEBOOK=force`: here, too.
nb_execution_mode = os.environ.get("NOTEBOOK", "off")
nb_execution_raise_on_error = True
nb_execution_timeout = 600

apidoc_modules = [
    {
        "path": "../mmunlearner_jax",
        "destination": "reference/api",
        "exclude_patterns": ["../mmunlearner_jax/**/__main__.py"],
        "module_first": True,
        "max_depth": 2,
        "automodule_options": {"members", "show-inheritance"},
    }
]
autodoc_mock_imports = ["gradio", "starlette"]  # of the extra `app`, which the site does not need
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_inherit_docstrings = False
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True

html_theme = "furo"  # its styles, scripts and fonts are files of the package
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_show_sphinx = False
