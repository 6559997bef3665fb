"""The command of this experiment."""

from experiments.on_policy import CLAIM

if __name__ == "__main__":
    CLAIM.main()
