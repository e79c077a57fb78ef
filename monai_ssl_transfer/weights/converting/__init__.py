"""Encoders in other shapes and under the names of other libraries."""
