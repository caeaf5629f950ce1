"""``python -m fluidwait``."""

from fluidwait.main import run

if __name__ == "__main__":
    run()
