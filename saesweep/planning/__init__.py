"""What an experiment would run: settings, memory, tokens and time, before anything trains."""
