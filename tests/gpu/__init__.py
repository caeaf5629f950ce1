"""Everything that a machine with a GPU can tell, in one command: ``python -m tests.gpu``."""
