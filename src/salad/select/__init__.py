"""Which texts are worth speaking: clusters of broad text, a probe of each, and sampling by misalignment to the γ."""
