"""`python -m api`."""

from api.main import run

if __name__ == "__main__":
    run()
