"""Self-contained HTML pages.

page    sections of paragraphs, tables, figures and charts; the template is ``page.html.jinja``
charts  charts as inline SVG
"""
