"""Audit of a data set for leakage and damage; `audit.audit_data` is its front door."""
