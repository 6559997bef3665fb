"""What a warm start of the adapter teaches, a file a kind; model/warm_start.py chooses by name and trains."""
