"""Networks whose maps other networks build on, one backbone per file; registered where they are published alone."""
