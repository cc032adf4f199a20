"""The protocol that all engines share: requests, answers, and what each request gets."""
