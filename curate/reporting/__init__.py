"""What was measured, in words, tables and pictures: one plain dict, shown as HTML, Markdown and JSON.

summary = summarize(shift=report, selections={"near-first": chosen}, runs={"near-first": run}, evaluation=result)
headline(summary)                # three plain sentences
write_report("out/", summary)    # out/report.html, one self-contained page; report.json and report.md say the same
refresh("out/")                  # both from what a folder holds
"""

from typing import TYPE_CHECKING

from embeddings.on_first_use import on_first_use

if TYPE_CHECKING:
    from curate.reporting.folder import refresh, summarize_folder, write_report
    from curate.reporting.html import render_html
    from curate.reporting.markdown import render_markdown
    from curate.reporting.sentences import headline
    from curate.reporting.summary import summarize, without_images

__all__ = [
    "headline",
    "refresh",
    "render_html",
    "render_markdown",
    "summarize",
    "summarize_folder",
    "without_images",
    "write_report",
]

_MODULES = {
    "headline": ".sentences",
    "refresh": ".folder",
    "render_html": ".html",
    "render_markdown": ".markdown",
    "summarize": ".summary",
    "summarize_folder": ".folder",
    "without_images": ".summary",
    "write_report": ".folder",
}
__getattr__, __dir__ = on_first_use(__name__, _MODULES)
