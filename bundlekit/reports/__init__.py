"""Reports of a run: scores, tables, drawings, tracking."""
