"""What holds for every test of the workspace."""

from hypothesis import HealthCheck, settings

# a busy machine makes no test fail: speed belongs to bench/
settings.register_profile("voxpria", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("voxpria")
