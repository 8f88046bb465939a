"""`python -m linserve` runs the command `linserve`."""

from linserve.cli import main

if __name__ == "__main__":
    main()
