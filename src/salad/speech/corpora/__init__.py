"""One module per corpus: each reads where its audio and transcripts lie and yields Lhotse cuts, or a reason."""
