"""Models: loading and initialising them, and turning their outputs into rows."""
