"""The teacher's distribution into the student: the exact divergence, the objective, and the one training loop."""
