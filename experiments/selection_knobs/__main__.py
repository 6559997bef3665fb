"""The command of this experiment."""

from experiments.selection_knobs import CLAIM

if __name__ == "__main__":
    CLAIM.main()
