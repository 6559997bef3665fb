"""The command of this experiment."""

from experiments.explained_accuracy import CLAIM

if __name__ == "__main__":
    CLAIM.main()
