import pytest

pytest.register_assert_rewrite("tests.topics.bus_contract")
