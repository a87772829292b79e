"""python -m mlkernels: the command line."""

from mlkernels.commands.main import main

if __name__ == "__main__":
    main()
