"""Calls to models, text and video, through one door: every answer is asked for, and paid for, once."""
