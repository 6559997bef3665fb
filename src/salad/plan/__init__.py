"""What a recipe will take, said before anything is loaded: parameters, memory, tokens, hours, FLOPs, time, disk."""
