"""The page at ``/``: what the server does now, and a form that checks a text.

``endpoints`` serves the files of this folder, the figures that they show, and the form's checks.
The files need no build step and fetch nothing from elsewhere.
"""
