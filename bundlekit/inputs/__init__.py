"""Reading and checking the inputs of a run: data lists, images, volumes, options, weights."""
