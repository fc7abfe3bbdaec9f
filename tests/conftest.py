"""Every run of the tests sees the same examples: hypothesis draws from fixed seeds."""

from hypothesis import settings

settings.register_profile("fixed", derandomize=True, deadline=None)
settings.load_profile("fixed")
