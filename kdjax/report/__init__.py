"""What `kdjax.diagnose` reads, and what it leaves behind.

`of_run` and `of_files` read what is to be diagnosed; `write` makes a page,
Markdown, JSON and figures of the diagnosis.
"""

from kdjax.report.cases import Case, of_files, of_run
from kdjax.report.folder import write

__all__ = ['Case', 'of_files', 'of_run', 'write']
