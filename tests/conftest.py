"""What holds for every test."""

from hypothesis import settings

# A loaded machine is slow now and then; a slow example is no failure.
settings.register_profile("tests", deadline=None)
settings.load_profile("tests")
