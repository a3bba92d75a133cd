"""Property tests are not timed: what a machine is busy with beside them says nothing about the code."""

from hypothesis import settings

settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")
