"""Multiple-choice tasks with a text view and a speech view of the same items."""
