"""The command of this experiment."""

from experiments.more_training import CLAIM

if __name__ == "__main__":
    CLAIM.main()
