"""The command of this experiment."""

from experiments.controlled_selection import CLAIM

if __name__ == "__main__":
    CLAIM.main()
