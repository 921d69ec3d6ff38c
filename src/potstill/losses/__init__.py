"""Losses: pure functions on tensors, and the terms that bind them to the fields of a Step."""
