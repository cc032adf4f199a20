"""How a test says what it counted, so that it is added up over all processes of a run."""

#: A test's property: names and counts.
COUNTED = "counted"
