"""Outputs of frozen trunks, kept on disk."""
