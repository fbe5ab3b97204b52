"""Scripts that measure and print their own table."""
