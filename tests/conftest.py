"""What holds for every test: a property is no faster on a quiet machine, so no example has a time limit."""

from hypothesis import settings

settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")
