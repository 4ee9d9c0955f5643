"""Sections of the page of a comparison: of each one module, and one template of the same name."""
