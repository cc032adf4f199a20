"""The engine for many hosts: the journal in PostgreSQL, the bytes in an S3-compatible store."""
