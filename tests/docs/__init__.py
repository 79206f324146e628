"""What the documents say is true: their examples run, their tables and links agree with the code."""
