"""The fusion keeps the contract of its kind: one line, one test case per promise."""

import robustmm.testing

test_contracts = robustmm.testing.contract_tests("robustmm_max_fusion")
