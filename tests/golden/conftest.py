"""The option that records golden rollouts anew."""


def pytest_addoption(parser):
    parser.addoption("--record-golden", action="store_true", help="record golden rollouts anew")
