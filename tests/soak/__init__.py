"""`python -m tests.soak`: hours of real load under FLAK, the accounts checked all the while. Not part of the tests."""
