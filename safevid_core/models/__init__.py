"""Calls to text and video models through one gateway. Each question is asked and paid for once."""
