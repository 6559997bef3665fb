"""A run's results as one self-contained page; it draws what was measured and computes nothing of its own."""
