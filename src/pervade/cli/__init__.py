"""The command line: a lazy table of verbs; importing `main` loads click and nothing else."""
