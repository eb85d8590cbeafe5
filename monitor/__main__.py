"""`python -m monitor`: the command line, for where the console script is not on the path."""

from monitor.cli import main

if __name__ == "__main__":
    main()
