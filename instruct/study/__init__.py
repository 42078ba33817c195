"""Studies: a grid of ordinary runs, expanded, trained and evaluated by child processes."""
