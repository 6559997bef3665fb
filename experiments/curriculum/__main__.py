"""The command of this experiment."""

from experiments.curriculum import CLAIM

if __name__ == "__main__":
    CLAIM.main()
