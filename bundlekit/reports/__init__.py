"""What a run found: scores, tables, drawings, tracking."""
