"""The command of this experiment."""

from experiments.text_mix import CLAIM

if __name__ == "__main__":
    CLAIM.main()
