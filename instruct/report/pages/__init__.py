"""Documents drawn by Jinja templates: self-contained HTML, and the same as Markdown."""
