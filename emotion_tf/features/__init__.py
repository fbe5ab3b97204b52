"""Cached outputs of frozen trunks."""
