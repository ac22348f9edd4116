"""Numbers only: the compiled inner loops of rtgan. Nothing here imports from the rest of the project."""
