"""The command of this experiment."""

from experiments.broad_domain import CLAIM

if __name__ == "__main__":
    CLAIM.main()
