"""Text of a teacher that gives nothing but text: asked for, kept, paid for once, on the record."""
