"""Text to speech: normalize the text, speak it with a named voice, and keep what a recognizer can read back."""
