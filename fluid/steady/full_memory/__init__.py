"""When a server with full memory is stable, and what it completes if not (THEORY 11)."""
