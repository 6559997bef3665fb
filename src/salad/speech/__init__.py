"""What a spoken text is: audio with its transcript and word timings, from a folder or corpus to prepared cuts."""
