"""Run folders in, one HTML file out.

``write_report`` reads what a study, a run or an evaluation left on disk and writes a single page
that opens anywhere, offline, and asks no other machine for anything. It loads no model and imports
no torch, so a report can be made where the folder lies.

    folder ──> sources.load ──> Source (typed, missing is None) ──┬─> figures   (plotly, as data)
                                                                  ├─> tables    (plain HTML)
                                                                  ├─> dialogues (before and after)
                                                                  └─> page      (one HTML file)

``write_markdown`` gives a study's figures as tables to paste.
"""

from demur.report.markdown import write_markdown
from demur.report.page import write_report

__all__ = ["write_markdown", "write_report"]
