"""Looking at a store of one machine without writing a byte, beside running workers or not."""
