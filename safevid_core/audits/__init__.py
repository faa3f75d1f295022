"""Audits: measured figures about what the stages made. Nothing is made from them."""
