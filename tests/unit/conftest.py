"""Settings of the property tests."""

from hypothesis import settings

# Other processes, such as those of pytest-xdist, may slow down any example. The parent keeps the profile for CI.
settings.register_profile("no deadline", parent=settings(), deadline=None)
settings.load_profile("no deadline")
