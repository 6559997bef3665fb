"""The command of this experiment."""

from experiments.distillation_law import CLAIM

if __name__ == "__main__":
    CLAIM.main()
