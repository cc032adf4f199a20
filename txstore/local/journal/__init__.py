"""The journal: what is known of every transfer, in SQLite under the working dir."""
