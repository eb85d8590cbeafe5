"""`python -m pipelines` to the command line of training."""

from pipelines.cli import main

if __name__ == "__main__":
    main()
