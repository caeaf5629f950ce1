"""Bad inputs of every kind for every command: ``python -m tests.fuzz`` for the full size."""
