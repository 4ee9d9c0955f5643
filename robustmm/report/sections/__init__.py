"""Sections of a page: of each one module, which says what is shown, and one template of the same name."""
