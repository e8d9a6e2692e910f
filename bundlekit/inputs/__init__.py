"""What a run reads, and whether it can: data lists, pictures, volumes, options, weights."""
