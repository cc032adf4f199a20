"""What a process is to the store: its forks, its threads, and who is in a call."""
