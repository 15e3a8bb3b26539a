"""How Sphinx builds this documentation: `make docs`."""

import sys
from importlib.metadata import version as version_of
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "_extensions"))

project = "labelsieve"
author = "The labelsieve authors"
project_copyright = "The labelsieve authors"
release = version = version_of("labelsieve")

extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.napoleon",
    "myst_nb",
    "from_code",
]
exclude_patterns = ["_extensions", "_templates", "results/**/runs"]
templates_path = ["_templates"]

# Text in single backticks of a docstring is code.
default_role = "code"
# Of blocks that name none.
highlight_language = "none"
# Names of other libraries have no page here, and no network is needed to build; names of this one have to be found.
nitpick_ignore_regex = [("py:.*", r"(?!labelsieve\b).*"), ("py:.*", r"labelsieve\..*\._\w+")]

autosummary_ignore_module_all = False
autodoc_class_signature = "mixed"
autodoc_default_options = {"members": True, "member-order": "bysource"}
autodoc_typehints_format = "short"
napoleon_numpy_docstring = False
# An annotation such as np.bool_ would be read as markup.
napoleon_attr_annotations = False
python_maximum_signature_line_length = 100

myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 4

nb_execution_mode = "force"
nb_execution_raise_on_error = True
nb_execution_timeout = 900
# Progress bars and remarks of other libraries; an error ends the build all the same.
nb_output_stderr = "remove"

html_theme = "pydata_sphinx_theme"
html_title = f"labelsieve {release}"
html_static_path = ["_static"]
html_css_files = ["labelsieve.css"]
html_copy_source = False
html_sidebars = {"tutorial": []}
html_theme_options = {
    "show_toc_level": 2,
    "navigation_with_keys": False,
    "footer_start": ["copyright"],
    "footer_end": [],
}
