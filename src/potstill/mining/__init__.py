"""Where a student fails and its teacher does not: clusters of such items, and what to ask the teacher next."""
