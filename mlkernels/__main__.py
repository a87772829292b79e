"""python -m mlkernels: the command line."""

from mlkernels.cli import main

if __name__ == "__main__":
    main()
