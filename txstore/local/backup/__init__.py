"""A store of one machine, copied beside running workers to where it is a store again."""
