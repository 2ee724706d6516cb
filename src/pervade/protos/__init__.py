"""Messages: descriptors read out of the installed binaries, so schema and binary cannot disagree."""
