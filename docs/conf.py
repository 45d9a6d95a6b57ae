"""How the documentation is built: Markdown by MyST, the furo theme, and `_ext/lr_docs.py` for what is made from the program itself.

Nothing is fetched from the network, neither here nor by a reader of the pages."""

import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE / "_ext"), str(HERE.parent)]

from dsl import __version__  # noqa: E402

project = "lr"
author = "The lr authors"
copyright = "2026, The lr authors"
version = release = __version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx_copybutton", "lr_docs"]
exclude_patterns = ["_build", "_ext", "_generated/*.md"]
source_suffix = {".md": "markdown"}
default_role = "code"
nitpicky = False

myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 4

html_theme = "furo"
html_title = "lr"
html_static_path = ["_static"]
html_css_files = ["lr.css"]
html_show_sphinx = False
html_theme_options = {"navigation_with_keys": True, "footer_icons": []}
templates_path: list[str] = []

python_maximum_signature_line_length = 90
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
copybutton_prompt_text = r"lr> |\$ "
copybutton_prompt_is_regexp = True
copybutton_only_copy_prompt_lines = True
suppress_warnings = ["myst.header"]
