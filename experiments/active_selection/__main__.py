"""The command of this experiment."""

from experiments.active_selection import CLAIM

if __name__ == "__main__":
    CLAIM.main()
