"""The command of this experiment."""

from experiments.stage_zero import CLAIM

if __name__ == "__main__":
    CLAIM.main()
