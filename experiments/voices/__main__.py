"""The command of this experiment."""

from experiments.voices import CLAIM

if __name__ == "__main__":
    CLAIM.main()
