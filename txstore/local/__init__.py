"""The engine for one machine: a SQLite journal, POSIX files, locks of the kernel."""
