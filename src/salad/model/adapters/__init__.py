"""What stands between encoder frames and LLM positions, a file a kind; model/adapter.py chooses by name."""
