"""What holds for all unit tests: that the machine is busy is no failure, so no example has a time limit."""

from hypothesis import HealthCheck, settings

settings.register_profile("patient", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("patient")
