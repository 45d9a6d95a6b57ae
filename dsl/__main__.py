"""`python -m dsl` is the same program as `lr`."""

from dsl.cli import main

if __name__ == "__main__":
    main()
