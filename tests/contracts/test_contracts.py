"""Everything that ships keeps the contract of its kind; a new plugin is tested here the day it appears."""

import robustmm.testing

test_contracts = robustmm.testing.contract_tests()
