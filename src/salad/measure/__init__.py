"""How far the student is from where it should be: misalignment, forgetting, hearing, and accuracy on a task."""
